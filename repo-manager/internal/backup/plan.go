package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// job is a part of a file that may have to be copied.
type job struct {
	file   *File
	part   int    // of the file
	want   *Part  // what it must be; nil: whatever it is
	from   string // path of the source
	offset int64  // in it
	size   int64  // bytes from there
	data   []byte // instead of a source, if not nil
}

// plan lists all files of the backup and what has to be copied for them.
func (m *maker) plan(ctx context.Context, now moment, copied string) error {
	for _, c := range now.contents {
		part := Part{SHA256: sha256.Sum256(c.data), Size: int64(len(c.data))}
		f := m.add(File{Path: c.path, Mode: c.info.Mode().Perm(), ModTime: c.info.ModTime()})
		m.part(job{file: f, want: &part, data: c.data, size: part.Size})
	}
	if err := now.snapshot.CopyTo(ctx, copied); err != nil {
		return err
	}
	if err := m.database(copied, now.at); err != nil {
		return err
	}
	files, err := now.snapshot.Files(ctx)
	if err != nil {
		return fmt.Errorf("cannot list the files of the pool: %w", err)
	}
	for _, file := range files {
		m.known(path.Join("public", publish.PoolFilename(file.SHA256, file.Name)), Part{SHA256: file.SHA256, Size: file.Size}, now.at)
	}
	states, err := now.snapshot.States(ctx)
	if err != nil {
		return fmt.Errorf("cannot list the states: %w", err)
	}
	for _, id := range states {
		if err := m.state(ctx, id, now.at); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) add(f File) *File {
	m.files = append(m.files, &f)
	return &f
}

// part notes a part of a file, and a job for it unless it is there.
func (m *maker) part(j job) {
	j.part = len(j.file.Parts)
	if j.want != nil {
		j.file.Parts = append(j.file.Parts, *j.want)
		if m.has(*j.want) || m.planned[j.want.SHA256] {
			return
		}
		m.planned[j.want.SHA256] = true
	} else {
		j.file.Parts = append(j.file.Parts, Part{})
	}
	m.jobs = append(m.jobs, j)
}

// database cuts the copy of the database into parts.
func (m *maker) database(copied string, at time.Time) error {
	file, err := os.Open(copied)
	if err != nil {
		return err
	}
	defer file.Close()
	f := m.add(File{Path: m.source.File, Mode: 0o600, ModTime: at})
	piece := make([]byte, pieceSize)
	for offset := int64(0); ; offset += pieceSize {
		n, err := io.ReadFull(file, piece)
		if n > 0 {
			part := Part{SHA256: sha256.Sum256(piece[:n]), Size: int64(n)}
			m.part(job{file: f, want: &part, from: copied, offset: offset, size: part.Size})
		}
		switch {
		case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// known notes a file whose content its name tells. One that is gone or has
// another size is still good if the directory has its object.
func (m *maker) known(name string, part Part, at time.Time) {
	abs := filepath.Join(m.source.Data, filepath.FromSlash(name))
	f := m.add(File{Path: name, Mode: 0o444, ModTime: at})
	if info, err := os.Lstat(abs); err == nil {
		f.ModTime = info.ModTime()
	} else if before, ok := m.previous[name]; ok {
		f.ModTime = before.ModTime
	}
	m.part(job{file: f, want: &part, from: abs, size: part.Size})
}

// state notes the text of a state, and the texts and frames of its chunks.
func (m *maker) state(ctx context.Context, id snapshots.ID, at time.Time) error {
	state, err := snapshots.Load(ctx, m.source.Chunks, id)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		if saved, saveErr := snapshots.Load(ctx, chunksOf{d: m.dir}, id); saveErr == nil {
			state, err = saved, nil
		}
	}
	if err != nil {
		m.progress.Logf("state %s cannot be read: %v", id, err)
		m.lose(m.add(File{Path: blobPath(id)}))
		return nil
	}
	m.known(blobPath(id), Part{SHA256: id, Size: int64(len(state.Text()))}, at)
	for _, key := range state.Keys() {
		for _, chunk := range state.Index(key).Chunks {
			if m.chunks[chunk.ID] {
				continue
			}
			m.chunks[chunk.ID] = true
			m.known(blobPath(chunk.ID), Part{SHA256: chunk.ID, Size: chunk.Size}, at)
			for _, as := range frame.Encodings {
				if err := m.frame(blobPath(chunk.ID) + string(as)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// chunksOf reads texts from the objects of a backup directory.
type chunksOf struct {
	snapshots.Chunks // nothing is put there
	d                *Dir
}

func (c chunksOf) Get(_ context.Context, id snapshots.ID) ([]byte, error) {
	return os.ReadFile(c.d.objectPath(id))
}

func blobPath(id snapshots.ID) string {
	name := id.String()
	return path.Join("blobs", name[:2], name)
}

// frame notes the frame of a chunk. Its name does not tell its content; but it
// is made once, so one of the same size and time as in the newest backup is
// the same.
func (m *maker) frame(name string) error {
	abs := filepath.Join(m.source.Data, filepath.FromSlash(name))
	before, known := m.previous[name]
	known = known && m.hasAll(before)
	info, err := os.Lstat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist) && known:
		m.add(before)
	case errors.Is(err, fs.ErrNotExist):
		// Not published yet, so never made; or lost, which check tells.
	case err != nil:
		return err
	case known && before.Size() == info.Size() && before.ModTime.Equal(info.ModTime()):
		m.add(before)
	default:
		f := m.add(File{Path: name, Mode: info.Mode().Perm(), ModTime: info.ModTime()})
		m.part(job{file: f, from: abs, size: info.Size()})
	}
	return nil
}
