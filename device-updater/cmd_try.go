package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/internal/term"
)

func (p *program) tryCommand() *cobra.Command {
	request := daemon.Request{Act: daemon.Try}
	cmd := &cobra.Command{
		Use:   "try FILE.deb…",
		Short: "Put packages of your own on top of the release",
		Long: `try installs .debs of your own on top of the release that is booted, beside it
and on trial like an update. What they need comes from that release alone, and
nothing of the release may have to leave for them.

They stay on top of every release that follows, until "device-updater rejoin".
A release on which they cannot be installed waits, and status says why. Another
try adds to them; a package of the same name takes the place of the one before.

A device that is held stays as it is: try and rejoin are refused then.`,
		Example: "  device-updater try --reboot ./app_1.2~local_amd64.deb",
		Args:    usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			for _, name := range files {
				path, err := filepath.Abs(name)
				if err != nil {
					return err
				}
				if _, err := os.Stat(path); err != nil {
					return term.WithHint(fmt.Errorf("cannot try %s: %w", name, err), "give it .deb files, not names of packages")
				}
				request.Files = append(request.Files, path)
			}
			request.By = person()
			return p.askOrPreview(cmd.Context(), request)
		},
	}
	cmd.Flags().BoolVar(&request.Reboot, "reboot", false, "boot it when it is staged, whatever the configuration says")
	cmd.Flags().BoolVar(&request.DryRun, "dry-run", false, "only show which packages would change")
	return cmd
}

// askOrPreview has a request carried out, or shows what it would change.
func (p *program) askOrPreview(ctx context.Context, r daemon.Request) error {
	if r.DryRun {
		return p.preview(ctx, r)
	}
	return p.ask(ctx, r, true)
}

func (p *program) rejoinCommand() *cobra.Command {
	request := daemon.Request{Act: daemon.Rejoin}
	cmd := &cobra.Command{
		Use:   "rejoin",
		Short: "Give up packages of your own, and be equal to the release again",
		Long: `rejoin installs exactly the release that the server wants here: what was put on
top with "device-updater try" goes, and packages of which files were changed on
this device are installed again. It is one update like any other, on trial. If
the server wants no release, or one that failed here, it is the booted one. A
device that follows nothing ("device-updater develop") follows again once that
is staged.`,
		Example: "  device-updater rejoin --dry-run",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.askOrPreview(cmd.Context(), request)
		},
	}
	cmd.Flags().BoolVar(&request.Reboot, "reboot", false, "boot it when it is staged, whatever the configuration says")
	cmd.Flags().BoolVar(&request.DryRun, "dry-run", false, "only show which packages would change")
	return cmd
}
