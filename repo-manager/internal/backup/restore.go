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
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/release"
)

// Unfinished is the file in a data directory that says that a restore into it
// has not ended: nothing there may be used.
const Unfinished = "unfinished-restore"

// Restore says what is brought back where.
type Restore struct {
	Data   string                      // directory to fill: absent, empty, or left by an unfinished restore
	Finish func(context.Context) error // called once all files are there, before they are good
}

// MustBeFree refuses a data directory in which something is: a restore
// replaces nothing. An unfinished restore counts as nothing.
func MustBeFree(data string) error {
	entries, err := os.ReadDir(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot restore to %s: %w", data, err)
	}
	for _, e := range entries {
		if e.Name() == Unfinished {
			return nil
		}
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && e.Name() != "lock" && !strings.HasPrefix(e.Name(), "."+Unfinished+".") {
			return &release.Error{
				Code: release.Refused,
				Text: fmt.Sprintf("cannot restore to %s: it holds %s", data, e.Name()),
				Hint: "name an empty or absent directory with --data: a restore replaces nothing",
			}
		}
	}
	return nil
}

// MustBeWhole looks for the objects of a backup without reading them, and
// names what is missing.
func (d *Dir) MustBeWhole(m Manifest) error {
	there, err := d.objects()
	if err != nil {
		return fmt.Errorf("cannot list objects: %w", err)
	}
	var missing []string
	for _, f := range m.Files {
		for _, p := range f.Parts {
			if size, ok := there[p.SHA256]; !ok || size != p.Size {
				missing = append(missing, f.Path)
				break
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return &release.Error{
		Code: release.Conflict,
		Text: fmt.Sprintf("cannot restore backup %s: the objects of %d files are missing or cut short: %s", m.ID, len(missing), firstOf(missing)),
		Hint: "repo-manager backup verify " + d.path + " names them; another backup may be whole: repo-manager backup list " + d.path,
	}
}

// mustBelong refuses files that are not of a data directory: a manifest is
// only as good as whoever could write to its directory.
func (d *Dir) mustBelong(m Manifest, database string) error {
	for _, f := range m.Files {
		root, _, nested := strings.Cut(f.Path, "/")
		if f.Path != database && !(nested && slices.Contains([]string{"keys", "blobs", "public", "mirrors"}, root)) {
			return fmt.Errorf("cannot restore backup %s: %q is no file of a data directory", m.ID, f.Path)
		}
	}
	if !slices.ContainsFunc(m.Files, func(f File) bool { return f.Path == database }) {
		return fmt.Errorf("cannot restore backup %s: the database %s is not in it", m.ID, database)
	}
	return nil
}

// Restore fills a data directory from a backup; database is the name of the
// database in it. Every byte is held against its hash on the way. When it
// returns nil, the directory is complete and durable. On an error, or after a
// crash, the file Unfinished is in it: no server opens it, and another restore
// begins anew.
func (d *Dir) Restore(ctx context.Context, m Manifest, database string, r Restore, progress Progress) (err error) {
	if err := d.mustBelong(m, database); err != nil {
		return err
	}
	if err := d.MustBeWhole(m); err != nil {
		return err
	}
	if err := MustBeApart(d.path, r.Data); err != nil {
		return err
	}
	unlock, err := begin(r.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	faultpoint.Hit("restore:begun")
	if err := mustHold(r.Data, m.Bytes()); err != nil {
		return err
	}
	root, err := os.OpenRoot(r.Data)
	if err != nil {
		return fmt.Errorf("cannot restore to %s: %w", r.Data, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := d.write(ctx, m, root, progress); err != nil {
		return fmt.Errorf("cannot restore backup %s: %w", m.ID, err)
	}
	faultpoint.Hit("restore:written")
	if err := r.Finish(ctx); err != nil {
		return err
	}
	faultpoint.Hit("restore:finished")
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := atomicfile.SyncFS(r.Data); err != nil {
		return err
	}
	faultpoint.Hit("restore:synced")
	if err := root.Remove(Unfinished); err != nil {
		return fmt.Errorf("cannot restore to %s: %w", r.Data, err)
	}
	return atomicfile.SyncDir(r.Data)
}

// begin makes a data directory ours, marks it, and removes what an unfinished
// restore left there.
func begin(data string) (unlock func() error, err error) {
	if err := MustBeFree(data); err != nil {
		return nil, err
	}
	fail := func(err error) error { return fmt.Errorf("cannot restore to %s: %w", data, err) }
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fail(err)
	}
	lock, err := os.OpenFile(filepath.Join(data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fail(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = &release.Error{Code: release.Locked, Text: fmt.Sprintf("cannot restore to %s: another restore is at work there", data)}
		}
		return nil, errors.Join(err, lock.Close())
	}
	if err := clear(data); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock.Close, nil
}

// clear marks a data directory and empties it; its lock is held.
func clear(data string) error {
	// Another restore may have ended since the first look.
	if err := MustBeFree(data); err != nil {
		return err
	}
	entries, err := os.ReadDir(data)
	if err == nil {
		err = atomicfile.Write(filepath.Join(data, Unfinished), []byte("a restore is at work here, or was interrupted: repeat it\n"), 0o600)
	}
	for _, e := range entries {
		if e.Name() == Unfinished || e.Name() == "lock" || e.Name() == "lost+found" {
			continue
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(data, e.Name())))
	}
	if err != nil {
		return fmt.Errorf("cannot restore to %s: %w", data, err)
	}
	return nil
}

// mustHold refuses before the first byte what would not fit.
func mustHold(data string, needed int64) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(data, &stat); err != nil {
		return fmt.Errorf("cannot look for room in %s: %w", data, err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; free < needed {
		return noRoom(data, fmt.Sprintf("%s are needed, %s are free", term.HumanBytes(needed), term.HumanBytes(free)), syscall.ENOSPC)
	}
	return nil
}

func noRoom(data, numbers string, err error) error {
	text := "cannot restore to " + data + ": no space left on its disk"
	if numbers != "" {
		text += ": " + numbers
	}
	return &release.Error{Code: release.NoSpace, Text: text, Hint: "free space there or name another directory with --data, then repeat", Err: err}
}

// write writes all files, on all cores.
func (d *Dir) write(ctx context.Context, m Manifest, root *os.Root, progress Progress) error {
	progress.Total(m.Bytes(), "bytes")
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range m.Files {
		group.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			err := d.writeFile(inner, f, root, progress)
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
				return noRoom(root.Name(), "", err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// writeFile writes one file from its objects.
func (d *Dir) writeFile(ctx context.Context, f File, root *os.Root, progress Progress) error {
	mode := fs.FileMode(0o700)
	if strings.HasPrefix(f.Path, "public/") {
		mode = 0o755
	}
	if err := root.MkdirAll(path.Dir(f.Path), mode); err != nil {
		return err
	}
	file, err := root.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for _, p := range f.Parts {
		if err = d.copyObject(ctx, file, p, progress); err != nil {
			err = fmt.Errorf("%s: %w", f.Path, err)
			break
		}
	}
	if err == nil {
		err = file.Chmod(f.Mode)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	faultpoint.Hit("restore:file")
	return root.Chtimes(f.Path, f.ModTime, f.ModTime)
}

// copyObject appends an object to a file, if it is what it is called after.
func (d *Dir) copyObject(ctx context.Context, into io.Writer, p Part, progress Progress) error {
	object, err := os.Open(d.objectPath(p.SHA256))
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(into, h, counter{ctx, progress}), object)
	if err := errors.Join(err, object.Close()); err != nil {
		return err
	}
	if n != p.Size || [sha256.Size]byte(h.Sum(nil)) != p.SHA256 {
		return &release.Error{
			Code: release.Conflict,
			Text: fmt.Sprintf("cannot restore: the object %s of the backup is damaged", d.objectPath(p.SHA256)),
			Hint: "repo-manager backup verify " + d.path + " finds all damage; another backup may be whole: repo-manager backup list " + d.path,
		}
	}
	return nil
}

// counter counts what passes, until its context ends.
type counter struct {
	ctx      context.Context
	progress Progress
}

func (c counter) Write(data []byte) (int, error) {
	c.progress.Add(int64(len(data)))
	return len(data), c.ctx.Err()
}
