package incoming

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"aptfleet/internal/deb"
)

// held is how many bytes of an upload are kept in memory before any is
// written. What is in a small package is known, and with it the name of its
// file, before there is one.
const held = 64 << 10

// probeEvery is how many bytes are written between two looks at the free
// space of the disk.
const probeEvery = 4 << 20

// unnamed is what a file is called while its package is not known.
const unnamed = "upload"

// upload is one upload on its way to the disk. It remembers why it could not
// be written, and stops while the reserve is still free: what is published
// next needs room too.
type upload struct {
	packages deb.Reader
	held     []byte // not written yet

	dir     string
	reserve int64
	probed  int64    // bytes until the next probe
	file    *os.File // nil while all is held
	err     error
}

// start begins an upload that gets a directory of its own.
func (u *upload) start(dir string, reserve int64) {
	*u = upload{packages: u.packages, held: u.held[:0], dir: dir, reserve: reserve}
}

func (u *upload) Write(p []byte) (int, error) {
	if u.err == nil && u.file == nil && len(u.held)+len(p) > cap(u.held) {
		u.err = u.create(unnamed)
	}
	switch {
	case u.err != nil:
		return 0, u.err
	case u.file == nil:
		u.held = append(u.held, p...)
		return len(p), nil
	}
	return u.write(p)
}

// create makes the directory and the file, and writes what is held.
func (u *upload) create(name string) (err error) {
	if err := u.probe(filepath.Dir(u.dir)); err != nil {
		return err
	}
	if err := os.Mkdir(u.dir, 0o755); err != nil {
		return err
	}
	u.file, err = os.OpenFile(filepath.Join(u.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = u.write(u.held)
	return err
}

func (u *upload) write(p []byte) (n int, err error) {
	if u.probed <= 0 {
		if u.err = u.probe(u.dir); u.err != nil {
			return 0, u.err
		}
	}
	u.probed -= int64(len(p))
	n, u.err = u.file.Write(p)
	return n, u.err
}

// probe looks whether there is room in the file system of dir.
func (u *upload) probe(dir string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return err
	}
	if int64(stat.Bavail)*stat.Bsize < u.reserve+probeEvery {
		return &fs.PathError{Op: "write", Path: u.dir, Err: syscall.ENOSPC}
	}
	u.probed = probeEvery
	return nil
}

// finish writes what is left, gives the file its name and returns its path.
func (u *upload) finish(name string) (path string, err error) {
	path = filepath.Join(u.dir, name)
	if u.file == nil {
		err = u.create(name)
	} else {
		err = os.Rename(u.file.Name(), path)
	}
	if err == nil {
		err = u.file.Chmod(0o444) // whatever the umask says
	}
	if err == nil {
		err = u.close()
	}
	return path, err
}

func (u *upload) close() error {
	file := u.file
	u.file = nil
	return file.Close()
}

// discard removes what there is of an upload that failed.
func (u *upload) discard() (err error) {
	if u.file != nil {
		err = u.close()
	}
	return errors.Join(err, os.RemoveAll(u.dir))
}
