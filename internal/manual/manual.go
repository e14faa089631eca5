// Package manual makes the manual pages of a program out of its commands'
// help, so that the two cannot differ.
package manual

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"aptfleet/internal/term"
)

// Command returns the hidden command `man DIR`, which writes one page of
// section 8 for each command of the program. Pages carry today's date, or that
// of SOURCE_DATE_EPOCH, so that a build can be repeated.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory",
		Long:    "man writes the manual pages of this program and its commands into a directory,\nwhich is made if needed.",
		Example: "  PROGRAM man /usr/local/share/man/man8",
		Hidden:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &term.UsageError{Text: "cannot write manual pages: want one directory", Hint: cmd.CommandPath() + " --help"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return write(cmd.Root(), args[0]) },
	}
}

func write(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write manual pages: %w", err)
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "8", Source: "Aptfleet", Manual: "Aptfleet"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("cannot write manual pages: %w", err)
	}
	return nil
}
