package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Request says what backup is wanted.
type Request struct {
	Dir         string // absolute path of the backup directory
	WithoutKeys bool   // leave the private keys out
	By          string // who asks
	Change      int64  // of the server that does it; 0: none
}

// Made is a backup that was made, and what of it was new.
type Made struct {
	Manifest
	NewObjects int
	NewBytes   int64
}

// Progress receives how far an act has come; *release.Progress is one.
type Progress interface {
	Total(n int64, unit string)
	Add(n int64)
	Logf(format string, args ...any)
}

// pieceSize is that of the objects of the database, in bytes: what changes
// between two backups is stored again in units of this.
const pieceSize = 64 << 10

// Make makes a backup. When it returns nil, the backup is durable. On an error
// there is no such backup and earlier ones are as they were; what was copied
// stays for the next one. Files that the source should have and does not have
// are no error: Manifest.Lost names them.
func Make(ctx context.Context, source Source, r Request, progress Progress) (made Made, err error) {
	d, err := create(r.Dir)
	if err != nil {
		return Made{}, full(err, r.Dir)
	}
	defer func() {
		// What is half written would only take room from the server's next try.
		err = errors.Join(err, os.RemoveAll(filepath.Join(r.Dir, temporary)), d.Close())
	}()
	m := &maker{
		dir: d, source: source, progress: progress, chunks: make(map[snapshots.ID]bool),
		durable: make(map[[sha256.Size]byte]bool), planned: make(map[[sha256.Size]byte]bool),
	}
	made, err = m.make(ctx, r)
	return made, full(err, r.Dir)
}

// full tells apart a disk that is full: it is another one than the server's.
func full(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &release.Error{
			Code: release.NoSpace,
			Text: fmt.Sprintf("cannot back up: no space left on the disk of the backup directory %s", dir),
			Hint: "free space there (repo-manager backup prune removes old backups), then repeat: what is there already is not copied again",
			Err:  err,
		}
	}
	return err
}

// maker makes one backup.
type maker struct {
	dir      *Dir
	source   Source
	progress Progress

	previous map[string]File             // by path: the files of the newest backup
	durable  map[[sha256.Size]byte]bool  // its objects
	there    map[[sha256.Size]byte]int64 // objects in the directory, with their sizes
	chunks   map[snapshots.ID]bool       // of the states so far
	planned  map[[sha256.Size]byte]bool  // objects that jobs will make
	files    []*File                     // of the new backup; what a job is about has its parts later
	jobs     []job
	buffers  sync.Pool

	mu         sync.Mutex
	lost       map[*File]bool
	newObjects int
	newBytes   int64
}

func (m *maker) make(ctx context.Context, r Request) (made Made, err error) {
	if err := m.know(); err != nil {
		return Made{}, err
	}
	now, err := m.source.still(ctx, !r.WithoutKeys)
	if err != nil {
		return Made{}, err
	}
	faultpoint.Hit("backup:begun")
	copied := filepath.Join(m.dir.path, temporary, "database")
	err = m.plan(ctx, now, copied)
	if err := errors.Join(err, now.snapshot.Close()); err != nil {
		return Made{}, err
	}
	faultpoint.Hit("backup:planned")
	if err := m.run(ctx); err != nil {
		return Made{}, err
	}
	for f := range m.lost {
		if f.Path == m.source.File {
			return Made{}, errors.New("cannot back up: the copy of the database cannot be read back from the backup directory")
		}
	}
	manifest, err := m.manifest(now.at, r)
	if err != nil {
		return Made{}, err
	}
	faultpoint.Hit("backup:copied")
	if err := atomicfile.SyncFS(m.dir.path); err != nil {
		return Made{}, err
	}
	faultpoint.Hit("backup:synced")
	if err := ctx.Err(); err != nil {
		return Made{}, err
	}
	if err := atomicfile.Write(m.dir.manifestPath(manifest.ID), manifest.encode(), 0o600); err != nil {
		return Made{}, err
	}
	faultpoint.Hit("backup:committed")
	return Made{Manifest: manifest, NewObjects: m.newObjects, NewBytes: m.newBytes}, nil
}

// know learns what the directory has. Without a readable backup every object
// is compared before it is used.
func (m *maker) know() (err error) {
	m.previous = make(map[string]File)
	if m.there, err = m.dir.objects(); err != nil {
		return err
	}
	ids, err := m.dir.ids()
	if err != nil || len(ids) == 0 {
		return err
	}
	newest, err := m.dir.read(ids[len(ids)-1])
	if err != nil {
		m.progress.Logf("%v; what is in the directory is compared anew", err)
		return nil
	}
	for _, f := range newest.Files {
		m.previous[f.Path] = f
		for _, p := range f.Parts {
			m.durable[p.SHA256] = true
		}
	}
	return nil
}

// has tells whether an object need not be looked at: the newest backup relies
// on it, and it is there with its size.
func (m *maker) has(p Part) bool {
	size, ok := m.there[p.SHA256]
	return ok && size == p.Size && m.durable[p.SHA256]
}

func (m *maker) hasAll(f File) bool {
	for _, p := range f.Parts {
		if !m.has(p) {
			return false
		}
	}
	return true
}

// lose notes that the source does not have a file.
func (m *maker) lose(f *File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost == nil {
		m.lost = make(map[*File]bool)
	}
	m.lost[f] = true
}

