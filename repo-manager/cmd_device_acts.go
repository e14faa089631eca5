package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// deviceAct is a command that does something to one device.
func (c *cli) deviceAct(cmd *cobra.Command, done string, act func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error)) *cobra.Command {
	cmd.ValidArgsFunction = c.completeDevice
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := c.client()
		if err != nil {
			return err
		}
		d, err := act(cmd.Context(), api, args)
		if err != nil {
			return err
		}
		if c.io.JSON {
			return c.io.PrintJSON(d)
		}
		c.io.Result(d.Name, done, d.Name)
		return nil
	}
	return cmd
}

func newDeviceAssignCommand(c *cli) *cobra.Command {
	var stage string
	cmd := c.deviceAct(&cobra.Command{
		Use:     "assign NAME",
		Short:   "Make a device follow another stage",
		Long:    `Make a device follow another stage. It learns so with its next check-in.`,
		Example: `  repo-manager device assign gw-17 --stage canary`,
		Args:    cobra.ExactArgs(1),
	}, "device %s follows it now", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		if stage == "" {
			return protocol.Device{}, &term.UsageError{Text: "repo-manager device assign needs --stage NAME", Hint: "repo-manager device assign --help"}
		}
		return api.AssignDevice(ctx, args[0], stage)
	})
	cmd.Flags().StringVar(&stage, "stage", "", "`name` of the stage")
	mustComplete(cmd, "stage", c.complete(stageNames))
	return cmd
}

func newDeviceSetCommand(c *cli) *cobra.Command {
	var revision string
	var modules []string
	var cmd *cobra.Command
	cmd = c.deviceAct(&cobra.Command{
		Use:   "set NAME",
		Short: "Correct a device's hardware revision or its modules",
		Long: `Correct a device's hardware revision or its modules. A revision that is set here
counts more than what the device says; an empty one takes its word again. The
modules take the place of those that it had.`,
		Example: `  repo-manager device set gw-17 --revision r2 --module lte,gps`,
		Args:    cobra.ExactArgs(1),
	}, "changed device %s", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		var in protocol.SetDevice
		if cmd.Flags().Changed("revision") {
			in.Revision = &revision
		}
		if cmd.Flags().Changed("module") {
			wanted := []string{}
			for _, m := range modules {
				if m != "" {
					wanted = append(wanted, m)
				}
			}
			in.Modules = &wanted
		}
		if in.Revision == nil && in.Modules == nil {
			return protocol.Device{}, &term.UsageError{Text: "repo-manager device set needs --revision or --module", Hint: "repo-manager device set --help"}
		}
		return api.SetDevice(ctx, args[0], in)
	})
	cmd.Flags().StringVar(&revision, "revision", "", "hardware `revision`; '' takes the device's word")
	cmd.Flags().StringSliceVar(&modules, "module", nil, "`name` of a module that it has; may be repeated, '' is none")
	return cmd
}

func newDeviceHoldCommand(c *cli) *cobra.Command {
	var reason, until string
	cmd := c.deviceAct(&cobra.Command{
		Use:   "hold NAME",
		Short: "Keep a device as it is",
		Long: `Keep a device as it is: it installs nothing until the hold ends or is taken off.
--until takes a time (2026-12-01T06:00:00Z), a date, or a duration from now (36h).`,
		Example: `  repo-manager device hold gw-17 --reason "at the fair" --until 2026-12-01`,
		Args:    cobra.ExactArgs(1),
	}, "device %s stays as it is", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		if reason == "" {
			return protocol.Device{}, &term.UsageError{Text: "repo-manager device hold needs --reason WHY", Hint: "repo-manager device hold --help"}
		}
		at, err := term.Moment(until, time.Now())
		if err != nil {
			return protocol.Device{}, err
		}
		return api.HoldDevice(ctx, args[0], protocol.Hold{Reason: reason, Until: at})
	})
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; the device shows it")
	cmd.Flags().StringVar(&until, "until", "", "`time` at which the hold ends; without it, it has to be taken off")
	return cmd
}

