// Package incoming takes uploads from the network to the disk in one pass:
// every byte is written to a temporary file, hashed and parsed as it comes,
// and nothing is read twice. All of it is bounded. A file that is not what it
// should be is gone before its uploader reads the reason.
package incoming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unicode"

	"golang.org/x/sys/unix"

	"aptfleet/internal/deb"
	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/release"
)

// Defaults of a Receiver.
const (
	DefaultMaxSize = 4 << 30  // bytes of one package
	DefaultReserve = 32 << 20 // bytes that stay free for the database and the indices
)

// drain is how many bytes of a refused package are read, and thrown away, so
// that its uploader gets to the answer.
const drain = 256 << 20

// Receiver receives uploads into one directory. Its methods may be called
// concurrently.
type Receiver struct {
	dir     string
	maxSize int64
	reserve int64
	count   atomic.Int64 // of uploads, for the names of their files
	readers sync.Pool    // of *deb.Reader: they keep what is dear to make
}

// Open returns a Receiver on dir, which it creates, and removes what an
// earlier process left there. maxSize and reserve are bytes; 0 takes the
// default.
func Open(dir string, maxSize, reserve int64) (*Receiver, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open the directory of uploads: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the directory of uploads: %w", err)
	}
	for _, entry := range left {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return nil, fmt.Errorf("cannot remove an unfinished upload: %w", err)
		}
	}
	r := &Receiver{dir: dir, maxSize: maxSize, reserve: reserve}
	r.readers.New = func() any { return new(deb.Reader) }
	r.maxSize = cmp.Or(r.maxSize, DefaultMaxSize)
	r.reserve = cmp.Or(r.reserve, DefaultReserve)
	return r, nil
}

// Receive reads one .deb from body. name is what the uploader calls it and
// stands in every error. On success the caller owns the file and discards it
// when it was not added; on an error there is no file.
func (r *Receiver) Receive(ctx context.Context, body io.Reader, name string) (in release.Incoming, err error) {
	name = printable(name)
	path := filepath.Join(r.dir, "upload-"+strconv.FormatInt(r.count.Add(1), 10))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return in, r.explain(err, name)
	}
	defer func() {
		err = errors.Join(err, file.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	disk := &writer{file: file, reserve: r.reserve}
	source := &reader{ctx: ctx, r: io.LimitReader(body, r.maxSize+1)}
	var tooMuch *http.MaxBytesError // the listener has the same limit
	packages := r.readers.Get().(*deb.Reader)
	defer r.readers.Put(packages)
	p, err := packages.Read(io.TeeReader(source, disk), deb.Limits{Size: r.maxSize})
	if err != nil && source.err == nil {
		// Many clients read no answer before they have sent everything: what
		// cannot be drained only costs them the reason.
		_, _ = io.Copy(io.Discard, io.LimitReader(body, drain))
	}
	switch {
	case disk.err != nil:
		return in, r.explain(disk.err, name)
	case source.n > r.maxSize || errors.As(source.err, &tooMuch):
		return in, &release.Error{
			Code: release.TooLarge, Text: fmt.Sprintf("cannot add %s: it has more than the %d bytes that one package may have", name, r.maxSize),
			Hint: "the setting max_upload of the server raises the limit",
		}
	case source.err != nil:
		return in, &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot add %s: the upload broke off after %d bytes", name, source.n), Hint: "send it again", Err: source.err}
	case err != nil:
		return in, invalid(err, name)
	}
	faultpoint.Hit("upload:incoming-written")
	return release.Incoming{Path: path, Name: name, Package: p}, nil
}

// invalid says what is wrong with the file.
func invalid(err error, name string) error {
	var format *deb.FormatError
	if !errors.As(err, &format) {
		return fmt.Errorf("cannot add %s: %w", name, err)
	}
	return &release.Error{
		Code: release.Invalid, Text: fmt.Sprintf("cannot add %s: %v", name, err),
		Hint: "dpkg-deb --info shows what is in a package", Err: err,
	}
}

// explain tells a full disk from other failures of writing.
func (r *Receiver) explain(err error, name string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &release.Error{
			Code: release.NoSpace, Text: fmt.Sprintf("cannot add %s: no space left on the disk of the data directory", name),
			Hint: "free space there or make it larger, then send the package again; nothing was changed", Err: err,
		}
	}
	return fmt.Errorf("cannot add %s: %w", name, err)
}

// probeEvery is how many bytes are written between two looks at the free
// space of the disk.
const probeEvery = 4 << 20

// writer writes the temporary file and remembers why it could not. It stops
// while the reserve is still free: what is published next needs room too.
type writer struct {
	file    *os.File
	reserve int64
	probed  int64 // bytes until the next probe
	err     error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.probed <= 0 {
		if w.err = w.probe(); w.err != nil {
			return 0, w.err
		}
		w.probed = probeEvery
	}
	w.probed -= int64(len(p))
	n, err := w.file.Write(p)
	w.err = err
	return n, err
}

func (w *writer) probe() error {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(w.file.Fd()), &stat); err != nil {
		return err
	}
	if int64(stat.Bavail)*stat.Bsize < w.reserve+probeEvery {
		return &fs.PathError{Op: "write", Path: w.file.Name(), Err: syscall.ENOSPC}
	}
	return nil
}

// reader counts what an uploader sent and remembers why it broke off.
type reader struct {
	ctx context.Context
	r   io.Reader
	n   int64
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.r.Read(p)
	r.n += int64(n)
	if err != nil && err != io.EOF { // a body cut short ends in io.ErrUnexpectedEOF
		r.err = err
	}
	return n, err
}

// maxName bounds the name of a file in errors, in bytes.
const maxName = 200

// printable makes an uploader's name safe for terminals, logs and pages: the
// last path element, without control or invalid characters.
func printable(name string) string {
	name = strings.Map(func(c rune) rune {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, name)
	name = filepath.Base(name)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "…"
	}
	if name == "." || name == "/" || name == "" {
		return "the upload"
	}
	return name
}
