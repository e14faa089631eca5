package mirror

import (
	"bufio"
	"bytes"
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

	"aptfleet/internal/deb"
)

// maxWindow bounds in bytes what unpacking an index may take.
const maxWindow = 64 << 20

// index is one Packages file of upstream, with where its bytes are.
type index struct {
	release      *inRelease
	architecture string // whose packages it is read for
	path         string // below dists/<suite>, without the ending of a compression
	listed
	packed   listed // as it is downloaded
	encoding string // ".xz", ".zst", ".gz" or ""
}

// name is the path of the index below the archive.
func (ix index) name() string {
	return "dists/" + ix.release.up.suite.Suite + "/" + ix.path + ix.encoding
}

func (ix index) fail(err error) error {
	return fmt.Errorf("cannot read index %s: %w", ix.release.up.url(ix.name()), err)
}

// indices finds the Packages files of an architecture, one a component, and
// those of architecture all where the archive keeps them apart.
func (r *inRelease) indices(architecture string) ([]index, error) {
	var all []index
	for _, component := range r.up.suite.Components {
		if err := localPath(component); err != nil {
			return nil, fmt.Errorf("cannot mirror component %q: %w", component, err)
		}
		found, ok := r.index(component, architecture, architecture)
		if !ok {
			return nil, fmt.Errorf("cannot find the packages of %s/binary-%s: %s does not list them (architectures %s, components %s)",
				component, architecture, r.url, r.fields.Get("Architectures"), r.fields.Get("Components"))
		}
		all = append(all, found)
		if !r.separatesAll() {
			continue
		}
		if found, ok := r.index(component, "all", architecture); ok {
			all = append(all, found)
		}
	}
	return all, nil
}

// separatesAll tells whether packages for all architectures are to be read from
// binary-all. Like apt we look there only if the release names the architecture
// all, and does not say that binary-<arch> repeats it: Debian lists the files
// in any case, and need not keep them up to date.
func (r *inRelease) separatesAll() bool {
	architectures := strings.Fields(r.fields.Get("Architectures"))
	return (len(architectures) == 0 || slices.Contains(architectures, "all")) &&
		!slices.Contains(strings.Fields(r.fields.Get("No-Support-for-Architecture-all")), "Packages")
}

// index finds one Packages file, which is to be read for an architecture.
func (r *inRelease) index(component, binary, architecture string) (index, bool) {
	found := index{release: r, architecture: architecture, path: component + "/binary-" + binary + "/Packages"}
	plain, isListed := r.files[found.path]
	for _, encoding := range []string{".xz", ".zst", ".gz", ""} {
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

// fetch brings an index into the store, with the signed bytes: by their hash
// where the archive offers that, so that an archive in the middle of its own
// publication cannot mix two, else by name. What is there already is not
// downloaded again.
func (ix index) fetch(ctx context.Context, store downloads, progress Progress) error {
	if ix.size > maxIndex || ix.packed.size > maxIndex {
		return ix.fail(fmt.Errorf("it is larger than %d bytes", maxIndex))
	}
	names := []string{ix.name()}
	if ix.release.byHash {
		names = slices.Insert(names, 0, fmt.Sprintf("%s/by-hash/SHA256/%x", path.Dir(ix.name()), ix.packed.sha256))
	}
	var err error
	for _, name := range names {
		err = ix.release.up.retry(ctx, func() error {
			return ix.release.up.bring(ctx, store.path(ix.packed), name, ix.packed, progress)
		})
		if !errors.Is(err, errNotFound) {
			break
		}
	}
	if err != nil {
		return ix.fail(err)
	}
	return nil
}

// read checks an index that was fetched and passes its stanzas to add, which
// therefore sees data that turns out bad at the end: the caller must forget
// it all on an error.
func (ix index) read(ctx context.Context, store downloads, add func(deb.Stanza) error) error {
	file, err := os.Open(store.path(ix.packed))
	if err != nil {
		return ix.fail(err)
	}
	defer file.Close()
	plain, err := deb.Decompress(bufio.NewReaderSize(file, 1<<16), ix.encoding, maxWindow)
	if err != nil {
		return ix.fail(err)
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
			return ix.fail(err)
		}
	}
	if counted.n > ix.size {
		return ix.fail(fmt.Errorf("it unpacks to more than the %d bytes that the signed release promises", ix.size))
	}
	if ix.sha256 != ([32]byte{}) {
		if err := ix.check(sum, counted.n); err != nil {
			return ix.fail(err)
		}
	}
	return nil
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

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
