package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/release"
)

func newBackupCommand(c *cli) *cobra.Command {
	var in protocol.NewBackup
	var noWait, offline bool
	cmd := &cobra.Command{
		Use:   "backup [DIR]",
		Short: "Copy everything a server needs to be brought back elsewhere",
		Long: `Copy everything a server needs to be brought back elsewhere: database, packages,
what the archive's indices are made of, and the keys. The server makes the copy
while it works, as a change, and writes it itself: DIR is a directory of its
machine, absent or empty at first. What an earlier backup there has is not
copied again. Without DIR it is the one of the server's settings.

The private keys are in the backup: whoever reads them can sign in the archive's
name, tell devices what to run, and pass for the server. DIR is for its owner alone; keep it so. With
--without-keys they are left out, and "repo-manager restore" asks for your own
copy of them.

"backup list", "verify" and "prune" work on DIR itself and need no server.
A directory called like one of them is written ./list. With --offline no server
needs to run: the data directory is that of --data.`,
		Example: `  repo-manager backup /srv/backup
  repo-manager backup --offline --data /srv/aptfleet /srv/backup
  repo-manager backup verify /srv/backup`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) == 1 {
				if in.Dir = args[0]; c.server == "" {
					if in.Dir, err = filepath.Abs(args[0]); err != nil {
						return err
					}
				}
			}
			if offline {
				return c.backupOffline(cmd.Context(), in)
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			change, err := api.CreateBackup(cmd.Context(), in)
			if err != nil {
				return err
			}
			if noWait {
				return c.printChange(change)
			}
			return c.follow(cmd.Context(), api, change.ID)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&in.WithoutKeys, "without-keys", false, "leave the private keys out")
	f.BoolVar(&noWait, "no-wait", false, "return at once and print the change's id")
	f.BoolVar(&offline, "offline", false, "read the data directory of --data, which no server has open")
	cmd.MarkFlagsMutuallyExclusive("offline", "no-wait")
	cmd.AddCommand(newBackupListCommand(c), newBackupVerifyCommand(c), newBackupPruneCommand(c))
	return cmd
}

// localError gives an error of this process the exit status that the server's
// errors have.
func localError(err error) error {
	var known *release.Error
	if !errors.As(err, &known) {
		return err
	}
	return &coded{err, known}
}

// coded is an error whose chain has a release.Error.
type coded struct {
	error
	known *release.Error
}

func (e *coded) Unwrap() error     { return e.error }
func (e *coded) NextStep() string  { return e.known.Hint }
func (e *coded) ErrorCode() string { return string(e.known.Code) }

// ExitCode returns what docs/cli.md says about the code.
func (e *coded) ExitCode() int {
	switch e.known.Code {
	case release.Refused:
		return term.ExitRefused
	case release.Locked:
		return term.ExitLocked
	}
	return term.ExitFailed
}

// localProgress shows an act of this process.
type localProgress struct {
	*term.Progress
	io    *term.IO
	total int64
	unit  string
}

func (p *localProgress) Total(n int64, unit string) {
	p.total, p.unit = n, unit
	p.Set(0, n, unit)
}

func (p *localProgress) Logf(format string, args ...any) {
	p.io.Note("%s", term.Printable(fmt.Sprintf(format, args...)))
}

func (c *cli) localProgress(what string) *localProgress {
	return &localProgress{Progress: c.io.NewProgress(what, 0, ""), io: c.io}
}

// backupOffline makes a backup without a server.
func (c *cli) backupOffline(ctx context.Context, in protocol.NewBackup) error {
	if in.Dir == "" {
		return term.WithHint(term.Usagef("cannot back up offline: no directory is named"), "repo-manager backup --offline DIR")
	}
	data, err := filepath.Abs(c.data)
	if err != nil {
		return err
	}
	if err := backup.MustBeApart(in.Dir, data); err != nil {
		return localError(err)
	}
	progress := c.localProgress("back up")
	made, err := backupOffline(ctx, data, backup.Request{Dir: in.Dir, WithoutKeys: in.WithoutKeys, By: loginName()}, progress)
	progress.Finish()
	if err != nil {
		return localError(err)
	}
	made.Tell(progress)
	if c.io.JSON {
		if err := c.io.PrintJSON(toBackup(made.Manifest)); err != nil {
			return err
		}
	}
	if err := made.Complete(); err != nil {
		return localError(err)
	}
	c.io.Result(made.ID, "backup %s is in %s", made.ID, in.Dir)
	return nil
}

func toBackup(m backup.Manifest) protocol.Backup {
	return protocol.Backup{
		ID: m.ID, Created: m.Created, By: m.By, Program: m.Program, Key: m.Key, Keys: m.Keys,
		Files: len(m.Files), Bytes: m.Bytes(), Lost: m.Lost,
	}
}

