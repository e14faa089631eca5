package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

func (p *program) updateCommand() *cobra.Command {
	var (
		request    = daemon.Request{Act: daemon.Update}
		wait       bool
		dryRun     bool
		rebootCode bool
	)
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Install what the server offers, and boot it on trial",
		Long: `update asks the server, downloads and installs the release beside the running
one, and boots it on trial if the configuration or --reboot says so. Nothing of
the running system changes before the reboot. While the device is held, and
without a valid assignment where it follows one, nothing is begun.

A running daemon is asked to do it; --wait follows it to the reboot. Without a
daemon this process does it.

What is staged and is to be booted waits for the maintenance window ("window" in
the configuration), and for locks of applications (device-updater inhibit), and
the daemon goes on by itself when they are over. --reboot does not wait for the
window.

With --wait and --json each change is one JSON object a line:
  {"phase":"DOWNLOAD","progress":"3 of 12 packages, 4.1 of 30.2 MB","done":4100000,"total":30200000,"unit":"bytes","percent":13}
The unit is bytes while it downloads and packages while it installs.`,
		Example: `  device-updater update --reboot --wait
  device-updater update --wait --json | jq --unbuffered .percent`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dryRun {
				return p.preview(cmd.Context(), daemon.Request{Act: daemon.Preview})
			}
			if err := p.ask(cmd.Context(), request, wait || rebootCode); err != nil {
				return err
			}
			if rebootCode && p.staged() {
				return term.Status(term.ExitReboot)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&request.Reboot, "reboot", false, "boot the release when it is staged, whatever the configuration says")
	cmd.Flags().BoolVar(&request.Retry, "retry", false, "also a release that failed here before")
	cmd.Flags().BoolVar(&wait, "wait", false, "follow the daemon until it is staged, rebooting or failed")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show which packages would change")
	cmd.Flags().BoolVar(&rebootCode, "reboot-exit-code", false, "exit with 4 if a reboot is needed now; implies --wait")
	return cmd
}

func (p *program) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check",
		Short:   "Ask the server what this device should run",
		Long:    "check asks and verifies the answer. It begins no update. What the server has\nconfigured anew is applied, as at every check-in.",
		Example: "  device-updater check && device-updater status",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.ask(cmd.Context(), daemon.Request{Act: daemon.Check}, true); err != nil {
				return err
			}
			return p.status(false)
		},
	}
}

func (p *program) rollbackCommand() *cobra.Command {
	request := daemon.Request{Act: daemon.Rollback}
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Boot the previous deployment, and stay there",
		Long: `rollback boots the previous deployment on trial. When it is committed, the
release that was left is not installed again unless "device-updater retry" says
so; another one is.

Where the previous deployment cannot read what was written since, because a state
unit has another epoch in it, rollback says what would be lost and refuses. With
--restore-state such units are put back as that deployment last wrote them; what
is there now is put aside until the deployment that wrote it is deleted.`,
		Example: "  device-updater rollback\n  device-updater rollback --restore-state",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.ask(cmd.Context(), request, true)
		},
	}
	cmd.Flags().BoolVar(&request.RestoreState, "restore-state", false, "also put the state units back that it could not read otherwise")
	return cmd
}

func (p *program) retryCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "retry",
		Short:   "Forget which releases failed here, and update",
		Long:    "retry forgets every release that failed on this device, then does what update does.",
		Example: "  device-updater retry",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.ask(cmd.Context(), daemon.Request{Act: daemon.Retry}, false)
		},
	}
}

func (p *program) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel",
		Short: "Stop the update that is under way, or give up what is staged",
		Long: `cancel stops an update that is under way, or gives up one that is staged and
waits. What was downloaded stays. The release is left alone until another one is
offered, or a person asks for it: device-updater update. What was tried with
"device-updater try" and not booted yet is given up with it. From FINALISE on it
is too late: "device-updater rollback" goes back.`,
		Example: "  device-updater cancel",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			stopped, err := daemon.NewClient(p.socket).Cancel(cmd.Context())
			if errors.Is(err, daemon.ErrNoDaemon) && p.staged() {
				return p.ask(cmd.Context(), daemon.Request{Act: daemon.Cancel}, true)
			}
			if errors.Is(err, daemon.ErrNoDaemon) {
				return term.WithHint(errors.New("cannot cancel: the daemon is not running"), "an update in another terminal is stopped with Ctrl-C there")
			}
			if err == nil && !stopped {
				fmt.Fprintln(p.io.Err, "no update is under way")
			}
			return err
		},
	}
}

// ask has a request carried out. Unless wait is set it does not wait for a
// daemon.
func (p *program) ask(ctx context.Context, r daemon.Request, wait bool) error {
	show, end := p.follow(r.Act)
	defer end()
	if !wait {
		_, err := p.carryOut(ctx, r, nil, show)
		return err
	}
	_, err := p.carryOut(ctx, r, show, show)
	return err
}

// preview shows what a request that changes nothing says would change.
func (p *program) preview(ctx context.Context, r daemon.Request) error {
	show, end := p.follow(daemon.Preview)
	changes, err := p.carryOut(ctx, r, show, show)
	end()
	if err != nil {
		return err
	}
	if p.io.JSON {
		return p.io.PrintJSON(changes)
	}
	for _, c := range changes {
		fmt.Fprintln(p.io.Out, strings.Join(strings.Fields(c.Sign()+" "+c.Name+" "+c.Old+" "+c.New), " "))
	}
	return nil
}

// carryOut has a request carried out: by the daemon, or if there is none by
// this process. follow is told what the daemon does, nil not to wait for it; own
// what this process does.
func (p *program) carryOut(ctx context.Context, r daemon.Request, follow, own func(update.Status)) ([]apt.Change, error) {
	until := time.Now().Add(daemonStarts)
	for {
		changes, err := daemon.NewClient(p.socket).Ask(ctx, r, follow)
		if !errors.Is(err, daemon.ErrNoDaemon) {
			return changes, err
		}
		d, err := p.open()
		if err == nil {
			changes, err = d.do(ctx, r, own)
			return changes, errors.Join(err, d.close())
		}
		var locked *lockedError
		if !errors.As(err, &locked) || time.Now().After(until) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// daemonStarts is how long a daemon may have the lock before it listens: it
// begins.
const daemonStarts = 3 * time.Second

// staged reports whether the last update waits for a reboot.
func (p *program) staged() bool {
	records, err := journal.Read(p.journalPath())
	if err != nil || len(records) == 0 {
		return false
	}
	phase := records[len(records)-1].Phase
	return phase == journal.Staged || phase == journal.Reboot
}
