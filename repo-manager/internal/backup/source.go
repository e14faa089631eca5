package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Database is what a backup needs of the database.
type Database interface {
	// Snapshot is the database as the last commit before the call left it.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Snapshot is the database at one moment, whatever is committed meanwhile.
type Snapshot interface {
	// CopyTo writes the database to a new file, which need not be durable. A
	// page lies where it lay, so copies have what did not change in common.
	CopyTo(ctx context.Context, path string) error
	// Files lists the files of the pool.
	Files(ctx context.Context) ([]release.File, error)
	// States lists the states that bases and stages offer, each once.
	States(ctx context.Context) ([]snapshots.ID, error)
	// Stages lists the stages that offer something.
	Stages(ctx context.Context) ([]Stage, error)
	Close() error
}

// Stage says where the signed files of a stage are.
type Stage struct{ Pipeline, Distribution, Name string }

// Source is the data directory that is backed up.
type Source struct {
	Data     string // the directory
	File     string // name of the database in it
	Database Database
	Chunks   snapshots.Chunks
	Still    func(ctx context.Context, f func(context.Context) error) error // calls f while nothing is committed and published
	Key      string                                                         // fingerprint of the archive key
	Program  string                                                         // version
	Clock    func() time.Time
	Reserve  int64 // bytes that stay free on the disk of the backup directory
}

// content is a small file that was read at the moment of the database.
type content struct {
	path string // relative to the data directory
	info fs.FileInfo
	data []byte
}

// moment is what only holds together at one moment.
type moment struct {
	snapshot Snapshot
	at       time.Time
	contents []content
}

// still reads that moment. The caller closes its snapshot.
func (s Source) still(ctx context.Context, withKeys bool) (m moment, err error) {
	err = s.Still(ctx, func(ctx context.Context) error {
		m.at = s.Clock().UTC().Truncate(time.Microsecond)
		snapshot, err := s.Database.Snapshot(ctx)
		if err != nil {
			return err
		}
		m.snapshot = snapshot
		stages, err := snapshot.Stages(ctx)
		if err != nil {
			return fmt.Errorf("cannot list the stages: %w", err)
		}
		names, err := s.smallFiles(stages, withKeys)
		if err != nil {
			return err
		}
		for _, name := range names {
			c, err := s.read(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // of a stage that could not be published yet: the next start signs it
			}
			if err != nil {
				return err
			}
			m.contents = append(m.contents, c)
		}
		return nil
	})
	if err != nil && m.snapshot != nil {
		err = errors.Join(err, m.snapshot.Close())
	}
	return m, err
}

// smallFiles names what changes in place: keys, the signed files of stages,
// and what mirrors accepted last, without which they would take something
// older.
func (s Source) smallFiles(stages []Stage, withKeys bool) ([]string, error) {
	tree := os.DirFS(s.Data)
	keys, err := fs.Glob(tree, "keys/*")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(tree, "mirrors/*/*/InRelease*") // one a suite; without a suffix if not updated since mirrors had one
	if err != nil {
		return nil, err
	}
	for _, name := range keys {
		hidden := strings.HasPrefix(path.Base(name), ".")
		certificate := path.Ext(name) == ".asc" || path.Ext(name) == ".pem"
		if !hidden && (withKeys || certificate) {
			names = append(names, name)
		}
	}
	for _, stage := range stages {
		for _, name := range publish.SignedFiles(stage.Pipeline, stage.Name, stage.Distribution) {
			names = append(names, path.Join("public", name))
		}
	}
	return names, nil
}

func (s Source) read(name string) (content, error) {
	abs := filepath.Join(s.Data, filepath.FromSlash(name))
	data, err := os.ReadFile(abs)
	if err != nil {
		return content{}, err
	}
	info, err := os.Lstat(abs)
	return content{path: name, info: info, data: data}, err
}