// inBackups calls f with a backup directory.
func inBackups(dir string, f func(d *backup.Dir) error) (err error) {
	d, err := backup.Open(dir)
	if err != nil {
		return localError(err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return localError(f(d))
}

func newBackupListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list DIR",
		Short:   "List the backups of a directory, newest first",
		Example: `  repo-manager backup list /srv/backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inBackups(args[0], func(d *backup.Dir) error {
				all, err := d.List()
				if err != nil {
					return err
				}
				found := []protocol.Backup{}
				table := c.io.NewTable("id", "made", "by", "files", "size", "state")
				for _, b := range all {
					one := toBackup(b.Manifest)
					state := term.Styled{Text: "whole", Style: term.Good}
					if len(b.Lost) > 0 {
						state = term.Styled{Text: fmt.Sprintf("lacks %d files", len(b.Lost)), Style: term.Warning}
					}
					if b.Err != nil {
						one.Error = b.Err.Error()
						state = term.Styled{Text: one.Error, Style: term.Bad}
					}
					found = append(found, one)
					table.Row(b.ID, b.Created, b.By, len(b.Files), term.Bytes(one.Bytes), state)
				}
				if c.io.JSON {
					return c.io.PrintJSON(found)
				}
				table.Print("no backups yet: repo-manager backup " + args[0])
				return nil
			})
		},
	}
}

func newBackupVerifyCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR [ID]",
		Short: "Read backups and hold every byte against its hash",
		Long: `Read one backup, or all of a directory, and hold every byte against its hash.
What is damaged is listed with the reason, and the exit status is 1 if there is
anything. Remove a damaged object by hand: the next backup writes it again, if
the server still has its content.`,
		Example: `  repo-manager backup verify /srv/backup`,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return inBackups(args[0], func(d *backup.Dir) error {
				id := ""
				if len(args) == 2 {
					id = args[1]
				}
				progress := c.localProgress("verify")
				report, err := d.Verify(cmd.Context(), id, progress)
				progress.Finish()
				if err != nil {
					return err
				}
				out := protocol.Check{Files: report.Files, Bytes: report.Bytes, Findings: []protocol.Finding{}}
				table := c.io.NewTable("file", "reason")
				for _, f := range report.Findings {
					out.Findings = append(out.Findings, protocol.Finding{Path: f.Path, Reason: f.Reason})
					table.Row(term.Styled{Text: f.Path, Style: term.Bad}, f.Reason)
				}
				if c.io.JSON {
					if err := c.io.PrintJSON(out); err != nil {
						return err
					}
				} else {
					table.Print("")
					c.io.Note("verified %d files, %s: %d bad", report.Files, term.HumanBytes(report.Bytes), len(report.Findings))
				}
				if len(report.Findings) > 0 {
					return term.Status(term.ExitFailed)
				}
				return nil
			})
		},
	}
}

func newBackupPruneCommand(c *cli) *cobra.Command {
	var keep int
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:   "prune DIR --keep N",
		Short: "Remove old backups and what only they need",
		Long: `Remove all but the newest N backups, and every object that those do not need:
also what interrupted backups left. It says first how much that is; without a
terminal it needs --yes.`,
		Example: `  repo-manager backup prune /srv/backup --keep 7 --dry-run`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep < 1 {
				return &term.UsageError{Text: fmt.Sprintf("cannot keep %d backups: want --keep N, at least 1", keep), Hint: cmd.CommandPath() + " --help"}
			}
			would, err := backup.Prune(cmd.Context(), args[0], keep, true)
			if err != nil {
				return localError(err)
			}
			what := fmt.Sprintf("%d backups, %d objects, %s", len(would.IDs), would.Objects, term.HumanBytes(would.Bytes))
			if dryRun {
				c.io.Note("would remove %s", what)
				return c.printPruned(would)
			}
			if err := c.confirm(yes, "remove "+what); err != nil {
				return err
			}
			pruned, err := backup.Prune(cmd.Context(), args[0], keep, false)
			if err != nil {
				return localError(err)
			}
			c.io.Note("removed %d backups, %d objects, %s", len(pruned.IDs), pruned.Objects, term.HumanBytes(pruned.Bytes))
			return c.printPruned(pruned)
		},
	}
	f := cmd.Flags()
	f.IntVar(&keep, "keep", 0, "how many of the newest backups stay, at least 1")
	f.BoolVar(&dryRun, "dry-run", false, "only tell what would be removed")
	f.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// printPruned lists the removed backups.
func (c *cli) printPruned(p backup.Pruned) error {
	if c.io.JSON {
		return c.io.PrintJSON(protocol.Pruned{Backups: append([]string{}, p.IDs...), Objects: p.Objects, Bytes: p.Bytes})
	}
	for _, id := range p.IDs {
		c.io.Say("%s", id)
	}
	return nil
}
