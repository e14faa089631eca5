package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func (p *program) holdCommand() *cobra.Command {
	var reason, until string
	cmd := &cobra.Command{
		Use:   "hold --reason WHY [--until TIME]",
		Short: "Keep this device as it is",
		Long: `hold keeps this device as it is until a time, or until "device-updater unhold":
nothing is begun, and what is staged is not booted. Another hold takes the place
of the one before. "rollback" goes back all the same.

--until takes a time (2026-12-01T06:00:00Z), a date, or a span from now (36h,
14d). The server is told, and can neither end this hold nor make one that ends
it; an operator's hold is taken off there: repo-manager device unhold.`,
		Example: `  device-updater hold --reason "at the fair" --until 2026-12-01`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hold, err := p.newHold("hold", reason)
			if err != nil {
				return err
			}
			if hold.Until, err = term.Moment(until, p.io.Now()); err != nil {
				return err
			}
			if !hold.Until.IsZero() && !p.io.Now().Before(hold.Until) {
				return &term.UsageError{Text: fmt.Sprintf("cannot hold until %s: that has passed", hold.Until.UTC().Format(time.RFC3339)), Hint: "device-updater hold --help"}
			}
			hold.Until = hold.Until.UTC().Truncate(time.Second)
			return p.say(cmd.Context(), hold, update.Records.PutHold)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever wonders")
	cmd.Flags().StringVar(&until, "until", "", "`time` at which it ends; without it, it has to be taken off")
	return cmd
}

func (p *program) unholdCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unhold",
		Short:   "Take the hold of this device off",
		Long:    "unhold ends what \"device-updater hold\" began. An operator's hold is taken off on\nthe server: repo-manager device unhold.",
		Example: "  device-updater unhold",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.say(cmd.Context(), protocol.Hold{}, update.Records.PutHold)
		},
	}
}

func (p *program) developCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "develop --reason WHY",
		Short: "Follow nothing, until rejoin",
		Long: `develop makes this device follow nothing: whatever is offered, it stays with the
release that it runs, and "device-updater try" puts packages of your own on top.
What is tried goes through a trial as ever, and "rollback" goes back.

"device-updater rejoin" ends it: the device gives up packages of your own and
installs what the server wants here by then, however many releases that were.
Whoever wants to have the newest of everything instead follows the first stage
of the pipeline (follow: dev), with "try" on top.`,
		Example: `  device-updater develop --reason "a driver for the new pump"`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			hold, err := p.newHold("develop", reason)
			if err != nil {
				return err
			}
			return p.say(cmd.Context(), hold, update.Records.PutDevelop)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever wonders")
	return cmd
}

// newHold is a hold of whoever runs this command.
func (p *program) newHold(verb, reason string) (protocol.Hold, error) {
	if reason = strings.TrimSpace(reason); reason == "" {
		return protocol.Hold{}, &term.UsageError{Text: "device-updater " + verb + " needs --reason WHY", Hint: "device-updater " + verb + " --help"}
	}
	return protocol.Hold{Reason: reason, By: person()}, nil
}

// person is who runs this command.
func person() string { return cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("USER"), "root") }

// say writes down what a person says about this device. It counts from then on,
// also for what is under way; a running daemon looks at once.
func (p *program) say(ctx context.Context, h protocol.Hold, put func(update.Records, protocol.Hold) error) error {
	if _, err := os.Stat(p.updaterDir()); err != nil {
		return term.WithHint(fmt.Errorf("cannot hold this device: %w", err), "this command is for devices: device-updater --help")
	}
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	if err := put(records, h); err != nil {
		return err
	}
	if _, err := daemon.NewClient(p.socket).Ask(ctx, daemon.Request{Act: daemon.Check}, nil); err != nil && !errors.Is(err, daemon.ErrNoDaemon) {
		return err
	}
	if p.io.JSON && h != (protocol.Hold{}) {
		return p.io.PrintJSON(h)
	}
	return nil
}