func newDeviceUnholdCommand(c *cli) *cobra.Command {
	return c.deviceAct(&cobra.Command{
		Use:     "unhold NAME",
		Short:   "Take a hold off",
		Example: `  repo-manager device unhold gw-17`,
		Args:    cobra.ExactArgs(1),
	}, "device %s is not held any more", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		return api.UnholdDevice(ctx, args[0])
	})
}

func newDevicePinCommand(c *cli) *cobra.Command {
	var reason string
	cmd := c.deviceAct(&cobra.Command{
		Use:   "pin NAME SNAPSHOT",
		Short: "Keep a device at one snapshot",
		Long: `Keep a device at one snapshot, whatever its stage offers. The snapshot cannot be
deleted meanwhile.`,
		Example: `  repo-manager device pin gw-17 20261120T101500Z --reason "customer's acceptance"`,
		Args:    cobra.ExactArgs(2),
	}, "device %s stays at it", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		if reason == "" {
			return protocol.Device{}, &term.UsageError{Text: "repo-manager device pin needs --reason WHY", Hint: "repo-manager device pin --help"}
		}
		return api.PinDevice(ctx, args[0], protocol.PinDevice{Snapshot: args[1], Reason: reason})
	})
	cmd.Flags().StringVar(&reason, "reason", "", "`why`")
	return cmd
}

func newDeviceUnpinCommand(c *cli) *cobra.Command {
	return c.deviceAct(&cobra.Command{
		Use:     "unpin NAME",
		Short:   "Make a device follow its stage again",
		Example: `  repo-manager device unpin gw-17`,
		Args:    cobra.ExactArgs(1),
	}, "device %s follows its stage again", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		return api.UnpinDevice(ctx, args[0])
	})
}

func newDeviceRetireCommand(c *cli) *cobra.Command {
	var reason string
	var yes bool
	cmd := c.deviceAct(&cobra.Command{
		Use:   "retire NAME",
		Short: "End a device for good",
		Long: `End a device for good: its key is refused from now on, and so is its password of
the archive. It goes on as it is, without updates. To use the machine again,
register its serial number: it enrols anew.`,
		Example: `  repo-manager device retire gw-17 --reason "stolen" --yes`,
		Args:    cobra.ExactArgs(1),
	}, "retired device %s", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		if reason == "" {
			return protocol.Device{}, &term.UsageError{Text: "repo-manager device retire needs --reason WHY", Hint: "repo-manager device retire --help"}
		}
		d, err := api.Device(ctx, args[0])
		if err != nil {
			return d, err
		}
		what := fmt.Sprintf("retire device %s, serial number %s, of product %s in stage %s", d.Name, term.Printable(d.Serial), d.Product, d.Stage)
		if err := c.confirm(yes, what); err != nil {
			return d, err
		}
		return api.RetireDevice(ctx, d.Name, reason)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; whoever holds the device is told")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func newDeviceResolveCommand(c *cli) *cobra.Command {
	var keep string
	cmd := c.deviceAct(&cobra.Command{
		Use:   "resolve NAME",
		Short: "Say which of two machines with one key a device is",
		Long: `Say which of two machines with one key a device is. The other one is told that
it is retired; give it a key of its own by removing /sysroot/identity/device.key
there and enrolling it anew. "device show" tells when and from where each was
seen.

Machines with the same hardware hash cannot be told apart: then --keep may be
left out, and if both go on they are found out again. Retire the device and
enrol both anew.`,
		Example: `  repo-manager device resolve gw-17 --keep 5e0b`,
		Args:    cobra.ExactArgs(1),
	}, "device %s is one machine again", func(ctx context.Context, api *client.Client, args []string) (protocol.Device, error) {
		return api.ResolveDevice(ctx, args[0], keep)
	})
	cmd.Flags().StringVar(&keep, "keep", "", "the `machine` that the device is, or the beginning of it")
	return cmd
}
