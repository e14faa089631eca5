package mirror

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"

	"aptfleet/internal/deb"
)

// index is one Packages file of upstream, with where its bytes are.
type index struct {
	path string // below dists/<suite>, without the ending of a compression
	listed
	packed   listed // as it is downloaded
	encoding string // ".xz", ".gz" or ""
}

// indices finds the Packages files of an architecture, one a component, and
// those of architecture all where the archive keeps them apart.
func (r inRelease) indices(components []string, architecture string) ([]index, error) {
	var all []index
	for _, component := range components {
		if err := localPath(component); err != nil {
			return nil, fmt.Errorf("cannot mirror component %q: %w", component, err)
		}
		found, ok := r.index(component, architecture)
		if !ok {
			return nil, fmt.Errorf("cannot find the packages of %s/binary-%s: %s does not list them (architectures %s, components %s)",
				component, architecture, r.url, r.fields.Get("Architectures"), r.fields.Get("Components"))
		}
		all = append(all, found)
		// Debian lists binary-all although binary-<arch> repeats it, and says so.
		if slices.Contains(strings.Fields(r.fields.Get("No-Support-for-Architecture-all")), "Packages") {
			continue
		}
		if found, ok := r.index(component, "all"); ok {
			all = append(all, found)
		}
	}
	return all, nil
}

func (r inRelease) index(component, architecture string) (index, bool) {
	found := index{path: component + "/binary-" + architecture + "/Packages"}
	plain, isListed := r.files[found.path]
	for _, encoding := range []string{".xz", ".gz", ""} {
		packed, ok := r.files[found.path+encoding]
		if !ok {
			continue
		}
		found.packed, found.encoding, found.listed = packed, encoding, plain
		// Without an entry for the plain file, the packed one's hash has to do.
		if !isListed {
			found.listed = listed{size: maxIndex}
		}
		return found, true
	}
	return index{}, false
}

// read downloads an index, checks it and passes its stanzas to add, which
// therefore sees data that turns out bad at the end: the caller must forget
// it all on an error.
func (u *upstream) read(ctx context.Context, r inRelease, ix index, add func(deb.Stanza) error) error {
	dir := "dists/" + u.config.Suite + "/"
	name := dir + ix.path + ix.encoding
	fail := func(err error) error { return fmt.Errorf("cannot read index %s: %w", u.url(name), err) }
	if ix.size > maxIndex || ix.packed.size > maxIndex {
		return fail(fmt.Errorf("it is larger than %d bytes", maxIndex))
	}
	file, err := os.CreateTemp("", "aptfleet-index-")
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil { // it lives on until it is closed
		return fail(err)
	}
	if err := u.fetchIndex(ctx, r, dir, ix, file); err != nil {
		return fail(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	plain, err := decompress(bufio.NewReaderSize(file, 1<<16), ix.encoding)
	if err != nil {
		return fail(err)
	}
	sum := sha256.New()
	counted := &countingReader{r: io.TeeReader(io.LimitReader(plain, ix.size+1), sum)}
	stanzas := deb.NewStanzaReader(counted, maxIndexEntry)
	for {
		stanza, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = add(stanza)
		}
		if err != nil {
			return fail(err)
		}
	}
	if counted.n > ix.size {
		return fail(fmt.Errorf("it unpacks to more than the %d bytes that the signed release promises", ix.size))
	}
	if ix.sha256 != ([32]byte{}) {
		if err := ix.check(sum, counted.n); err != nil {
			return fail(err)
		}
	}
	return nil
}

// fetchIndex puts the bytes of an index into file once they are the signed
// ones: by their hash where the archive offers that, so that an archive in
// the middle of its own publication cannot mix two, else by name.
func (u *upstream) fetchIndex(ctx context.Context, r inRelease, dir string, ix index, file *os.File) error {
	names := []string{dir + ix.path + ix.encoding}
	if r.byHash {
		names = slices.Insert(names, 0, fmt.Sprintf("%s%s/by-hash/SHA256/%x", dir, path.Dir(ix.path), ix.packed.sha256))
	}
	var err error
	for _, name := range names {
		err = u.retry(ctx, func() error {
			sum := sha256.New()
			counted := &countingWriter{}
			err := u.fetch(ctx, name, 0, ix.packed.size, func(int64) (io.Writer, error) {
				if _, err := file.Seek(0, io.SeekStart); err != nil {
					return nil, err
				}
				return io.MultiWriter(file, sum, counted), file.Truncate(0)
			})
			if err != nil {
				return err
			}
			return ix.packed.check(sum, counted.n)
		})
		if !errors.Is(err, errNotFound) {
			return err
		}
	}
	return err
}

// check compares what was read with what is listed.
func (l listed) check(sum hash.Hash, size int64) error {
	if size != l.size {
		return fmt.Errorf("it has %d bytes, signed are %d", size, l.size)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, l.sha256[:]) {
		return fmt.Errorf("its SHA-256 is %x, signed is %x", got, l.sha256)
	}
	return nil
}

func decompress(r io.Reader, encoding string) (io.Reader, error) {
	switch encoding {
	case ".xz":
		return xz.NewReader(r)
	case ".gz":
		return gzip.NewReader(r)
	}
	return r, nil
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

type countingWriter struct{ n int64 }

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
