package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newPackageRestoreCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE...",
		Short: "Put back package files that the archive has lost",
		Long: `Put back package files that the archive has lost or that were damaged there, as
"repo-manager check" names them. A file is taken only if it has exactly the bytes
that were once uploaded or mirrored; nothing that is offered changes. Copies
are in backups, on devices in /var/cache/apt/archives, and where they were built.`,
		Example: `  repo-manager package restore hello_1.0_amd64.deb`,
		Args:    cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"deb"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			failed := make([]error, len(args))
			restored := []protocol.Upload{}
			table := c.io.NewTable("package", "version", "architecture", "result")
			for i, path := range args {
				var one protocol.Upload
				if one, failed[i] = restoreFile(cmd.Context(), api, path); failed[i] != nil {
					continue
				}
				restored = append(restored, one)
				result := term.Styled{Text: "restored", Style: term.Good}
				if one.Already {
					result = term.Styled{Text: "was there"}
				}
				table.Row(one.Name, one.Version, one.Architecture, result)
			}
			if c.io.JSON {
				if err := c.io.PrintJSON(restored); err != nil {
					return err
				}
			} else {
				table.Print("")
			}
			return c.worst(failed)
		},
	}
}

func restoreFile(ctx context.Context, api *client.Client, path string) (protocol.Upload, error) {
	file, size, err := openPackage(path)
	if err != nil {
		return protocol.Upload{}, err
	}
	defer file.Close()
	return api.RestoreFile(ctx, client.File{Name: filepath.Base(path), Body: file, Size: size})
}
