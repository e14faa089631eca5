package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// becomeFlags adds what a device becomes.
func becomeFlags(f *pflag.FlagSet, product, stage *string, modules *[]string) {
	f.StringVar(product, "product", "", "`name` of the product that it is, for good")
	f.StringVar(stage, "stage", "", "`name` of the stage that it follows")
	f.StringSliceVar(modules, "module", nil, "`name` of a module that it has; may be repeated")
}

func newDeviceRegisterCommand(c *cli) *cobra.Command {
	var r protocol.Registration
	var file string
	var tell bool
	cmd := &cobra.Command{
		Use:   "register [SERIAL]",
		Short: "Let a machine enrol by its serial number",
		Long: `Let a machine enrol by its serial number, once. Whoever says that number first is
the device: numbers are no secrets, so use tokens where strangers reach the
server.

--file registers a list, all of it or nothing: CSV with a header line that names
its columns, of serial, name, product, stage, modules (separated by spaces) and
revision. What a line leaves out is what the flags say.`,
		Example: `  repo-manager device register SN-000017 --product gateway --stage production --name gw-17
  repo-manager device register --file delivery-12.csv --product gateway --stage production`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) == (file == "") {
				return &term.UsageError{Text: "repo-manager device register needs either a serial number or --file", Hint: "repo-manager device register --help"}
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			r.Pipeline = pipeline
			var all []protocol.Registration
			if file != "" {
				if all, err = readRegistrations(file, r); err != nil {
					return err
				}
			} else {
				r.Serial = args[0]
				all = []protocol.Registration{r}
			}
			isNew, err := api.Register(cmd.Context(), all)
			if err != nil {
				return err
			}
			switch {
			case c.io.JSON:
				if err := c.io.PrintJSON(all); err != nil {
					return err
				}
			case file != "":
				c.io.Result(fmt.Sprint(len(all)), "registered %d serial numbers", len(all))
			default:
				c.io.Result(r.Serial, "serial number %s may enrol", r.Serial)
			}
			if !isNew {
				c.io.Note("nothing was new")
			}
			return unchanged(tell && !isNew)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "CSV `file` with a list; - is standard input")
	f.StringVar(&r.Name, "name", "", "`name` of the device; its serial number unless given")
	f.StringVar(&r.Revision, "revision", "", "hardware `revision`, if the device cannot tell")
	becomeFlags(f, &r.Product, &r.Stage, &r.Modules)
	mustComplete(cmd, "stage", c.complete(stageNames))
	tellUnchanged(cmd, &tell)
	return cmd
}

// readRegistrations reads a CSV file; usual is what its lines leave out.
func readRegistrations(path string, usual protocol.Registration) ([]protocol.Registration, error) {
	in := os.Stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the list: %w", err)
		}
		defer file.Close()
		in = file
	}
	lines := csv.NewReader(in)
	header, err := lines.Read()
	if err != nil {
		return nil, fmt.Errorf("cannot read the list %s: %w", path, err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff") // what spreadsheets write
	known := []string{"serial", "name", "product", "stage", "modules", "revision"}
	for _, column := range header {
		if !slices.Contains(known, column) {
			return nil, term.WithHint(fmt.Errorf("cannot read the list %s: it has a column %q", path, column), "columns are "+strings.Join(known, ", "))
		}
	}
	if !slices.Contains(header, "serial") {
		return nil, term.WithHint(fmt.Errorf("cannot read the list %s: it has no column serial", path), "the first line names the columns: "+strings.Join(known, ","))
	}
	var all []protocol.Registration
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the list %s: %w", path, err)
		}
		r := usual
		for i, value := range line {
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			switch header[i] {
			case "serial":
				r.Serial = value
			case "name":
				r.Name = value
			case "product":
				r.Product = value
			case "stage":
				r.Stage = value
			case "modules":
				r.Modules = strings.Fields(value)
			case "revision":
				r.Revision = value
			}
		}
		all = append(all, r)
	}
}

func newDeviceUnregisterCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "unregister SERIAL",
		Short:   "Take a registration back",
		Example: `  repo-manager device unregister SN-000017`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.Unregister(cmd.Context(), args[0]); err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Unregistered string `json:"unregistered"`
				}{args[0]})
			}
			c.io.Result(args[0], "serial number %s may not enrol any more", args[0])
			return nil
		},
	}
}

func newDeviceRegisteredCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "registered",
		Short:   "List the serial numbers that may enrol",
		Example: `  repo-manager device registered`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Registrations(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("serial number", "name", "pipeline", "product", "stage", "modules", "by", "since")
			for _, r := range all {
				table.Row(r.Serial, r.Name, r.Pipeline, r.Product, r.Stage, r.Modules, r.By, r.Created)
			}
			table.Print("no serial number is registered: repo-manager device register SERIAL")
			return nil
		},
	}
}

func newDeviceTokenCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "token",
		Short:   "Secrets with which machines enrol",
		Example: `  repo-manager device token create --product gateway --stage production`,
	}
	group.AddCommand(newDeviceTokenCreateCommand(c), newDeviceTokenListCommand(c), newDeviceTokenRevokeCommand(c))
	return group
}

