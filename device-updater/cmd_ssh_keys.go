package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/hostkeys"
)

func (p *program) sshKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "ssh-keys",
		Short:   "Make the SSH host keys of this device, once",
		Long:    "ssh-keys is run by aptfleet-ssh-keys.service before sshd starts. Keys that are there stay.",
		Example: "  device-updater ssh-keys",
		Args:    usage(cobra.NoArgs),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hostkeys.Make(cmd.Context(), filepath.Join(p.sysroot, "identity/ssh"), func(ctx context.Context, argv ...string) error {
				if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w: %s", argv[0], err, out)
				}
				return nil
			})
		},
	}
}
