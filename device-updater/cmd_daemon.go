package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/inhibit"
)

func (p *program) daemonCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "daemon",
		Short:   "Keep this device at the release it follows",
		Long:    "daemon ends what was interrupted, then checks as often as the configuration says and does what the other commands ask.",
		Example: "  device-updater daemon --config /etc/aptfleet/device.yaml",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.daemon(cmd.Context())
		},
	}
}

// daemon runs until ctx ends, from the beginning again each time the device was
// enrolled.
func (p *program) daemon(ctx context.Context) error {
	for {
		if err := p.serve(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

func (p *program) serve(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(p.io.Err, nil))
	d, err := p.open()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.socket), 0o755); err != nil {
		return errors.Join(err, d.close())
	}
	// Where nobody can take a lock the device is updated all the same.
	if err := inhibit.Prepare(inhibit.Dir); err != nil {
		log.Warn(err.Error())
	}
	worker := daemon.New(d.machine, d.config.Poll, d.tell, log)
	worker.Ask = d.server.ask()
	d.server.listen(worker, log)
	d.machine.Notify = worker.Notify
	ctx, stop := context.WithCancel(ctx)
	finished := make(chan error, 1)
	go func() {
		defer stop()
		finished <- worker.Serve(ctx, p.socket)
	}()
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		d.server.run(ctx)
	}()
	worker.Run(ctx)
	stop()
	<-reported
	return errors.Join(<-finished, d.close())
}
