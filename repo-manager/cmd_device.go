package main

import (
	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newDeviceCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "device",
		Short:   "Devices and what they run",
		Example: `  repo-manager device list`,
	}
	group.AddCommand(newDeviceCreateCommand(c), newDeviceListCommand(c), newDeviceShowCommand(c))
	return group
}

func newDeviceCreateCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "create NAME",
		Short: "Enrol a device",
		Long: `Enrol a device. Its token, with which it reports to the server, is shown this
once; in a pipe it is all that is printed. It belongs into the device's
/etc/aptfleet/device.yaml.`,
		Example: `  repo-manager device create bench-1 --pipeline demo`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			made, err := api.CreateDevice(cmd.Context(), args[0], pipeline)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Token, "%s", made.Token)
			if c.io.OutTerminal {
				c.io.Note("this is the token of device %s; it is not shown again", made.Name)
			}
			return nil
		},
	}
}

// booted finds what a device runs now; the zero value if it did not say.
func booted(d protocol.Device) protocol.Deployment {
	if d.Report != nil {
		for _, deployment := range d.Report.Deployments {
			if deployment.Role == "booted" || deployment.Role == "trial" {
				return deployment
			}
		}
	}
	return protocol.Deployment{}
}

func newDeviceListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the devices with what they run",
		Example: `  repo-manager device list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Devices(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("device", "pipeline", "follows", "runs", "phase", "seen", "why not")
			for _, d := range all {
				report := d.Report
				if report == nil {
					report = &protocol.Report{}
				}
				runs := booted(d)
				table.Row(d.Name, d.Pipeline, report.Follow, offer(runs.Snapshot, runs.State), report.Phase, d.Seen, report.WhyNot)
			}
			table.Print("no devices yet: repo-manager device create NAME")
			return nil
		},
	}
}

func newDeviceShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a device and its last report",
		Example: `  repo-manager device show bench-1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			d, err := api.Device(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(d)
			}
			facts := []term.Fact{
				{Name: "device", Value: d.Name},
				{Name: "pipeline", Value: d.Pipeline},
				{Name: "enrolled", Value: d.Created},
				{Name: "seen", Value: d.Seen},
			}
			if r := d.Report; r != nil {
				facts = append(facts,
					term.Fact{Name: "follows", Value: r.Follow},
					term.Fact{Name: "wants", Value: offer(r.WantedName, r.Wanted)},
					term.Fact{Name: "phase", Value: r.Phase},
					term.Fact{Name: "progress", Value: r.Progress},
					term.Fact{Name: "why not", Value: r.WhyNot},
					term.Fact{Name: "last error", Value: r.LastError},
				)
				for _, deployment := range r.Deployments {
					text := name(deployment.Snapshot, deployment.State)
					if deployment.Version != "" {
						text += " (" + deployment.Version + ")"
					}
					facts = append(facts, term.Fact{Name: deployment.Role, Value: text})
				}
				for _, f := range r.Failed {
					facts = append(facts, term.Fact{
						Name: "failed", Value: term.Styled{Text: name(f.Snapshot, f.State) + ": " + f.Reason, Style: term.Bad},
					})
				}
			}
			c.io.Facts(facts...)
			return nil
		},
	}
}
