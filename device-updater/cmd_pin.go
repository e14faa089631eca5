package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/internal/term"
)

func (p *program) pinCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pin N",
		Short: "Keep a deployment until it is unpinned",
		Long: `pin keeps deployment N on the disk, however many releases follow. Without a pin
the booted deployment and the one to go back to stay, and as many of the newest
others as "keep" in the configuration says. While an update is under way it waits
for that.`,
		Example: `  device-updater pin 7 --reason "customer's acceptance"`,
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := deploymentNumber(args[0])
			if err != nil {
				return err
			}
			return p.ask(cmd.Context(), daemon.Request{Act: daemon.Pin, Deployment: n, By: person(), Reason: reason}, true)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever wonders")
	return cmd
}

func (p *program) unpinCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unpin N",
		Short:   "Let a deployment go once nothing needs it",
		Long:    "unpin takes back what \"device-updater pin\" said. The deployment is deleted after\nthe next update, or when the updater starts, if nothing else keeps it.",
		Example: "  device-updater unpin 7",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := deploymentNumber(args[0])
			if err != nil {
				return err
			}
			return p.ask(cmd.Context(), daemon.Request{Act: daemon.Unpin, Deployment: n}, true)
		},
	}
}

func deploymentNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, &term.UsageError{Text: fmt.Sprintf("cannot use %q as the number of a deployment", text), Hint: "device-updater status lists them"}
	}
	return n, nil
}