func newDeviceTokenCreateCommand(c *cli) *cobra.Command {
	var t protocol.EnrolmentToken
	var expires string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token with which a machine enrols",
		Long: `Make a token with which a machine enrols, once, or --uses times for a batch. It
is shown this once; in a pipe it is all that is printed. It is good for a day
unless --expires says otherwise, a year at most.`,
		Example: `  repo-manager device token create --product gateway --stage production
  repo-manager device token create --product gateway --stage dev --uses 50 --expires 14d --label "line 3"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := needs(cmd, "product", "stage"); err != nil {
				return err
			}
			if t.Expires, err = term.Moment(expires, time.Now()); err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			t.Pipeline = pipeline
			made, err := api.CreateEnrolmentToken(cmd.Context(), t)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Token, "%s", made.Token)
			if c.io.OutTerminal {
				c.io.Note("this is enrolment token %s, good until %s; it is not shown again", made.ID, instant(made.Expires))
			}
			return nil
		},
	}
	f := cmd.Flags()
	becomeFlags(f, &t.Product, &t.Stage, &t.Modules)
	f.StringVar(&t.Serial, "serial", "", "the only serial `number` that may use it")
	f.IntVar(&t.Uses, "uses", 1, "`number` of machines that may use it")
	f.StringVar(&expires, "expires", "", "`time` at which it ends: a date, a time, or 36h or 14d from now")
	f.StringVar(&t.Label, "label", "", "what it is for, in lists and in the history")
	mustComplete(cmd, "stage", c.complete(stageNames))
	return cmd
}

func newDeviceTokenListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the enrolment tokens",
		Example: `  repo-manager device token list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.EnrolmentTokens(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("id", "label", "pipeline", "product", "stage", "serial number", "left", "by", "expires")
			for _, t := range all {
				table.Row(t.ID, t.Label, t.Pipeline, t.Product, t.Stage, t.Serial, fmt.Sprintf("%d of %d", t.Left, t.Uses), t.By, t.Expires)
			}
			table.Print("no enrolment tokens: repo-manager device token create")
			return nil
		},
	}
}

func newDeviceTokenRevokeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End an enrolment token at once",
		Long:    `End an enrolment token at once. Devices that enrolled with it stay.`,
		Example: `  repo-manager device token revoke 5e0b3c`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.RevokeEnrolmentToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Revoked string `json:"revoked"`
				}{args[0]})
			}
			c.io.Result(args[0], "revoked enrolment token %s", args[0])
			return nil
		},
	}
}

func newDevicePendingCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "pending",
		Short: "List the machines that want to become devices",
		Long: `List the machines that want to become devices and wait for an operator. They ask
again and again; after a restart of the server it takes a while until all have.`,
		Example: `  repo-manager device pending`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Enrolments(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("key", "serial number", "product", "architecture", "address", "since", "reason")
			for _, p := range all {
				table.Row(p.Key, p.Serial, p.Product, p.Architecture, p.Address, p.First, p.Reason)
			}
			table.Print("nobody waits")
			return nil
		},
	}
}

func newDeviceAcceptCommand(c *cli) *cobra.Command {
	var in protocol.Accept
	cmd := &cobra.Command{
		Use:   "accept KEY|SERIAL",
		Short: "Make a machine that waits a device",
		Long: `Make a machine that waits a device. Compare the key with what the machine shows
(device-updater enrol prints it): anybody can say a serial number.

If a device has that serial number with another key, --replace gives it the new
one; all else of the device stays, and the old key is worth nothing any more.`,
		Example: `  repo-manager device accept SN-000017 --product gateway --stage production
  repo-manager device accept 5e0b3c2d --replace`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			if !in.Replace {
				if api, in.Pipeline, err = c.inPipeline(cmd.Context()); err != nil {
					return err
				}
			}
			d, err := api.AcceptEnrolment(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(d)
			}
			c.io.Result(d.Name, "accepted device %s", d.Name)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "`name` of the device; its serial number unless given")
	becomeFlags(f, &in.Product, &in.Stage, &in.Modules)
	f.BoolVar(&in.Replace, "replace", false, "replace the key of the device that has its serial number")
	mustComplete(cmd, "stage", c.complete(stageNames))
	return cmd
}

func newDeviceRefuseCommand(c *cli) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "refuse KEY|SERIAL",
		Short:   "Turn a machine that waits away for good",
		Example: `  repo-manager device refuse 5e0b3c2d --reason "none of ours"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "reason"); err != nil {
				return err
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.RefuseEnrolment(cmd.Context(), args[0], reason); err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Refused string `json:"refused"`
				}{args[0]})
			}
			c.io.Result(args[0], "refused %s", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; the machine is told")
	return cmd
}

func newDevicePardonCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "pardon KEY|SERIAL",
		Short:   "Let a machine ask again that was turned away",
		Example: `  repo-manager device pardon 5e0b3c2d`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.PardonEnrolment(cmd.Context(), args[0]); err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Pardoned string `json:"pardoned"`
				}{args[0]})
			}
			c.io.Result(args[0], "%s may ask again", args[0])
			return nil
		},
	}
}
