package main

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/certificate"
)

func newRestoreCommand(c *cli) *cobra.Command {
	var id, key string
	var anew, dryRun bool
	cmd := &cobra.Command{
		Use:   "restore DIR",
		Short: "Bring a server back from a backup",
		Long: `Fill the data directory that --data names, absent or empty, from a backup:
the newest one of DIR, or the one that --backup names. Every byte is held
against its hash; until all of it is there, no server opens the directory. Then
"repo-manager serve --data" offers what the lost server offered, byte for byte.

Run it as the user that the server will run as. Settings are not in a backup:
take the file along, and keep url: an archive with another one signs its stages
anew. So do stages with --sign-anew: it is for a lost server that published
after the backup, whose clients have newer lists and would ignore older ones.

What was revoked after the backup is good again, and people log in anew.`,
		Example: `  repo-manager restore /mnt/backup --data /srv/aptfleet
  repo-manager restore /mnt/backup --data /srv/aptfleet --backup 20261120 --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := filepath.Abs(c.data)
			if err != nil {
				return err
			}
			return inBackups(args[0], func(d *backup.Dir) error {
				r := restore{dir: d, data: data, anew: anew, now: time.Now().UTC()}
				if r.manifest, err = d.Find(id); err != nil {
					return err
				}
				if err := r.readKey(key); err != nil {
					return err
				}
				if dryRun {
					return c.restorable(r)
				}
				progress := c.localProgress("restore")
				err := r.run(cmd.Context(), progress)
				progress.Finish()
				if err != nil {
					return err
				}
				return c.printRestored(r)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&id, "backup", "", "`id` of the backup, or a unique prefix; the newest one unless given")
	f.StringVar(&key, "key", "", "`file` with the private archive key, for a backup that was made without it; the other keys beside it come along")
	f.BoolVar(&anew, "sign-anew", false, "sign every stage anew: for clients that saw newer lists of the lost server")
	f.BoolVar(&dryRun, "dry-run", false, "only tell whether it could be done, and how much it is")
	return cmd
}

// restorable tells what a restore would do; objects are not read.
func (c *cli) restorable(r restore) error {
	if err := backup.MustBeFree(r.data); err != nil {
		return err
	}
	if err := r.dir.MustBeWhole(r.manifest); err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(toBackup(r.manifest))
	}
	c.io.Note("would restore %d files, %s, to %s", len(r.manifest.Files), term.HumanBytes(r.manifest.Bytes()), r.data)
	c.io.Result(r.manifest.ID, "backup %s can be restored", r.manifest.ID)
	return nil
}

func (c *cli) printRestored(r restore) error {
	if !r.manifest.Keys && r.keys[certificate.KeyFile] == nil && slices.ContainsFunc(r.manifest.Files, func(f backup.File) bool { return f.Path == "keys/"+certificate.CAFile }) {
		c.io.Note("the CA's key is not in the backup: before the server can speak TLS, put your copy of it to %s", filepath.Join(r.data, "keys", certificate.KeyFile))
	}
	for _, path := range r.manifest.Lost {
		c.io.Note("the server lacked %s when the backup was made", term.Printable(path))
	}
	if r.deaf {
		c.io.Note("the key that devices obey is not there: put your copy of %s into %s before you start the server", assignmentKeyFile, filepath.Join(r.data, "keys"))
	}
	if c.io.JSON {
		return c.io.PrintJSON(toBackup(r.manifest))
	}
	c.io.Note("restored %d files, %s; start it with: repo-manager serve --data %s", len(r.manifest.Files), term.HumanBytes(r.manifest.Bytes()), r.data)
	c.io.Result(r.manifest.ID, "backup %s is in %s", r.manifest.ID, r.data)
	return nil
}
