// Package incoming takes uploads from the network in one pass: every byte is
// kept, hashed and parsed as it comes, and nothing is read twice. All of it is
// bounded. What is not what it should be is gone before its uploader reads the
// reason.
//
// A small package stays in memory until the pool writes it: to make its file
// elsewhere first and then rename it costs half as much again. A larger one, and
// one too many of the small, is a file of the directory, from which the pool
// takes it with a rename.
package incoming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"unicode"

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
	room    room
	count   atomic.Int64 // of uploads, for the names of their files
	uploads sync.Pool    // of *upload: they keep what is dear to make
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
	r := &Receiver{dir: dir, maxSize: cmp.Or(maxSize, DefaultMaxSize), room: room{dir: dir, reserve: cmp.Or(reserve, DefaultReserve)}}
	r.uploads.New = func() any { return &upload{held: make([]byte, 0, held)} }
	return r, nil
}

// Receive reads one .deb from body. name is what the uploader calls it and
// stands in every error. On success the caller discards what it got once it was
// added or not; on an error there is nothing.
func (r *Receiver) Receive(ctx context.Context, body io.Reader, name string) (in release.Incoming, err error) {
	name = printable(name)
	u := r.uploads.Get().(*upload)
	defer r.uploads.Put(u)
	u.start(filepath.Join(r.dir, "upload-"+strconv.FormatInt(r.count.Add(1), 10)), &r.room)
	defer func() {
		if err != nil {
			err = errors.Join(err, u.discard())
		}
	}()
	source := &reader{ctx: ctx, r: io.LimitReader(body, r.maxSize+1)}
	var tooMuch *http.MaxBytesError // the listener has the same limit
	p, err := u.packages.Read(io.TeeReader(source, u), deb.Limits{Size: r.maxSize})
	if err != nil && source.err == nil {
		// Many clients read no answer before they have sent everything: what
		// cannot be drained only costs them the reason.
		_, _ = io.Copy(io.Discard, io.LimitReader(body, drain))
	}
	switch {
	case u.err != nil:
		return in, r.explain(u.err, name)
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
	if in, err = u.finish(); err != nil {
		return in, r.explain(err, name)
	}
	in.Name, in.Package = name, p
	faultpoint.Hit("upload:received")
	return in, nil
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
