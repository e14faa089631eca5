// Package manual makes the manual pages of a program out of its commands'
// help, so that the two cannot differ.
package manual

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"aptfleet/internal/term"
)

// Command returns the hidden command `man DIR`, which writes one page of
// section 8 for each command of the program. Pages carry the date of
// SOURCE_DATE_EPOCH, else of the commit that the program was built from, so that
// a build can be repeated; today's if neither is known.
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
	if os.Getenv("SOURCE_DATE_EPOCH") == "" { // which the generator knows
		header.Date = committed()
	}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return fmt.Errorf("cannot write manual pages: %w", err)
	}
	return nil
}

// committed is when the commit was made that this program was built from; nil
// if the Go tool did not record it.
func committed() *time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range info.Settings {
		if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
			return &at
		}
	}
	return nil
}
