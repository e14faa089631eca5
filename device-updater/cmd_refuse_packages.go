package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

// anyway is the variable with which a person changes packages of the running
// root nevertheless.
const anyway = "APTFLEET_ANYWAY"

// refusePackagesText is for who typed apt-get or dpkg, and has not met the
// updater.
const refusePackagesText = `cannot change packages here: this device is updated as a whole, from one release to the next
  packages of your own, on top of the release:  device-updater try FILE.deb...
  give them up again:                           device-updater rejoin
  the release that this device should run:      device-updater update
  what it runs, and why not something else:     device-updater status
What apt and dpkg change here lasts until the next update, which takes it back. To do it
nevertheless, set ` + anyway + `=1 in their environment.
`

func (p *program) refusePackagesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "refuse-packages",
		Short: "Say what to do instead of changing packages with apt or dpkg",
		Long: `refuse-packages is run by apt and dpkg before they change packages of the
running root (/etc/apt/apt.conf.d/00aptfleet, /etc/dpkg/dpkg.cfg.d/aptfleet).

Exit status: 3, or 0 where there are no deployments or ` + anyway + `=1 is set.`,
		Example: "  device-updater refuse-packages",
		Args:    usage(cobra.NoArgs),
		Hidden:  true,
		RunE: func(*cobra.Command, []string) error {
			return p.refusePackages(os.Getenv(anyway))
		},
	}
}

func (p *program) refusePackages(nevertheless string) error {
	_, err := os.Stat(filepath.Join(p.sysroot, "deployments"))
	if nevertheless == "1" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := fmt.Fprint(p.io.Err, refusePackagesText); err != nil {
		return err
	}
	return term.Status(term.ExitRefused)
}