// run does all jobs, on all cores.
func (m *maker) run(ctx context.Context) error {
	var needed int64
	for _, j := range m.jobs {
		needed += j.size
	}
	if err := m.mustHaveRoom(needed); err != nil {
		return err
	}
	m.progress.Total(needed, "bytes")
	m.buffers.New = func() any { b := make([]byte, 256<<10); return &b }
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, j := range m.jobs {
		group.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			part, err := m.store(inner, j)
			var gone *sourceError
			if errors.As(err, &gone) {
				m.progress.Logf("%s: %v", j.file.Path, gone.err)
				m.lose(j.file)
				return nil
			}
			j.file.Parts[j.part] = part
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// mustHaveRoom refuses before the first byte what would not fit.
func (m *maker) mustHaveRoom(needed int64) error {
	if needed == 0 {
		return nil
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(m.dir.path, &stat); err != nil {
		return fmt.Errorf("cannot look for room: %w", err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; free-m.source.Reserve < needed {
		m.progress.Logf("up to %s are to be copied, %s are free, of which %s stay free", term.HumanBytes(needed), term.HumanBytes(free), term.HumanBytes(m.source.Reserve))
		return &fs.PathError{Op: "write", Path: m.dir.path, Err: syscall.ENOSPC}
	}
	return nil
}

// sourceError says that a file cannot be had from the data directory.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// store makes sure that the object of a job is there, and returns which it is.
func (m *maker) store(ctx context.Context, j job) (Part, error) {
	if j.want != nil {
		// A crash may have left it with other bytes: it was never synced.
		if size, ok := m.there[j.want.SHA256]; ok && size == j.want.Size {
			if sum, _, err := hashFile(m.dir.objectPath(j.want.SHA256)); err == nil && sum == j.want.SHA256 {
				m.progress.Add(j.size)
				return *j.want, nil
			}
		}
	}
	from, err := open(j)
	if err != nil {
		return Part{}, &sourceError{err}
	}
	part, tmp, err := m.copy(ctx, from)
	if err := errors.Join(err, from.Close()); err != nil {
		return Part{}, err
	}
	if j.want != nil && part != *j.want {
		return Part{}, errors.Join(&sourceError{fmt.Errorf("it has %d bytes with the SHA-256 %x instead of %d with %x", part.Size, part.SHA256, j.want.Size, j.want.SHA256)}, os.Remove(tmp))
	}
	target := m.dir.objectPath(part.SHA256)
	err = os.Rename(tmp, target)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(target), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Rename(tmp, target)
		}
	}
	if err != nil {
		return Part{}, errors.Join(err, os.Remove(tmp))
	}
	faultpoint.Hit("backup:object")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.there[part.SHA256] != part.Size || !m.durable[part.SHA256] {
		m.newObjects++
		m.newBytes += part.Size
	}
	return part, nil
}

// open opens the source of a job.
func open(j job) (io.ReadCloser, error) {
	if j.data != nil {
		return io.NopCloser(bytes.NewReader(j.data)), nil
	}
	f, err := os.Open(j.from)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, j.offset, j.size), f}, nil
}

// copy writes a temporary file and tells what it holds.
func (m *maker) copy(ctx context.Context, from io.Reader) (part Part, tmp string, err error) {
	f, err := os.CreateTemp(filepath.Join(m.dir.path, temporary), "")
	if err != nil {
		return Part{}, "", err
	}
	buffer := m.buffers.Get().(*[]byte)
	defer m.buffers.Put(buffer)
	h := sha256.New()
	for {
		if err = ctx.Err(); err != nil {
			break
		}
		n, readErr := from.Read(*buffer)
		if _, err = f.Write((*buffer)[:n]); err != nil {
			break
		}
		h.Write((*buffer)[:n])
		part.Size += int64(n)
		m.progress.Add(int64(n))
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			err = &sourceError{readErr}
			break
		}
	}
	part.SHA256 = [sha256.Size]byte(h.Sum(nil))
	if err := errors.Join(err, f.Close()); err != nil {
		return Part{}, "", errors.Join(err, os.Remove(f.Name()))
	}
	return part, f.Name(), nil
}

// manifest describes what was copied, under the next free id.
func (m *maker) manifest(at time.Time, r Request) (Manifest, error) {
	second := at.Truncate(time.Second)
	ids, err := m.dir.ids()
	if err != nil {
		return Manifest{}, err
	}
	if n := len(ids); n > 0 {
		last, err := time.Parse(idFormat, ids[n-1])
		if err != nil {
			return Manifest{}, fmt.Errorf("cannot name the backup: %s%s is no id of one", ids[n-1], suffix)
		}
		if !second.After(last) {
			second = last.Add(time.Second)
		}
	}
	manifest := Manifest{
		ID: second.Format(idFormat), Created: at, By: r.By, Program: m.source.Program, Change: r.Change,
		Key: m.source.Key, Keys: !r.WithoutKeys,
	}
	for _, f := range m.files {
		if m.lost[f] {
			manifest.Lost = append(manifest.Lost, f.Path)
		} else {
			manifest.Files = append(manifest.Files, *f)
		}
	}
	manifest.sort()
	if _, err := decode(manifest.encode()); err != nil {
		return Manifest{}, fmt.Errorf("cannot write the manifest: %w", err)
	}
	return manifest, nil
}
