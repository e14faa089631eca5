package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/repo-manager/internal/release"
)

// Names in a backup directory.
const (
	markerFile   = "aptfleet-backup"
	objectsDir   = "objects"
	manifestsDir = "backups"
	temporary    = ".tmp"
	suffix       = ".manifest"
)

// markerText is the content of the marker.
const markerText = "aptfleet backup directory 1\n"

// Dir is an open backup directory. One process writes to it at a time; many
// may read it meanwhile none does.
type Dir struct {
	path string
	lock *os.File
}

// Open opens a backup directory for reading. It holds off writers until Close.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	return d, d.open(unix.LOCK_SH)
}

// openToChange opens a backup directory and holds off everybody else.
func openToChange(path string) (*Dir, error) {
	d := &Dir{path: path}
	return d, d.open(unix.LOCK_EX)
}

// create makes a backup directory of an absent or empty one, or opens one
// that is there, and removes what a crash left unfinished in it.
func create(path string) (*Dir, error) {
	if err := mustBeOurs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make backup directory: %w", err)
	}
	marker := filepath.Join(path, markerFile)
	if _, err := os.Lstat(marker); errors.Is(err, fs.ErrNotExist) {
		// It was empty, and is ours from now on: private keys will lie here.
		if err := os.Chmod(path, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make backup directory: %w", err)
		}
		if err := atomicfile.Write(marker, []byte(markerText), 0o600); err != nil {
			return nil, fmt.Errorf("cannot make backup directory: %w", err)
		}
	}
	d, err := openToChange(path)
	if err != nil {
		return nil, err
	}
	if err := d.tidy(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open backup directory %s: %w", path, err), d.Close())
	}
	return d, nil
}

// mustBeOurs refuses a directory of somebody else's files: whoever may ask for
// a backup must not be able to write just anywhere.
func mustBeOurs(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot open backup directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == markerFile {
			return nil
		}
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && !strings.HasPrefix(e.Name(), "."+markerFile+".") {
			return &release.Error{
				Code: release.Refused,
				Text: fmt.Sprintf("cannot use %s as backup directory: it holds %s and is not one", path, e.Name()),
				Hint: "name an empty or absent directory, or one that earlier backups went to",
			}
		}
	}
	return nil
}

func (d *Dir) open(how int) error {
	marker := filepath.Join(d.path, markerFile)
	text, err := os.ReadFile(marker)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &release.Error{
			Code: release.NotFound,
			Text: fmt.Sprintf("cannot open backup directory %s: there is none", d.path),
			Hint: "a backup directory holds the file " + markerFile, Err: err,
		}
	case err != nil:
		return fmt.Errorf("cannot open backup directory: %w", err)
	case string(text) != markerText:
		return fmt.Errorf("cannot open backup directory %s: its file %s says %q: it belongs to another version of repo-manager", d.path, markerFile, oneLine(string(text)))
	}
	lock, err := os.Open(marker)
	if err != nil {
		return fmt.Errorf("cannot open backup directory: %w", err)
	}
	switch err := unix.Flock(int(lock.Fd()), how|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errors.Join(&release.Error{
			Code: release.Locked,
			Text: fmt.Sprintf("cannot open backup directory %s: somebody else works with it", d.path),
			Hint: "try again when that is done; a server shows its backups with: repo-manager changes",
		}, lock.Close())
	case err != nil:
		return errors.Join(fmt.Errorf("cannot lock backup directory: %w", err), lock.Close())
	}
	d.lock = lock
	return nil
}

// Close lets others work with the directory.
func (d *Dir) Close() error { return d.lock.Close() }

// tidy makes the directories below the root and empties those of files under
// way.
func (d *Dir) tidy() error {
	if err := errors.Join(atomicfile.Sweep(filepath.Join(d.path, manifestsDir), nil), os.RemoveAll(filepath.Join(d.path, temporary))); err != nil {
		return err
	}
	for _, dir := range []string{objectsDir, manifestsDir, temporary} {
		if err := os.Mkdir(filepath.Join(d.path, dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// objectPath is where an object lies, or will.
func (d *Dir) objectPath(sum [sha256.Size]byte) string {
	name := hex.EncodeToString(sum[:])
	return filepath.Join(d.path, objectsDir, name[:2], name)
}

// objects lists the objects that are there, with their sizes. It reads names
// and sizes, no contents.
func (d *Dir) objects() (map[[sha256.Size]byte]int64, error) {
	there := make(map[[sha256.Size]byte]int64)
	dirs, err := os.ReadDir(filepath.Join(d.path, objectsDir))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(filepath.Join(d.path, objectsDir, dir.Name()))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			raw, err := hex.DecodeString(file.Name())
			if err != nil || len(raw) != sha256.Size {
				continue
			}
			info, err := file.Info()
			if err != nil {
				return nil, err
			}
			if info.Mode().IsRegular() {
				there[[sha256.Size]byte(raw)] = info.Size()
			}
		}
	}
	return there, nil
}

// ids lists the backups, oldest first.
func (d *Dir) ids() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, manifestsDir))
	if err != nil {
		return nil, fmt.Errorf("cannot list backups: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func (d *Dir) manifestPath(id string) string {
	return filepath.Join(d.path, manifestsDir, id+suffix)
}

// read reads one manifest.
func (d *Dir) read(id string) (Manifest, error) {
	text, err := os.ReadFile(d.manifestPath(id))
	if err != nil {
		return Manifest{}, fmt.Errorf("cannot read backup %s: %w", id, err)
	}
	m, err := decode(text)
	if err == nil && m.ID != id {
		err = fmt.Errorf("its manifest is that of backup %s", m.ID)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("cannot read backup %s: %w", id, err)
	}
	return m, nil
}

// Listed is a backup, or why its manifest cannot be read.
type Listed struct {
	Manifest // with its ID at least
	Err      error
}

// List reads all manifests, newest first.
func (d *Dir) List() ([]Listed, error) {
	ids, err := d.ids()
	if err != nil {
		return nil, err
	}
	var all []Listed
	for _, id := range slices.Backward(ids) {
		m, err := d.read(id)
		m.ID = id
		all = append(all, Listed{m, err})
	}
	return all, nil
}

// Find reads the backup that ref names: an id or a unique prefix of one, or
// the newest if it is "".
func (d *Dir) Find(ref string) (Manifest, error) {
	ids, err := d.ids()
	if err != nil {
		return Manifest{}, err
	}
	var found []string
	for _, id := range ids {
		if strings.HasPrefix(id, ref) {
			found = append(found, id)
		}
	}
	hint := "repo-manager backup list " + d.path
	switch {
	case len(found) == 0 && ref == "":
		return Manifest{}, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find a backup in %s: there is none", d.path)}
	case len(found) == 0:
		return Manifest{}, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find backup %q: %s has none of that id", ref, d.path), Hint: hint}
	case len(found) > 1 && ref != "":
		return Manifest{}, &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot tell which backup %q is: %s and %s begin like that", ref, found[0], found[1]), Hint: hint}
	}
	return d.read(found[len(found)-1])
}

// hashFile returns the SHA-256 and the size of a file.
func hashFile(path string) (sum [sha256.Size]byte, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, 0, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return [sha256.Size]byte(h.Sum(nil)), n, errors.Join(err, f.Close())
}
