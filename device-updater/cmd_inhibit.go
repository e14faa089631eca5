package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/internal/term"
)

func (p *program) inhibitCommand() *cobra.Command {
	var lock inhibit.Lock
	cmd := &cobra.Command{
		Use:                   "inhibit --why WHY -- COMMAND [ARGUMENT…]",
		DisableFlagsInUseLine: true,
		Short:                 "Run a command during which the device is not rebooted into an update",
		Long: `inhibit takes a lock and becomes COMMAND. While the lock lasts, an update is
staged as ever, and its reboot waits, but no longer than "inhibit.max" of the
configuration says, an hour unless it says otherwise. "status" names who it waits
for. The lock ends with COMMAND and what that started, however they end.

Locks of systemd-inhibit(1) that block a shutdown count in the same way. Neither
keeps a trial from ending, a person from going back, or anybody else from
rebooting the device.`,
		Example: `  device-updater inhibit --why "flashing the pump" -- /usr/lib/app/flash`,
		Args:    usage(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, argv []string) error {
			if lock.Why == "" {
				return &term.UsageError{Text: "device-updater inhibit needs --why WHY", Hint: "device-updater inhibit --help"}
			}
			program, err := exec.LookPath(argv[0])
			if err != nil {
				return fmt.Errorf("cannot run %s: %w", argv[0], err)
			}
			lock.Who = cmp.Or(lock.Who, filepath.Base(program))
			lock.Since, lock.PID = p.io.Now().UTC(), os.Getpid()
			held, err := inhibit.Take(inhibit.Dir, lock)
			if err != nil {
				return term.WithHint(err, "where no updater has run yet, root must take the first lock")
			}
			if err := held.Inherit(); err != nil {
				return errors.Join(err, held.Release())
			}
			err = unix.Exec(program, argv, os.Environ())
			return errors.Join(fmt.Errorf("cannot run %s: %w", argv[0], err), held.Release())
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows COMMAND is COMMAND's
	cmd.Flags().StringVar(&lock.Why, "why", "", "what must not be cut short, a few words")
	cmd.Flags().StringVar(&lock.Who, "who", "", "who does it; COMMAND's name if it is not given")
	return cmd
}
