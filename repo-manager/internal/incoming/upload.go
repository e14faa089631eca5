package incoming

import (
	"bytes"
	"errors"
	"os"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
)

// held is how many bytes of an upload are kept in memory before any is
// written: all of a small package.
const held = 64 << 10

// upload is one upload on its way. It remembers why it could not be written.
type upload struct {
	packages deb.Reader
	held     []byte // not written yet

	path string // of its file, if it gets one
	made bool   // it did
	room *room
	file *os.File // open
	err  error
}

// start begins an upload, whose file would be path.
func (u *upload) start(path string, room *room) {
	*u = upload{packages: u.packages, held: u.held[:0], path: path, room: room}
}

func (u *upload) Write(p []byte) (int, error) {
	if u.err == nil && !u.made && len(u.held)+len(p) > cap(u.held) {
		u.err = u.create()
	}
	switch {
	case u.err != nil:
		return 0, u.err
	case !u.made:
		u.held = append(u.held, p...)
		return len(p), nil
	}
	return u.write(p)
}

// create makes the file and writes what is held.
func (u *upload) create() (err error) {
	u.file, err = os.OpenFile(u.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	u.made = true
	_, err = u.write(u.held)
	return err
}

func (u *upload) write(p []byte) (n int, err error) {
	if u.err = u.room.take(int64(len(p))); u.err != nil {
		return 0, u.err
	}
	n, u.err = u.file.Write(p)
	return n, u.err
}

// finish says in what it returns where the package waits.
func (u *upload) finish() (in release.Incoming, err error) {
	if !u.made {
		if err := u.room.take(onDisk(len(u.held))); err != nil {
			return in, err
		}
		if in.Done = u.room.wait(len(u.held)); in.Done != nil {
			in.Content = bytes.Clone(u.held)
			return in, nil
		}
		if err := u.create(); err != nil {
			return in, err
		}
	}
	in.Path = u.path
	return in, u.close()
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
	if u.made {
		err = errors.Join(err, os.Remove(u.path))
	}
	return err
}
