package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func (p *program) firmwareCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "firmware",
		Short: "Show the firmware beside the processor, and why it is not what is wanted",
		Long: `firmware lists what runs beside the processor, such as a microcontroller: the
firmware that it has, the one that the booted release has for it on this hardware
revision, and why the two differ. It reads what the updater wrote down when it
last looked, and asks nothing.

What is wanted is applied by itself: while a release is on trial, after it was
committed, and with each start of the updater.`,
		Example: "  device-updater firmware\n  device-updater firmware apply mcu",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			book, err := firmware.Read(p.updaterDir())
			if err != nil {
				return err
			}
			all := append([]protocol.Firmware{}, book.Report()...)
			if p.io.JSON {
				return p.io.PrintJSON(all)
			}
			table := p.io.NewTable("component", "has", "wanted", "why not").Whole()
			for _, f := range all {
				table.Row(cmp.Or(f.Component, "-"), cmp.Or(f.Version, "-"), cmp.Or(f.Wanted, "-"), term.Printable(f.Reason))
			}
			table.Print("nothing is known to have firmware")
			return nil
		},
	}
	group.AddCommand(p.firmwareApplyCommand(), p.firmwareHistoryCommand())
	return group
}

func (p *program) firmwareApplyCommand() *cobra.Command {
	request := daemon.Request{Act: daemon.Firmware}
	cmd := &cobra.Command{
		Use:   "apply [COMPONENT]",
		Short: "Apply the firmware that is wanted, also where that failed before",
		Long: `apply brings a component, or all of them, to the firmware that the booted
release has for them. It also tries again what was given up after it failed too
often, or waits because it was put off. Firmware that is not wanted here, because
the hardware revision is not known or not supported or because it cannot go back,
is left as it is: the exit status is 3, and the reason is said.`,
		Example: "  device-updater firmware apply mcu",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Component = strings.Join(args, "")
			if err := p.preview(cmd.Context(), request); err != nil || request.DryRun {
				return err
			}
			return p.refusedFirmware(request.Component)
		},
	}
	cmd.Flags().BoolVar(&request.DryRun, "dry-run", false, "only ask the components how they are, and show what would change")
	return cmd
}

// refusedFirmware says for what good reason a component was left as it is; ""
// is any of them.
func (p *program) refusedFirmware(component string) error {
	book, err := firmware.Read(p.updaterDir())
	if err != nil {
		return err
	}
	for _, f := range book.Report() {
		if f.Reason != "" && (component == "" || component == f.Component) {
			return &update.Refused{Reason: fmt.Sprintf("cannot apply firmware to %s: %s", cmp.Or(f.Component, "anything"), f.Reason)}
		}
	}
	return nil
}

func (p *program) firmwareHistoryCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "Show which firmware was put where, and how that ended",
		Long:    "history lists the last 50 times that an image was put on a component, newest first. --json prints them oldest first.",
		Example: "  device-updater firmware history --json",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			book, err := firmware.Read(p.updaterDir())
			if err != nil {
				return err
			}
			if p.io.JSON {
				return p.io.PrintJSON(append([]firmware.Act{}, book.Acts...))
			}
			table := p.io.NewTable("began", "component", "from", "to", "deployment", "result").Whole()
			for i := len(book.Acts) - 1; i >= 0; i-- {
				a := book.Acts[i]
				result := cmp.Or(a.Result, "under way")
				if a.Reason != "" {
					result += ": " + a.Reason
				}
				table.Row(a.At, a.Component, cmp.Or(a.From, "-"), a.To, int64(a.Deployment), term.Printable(result))
			}
			table.Print("no firmware was ever put anywhere")
			return nil
		},
	}
}

// firmwareFacts are what status says about firmware.
func firmwareFacts(all []protocol.Firmware) (attention, fine []term.Fact) {
	var well []string
	for _, f := range all {
		what := f.Component + " has " + cmp.Or(f.Version, "none that is known")
		switch {
		case f.Component == "":
			what = "cannot be told"
		case f.Reason == "" && (f.Wanted == "" || f.Wanted == f.Version):
			well = append(well, strings.TrimSpace(f.Component+" "+f.Version))
			continue
		case f.Wanted != "" && f.Wanted != f.Version:
			what += ", wanted " + f.Wanted
		}
		if f.Reason != "" {
			what += ": " + f.Reason
		}
		attention = append(attention, term.Fact{Name: "firmware", Value: what})
	}
	return abridged(attention, "device-updater firmware"), []term.Fact{{Name: "firmware", Value: strings.Join(well, ", ")}}
}
