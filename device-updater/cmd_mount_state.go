package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/rootfs"
)

func (p *program) mountStateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "mount-state",
		Short:   "Mount what outlives releases over the booted deployment",
		Long:    "mount-state is run by aptfleet-state.service before any other file system is used. It may be repeated.",
		Example: "  device-updater mount-state",
		Args:    usage(cobra.NoArgs),
		Hidden:  true,
		RunE: func(*cobra.Command, []string) error {
			n, err := boot.CurrentOfProcess()
			if err != nil {
				return err
			}
			return rootfs.State{
				Root: "/", Sysroot: p.sysroot, Deployment: n, Clock: p.earlyClock,
				Warn: func(err error) { fmt.Fprintln(p.io.Err, "warning:", err) },
			}.Mount()
		},
	}
}

// earlyClock is the time as far as it is known while the machine starts: not
// before the updater last wrote something down.
func (p *program) earlyClock() time.Time {
	now := time.Now()
	if info, err := os.Stat(p.journalPath()); err == nil && info.ModTime().After(now) {
		return info.ModTime()
	}
	return now
}
