package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/sign"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/certificate"
	"aptfleet/repo-manager/internal/incoming"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/sqlite"
)

// backupSource is the data directory of a server as backups read it.
func (s *server) backupSource(db *sqlite.DB, store *blobs.Store) backup.Source {
	return backup.Source{
		Data: s.settings.Data, File: databaseFile, Database: db, Chunks: store, Still: s.engine.Still,
		Key: s.key.Fingerprint(), Program: term.Version(), Clock: s.clock, Reserve: cmp.Or(s.settings.Reserve, incoming.DefaultReserve),
	}
}

// backupOffline makes a backup of a data directory that no server has open.
func backupOffline(ctx context.Context, data string, r backup.Request, progress backup.Progress) (made backup.Made, err error) {
	s := &server{settings: settings{Data: data}, clock: time.Now}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, err := os.Stat(s.path(databaseFile)); err != nil {
		return made, fmt.Errorf("cannot back up %s: it is no data directory: %w", data, err)
	}
	if err := s.lock(ctx); err != nil {
		return made, err
	}
	if s.key, err = openKey(data, false, s.clock()); err != nil {
		return made, err
	}
	db, err := sqlite.Open(ctx, s.path(databaseFile))
	if err != nil {
		return made, err
	}
	s.opened(db.Close)
	store, err := blobs.Open(s.path("blobs"))
	if err != nil {
		return made, err
	}
	act := release.Act{At: s.clock().UTC(), By: r.By, Via: "offline", Verb: "back up", Object: "server", Detail: "to " + r.Dir}
	if err := db.Commit(ctx, release.Batch{Acts: []release.Act{act}}); err != nil {
		return made, err
	}
	source := s.backupSource(db, store)
	source.Still = func(ctx context.Context, f func(context.Context) error) error { return f(ctx) } // nobody else is here
	return backup.Make(ctx, source, r, progress)
}

// restore brings a backup back into a data directory.
type restore struct {
	dir      *backup.Dir
	manifest backup.Manifest
	data     string
	keys     map[string][]byte // of a backup without keys: files for DATA/keys, by name
	deaf     bool              // there are devices, and the key that they obey is not there
	anew     bool              // every stage is to be signed anew
	now      time.Time
}

// readKey reads the key that a backup without keys needs, and refuses another
// one: every device would turn away from the archive. The other private keys
// come along if they lie beside it.
func (r *restore) readKey(path string) (err error) {
	switch {
	case r.manifest.Keys && path != "":
		return term.Usagef("cannot use --key: the archive key is in the backup")
	case r.manifest.Keys:
		return nil
	case path == "":
		return term.WithHint(term.Usagef("cannot restore backup %s: it was made without the archive key", r.manifest.ID),
			"name your copy of keys/archive.key with --key FILE")
	}
	private, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the archive key: %w", err)
	}
	r.keys = map[string][]byte{"archive.key": private}
	for _, name := range []string{assignmentKeyFile, readSecretFile, configKeyFile, certificate.KeyFile} {
		switch text, err := os.ReadFile(filepath.Join(filepath.Dir(path), name)); {
		case err == nil:
			r.keys[name] = text
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("cannot read %s beside the archive key: %w", name, err)
		}
	}
	key, err := sign.Load(private)
	if err != nil {
		return err
	}
	if key.Fingerprint() != r.manifest.Key {
		return fmt.Errorf("cannot use %s: it is the key %s, the backup was made with %s", path, key.Fingerprint(), r.manifest.Key)
	}
	return nil
}

// run fills the data directory.
func (r *restore) run(ctx context.Context, progress backup.Progress) error {
	return r.dir.Restore(ctx, r.manifest, databaseFile, backup.Restore{Data: r.data, Finish: r.finish}, progress)
}

// finish makes what was copied the archive of a new server: its audit trail
// says where it comes from. The counters of devices' assignments are older than
// what the lost server gave; each device says how far it is, and the server goes
// on above that.
func (r *restore) finish(ctx context.Context) (err error) {
	keys := filepath.Join(r.data, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return fmt.Errorf("cannot restore the keys: %w", err)
	}
	for name, text := range r.keys {
		if err := atomicfile.Write(filepath.Join(keys, name), text, 0o600); err != nil {
			return err
		}
	}
	db, err := sqlite.Open(ctx, filepath.Join(r.data, databaseFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := os.Stat(filepath.Join(keys, assignmentKeyFile)); errors.Is(err, fs.ErrNotExist) {
		if r.deaf, err = db.HasDevices(ctx); err != nil {
			return err
		}
	}
	var standings []release.Standing
	if r.anew {
		if standings, err = renewed(ctx, db, r.now); err != nil {
			return err
		}
		if err := publish.BeginAfter(filepath.Join(r.data, "public"), r.now.Add(farAhead)); err != nil {
			return err
		}
	}
	act := release.Act{
		At: r.now, By: loginName(), Via: "restore", Verb: "restore", Object: "server",
		Detail: fmt.Sprintf("backup %s, made by %s on %s", r.manifest.ID, r.manifest.By, r.manifest.Created.Format("2006-01-02 15:04:05 UTC")),
	}
	return db.Restored(ctx, r.manifest.Change, standings, act)
}

// farAhead is more than times of modification run in front of the clock: by a
// second for each publication of a burst, and each index.
const farAhead = time.Hour

// renewed has every stage dated and modified later than any client has seen, so
// that all take what the restored server offers although they have newer lists
// of the lost one.
func renewed(ctx context.Context, db *sqlite.DB, now time.Time) (all []release.Standing, err error) {
	pipelines, err := db.Pipelines(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pipelines {
		standings, err := db.Standings(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		for i, s := range standings {
			if s.Offer.State.IsZero() {
				continue
			}
			validFor, before := s.ValidUntil.Sub(s.Date), s.Date
			if s.Date = now.Truncate(time.Second); s.Date.Before(before) {
				s.Date = before
			}
			s.Modified = now.Truncate(time.Second).Add(farAhead)
			if before := standings[i].Modified; !s.Modified.After(before) {
				s.Modified = before.Add(farAhead)
			}
			s.ValidUntil = s.Date.Add(validFor)
			all = append(all, s)
		}
	}
	return all, nil
}

// loginName is who runs this process.
func loginName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid:%d", os.Getuid())
}
