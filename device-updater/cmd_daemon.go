package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
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

func (p *program) daemon(ctx context.Context) error {
	d, err := p.open()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.socket), 0o755); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(p.io.Err, nil))
	worker := daemon.New(d.machine, d.config.Poll, d.tell, log)
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
		if d.agent != nil {
			d.agent.Run(ctx)
		}
	}()
	worker.Run(ctx)
	stop()
	<-reported
	return <-finished
}
