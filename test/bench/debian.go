package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"

	"aptfleet/internal/deb"
	"aptfleet/test/debian"
)

// fromDebian returns packages with the real stanzas of all packages that
// Debian's trixie has in main for amd64, and contents of ours: names, versions,
// relations and sizes of an index are those of a release.
func fromDebian(ctx context.Context, as members, cache string, workers int) (*corpus, error) {
	fail := func(err error) (*corpus, error) { return nil, fmt.Errorf("cannot use Debian's packages: %w", err) }
	mirror, _, err := debian.Mirror()
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fail(err)
	}
	file := filepath.Join(cache, "Packages.gz")
	_, err = new(runner).run(ctx, "/", "/usr/lib/apt/apt-helper", "download-file", mirror+"/dists/trixie/main/binary-amd64/Packages.gz", file)
	if err != nil {
		return fail(err)
	}
	packed, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	// Some fifty megabytes that stay on the disk: a child's peak of memory is
	// at least ours.
	text, err := os.CreateTemp(cache, ".stanzas-")
	if err != nil {
		return fail(err)
	}
	if err := os.Remove(text.Name()); err != nil {
		return fail(errors.Join(err, text.Close()))
	}
	ends, err := copyStanzas(text, packed)
	if err != nil {
		return fail(errors.Join(err, text.Close()))
	}
	c := &corpus{label: as.label("trixie"), count: len(ends) - 1, as: as, close: text.Close, stanza: func(i int) (deb.Stanza, error) {
		stanza := make([]byte, ends[i+1]-ends[i])
		if _, err := text.ReadAt(stanza, ends[i]); err != nil {
			return deb.Stanza{}, err
		}
		return deb.ParseStanza(stanza)
	}}
	if err := c.fill(ctx, cache, fmt.Sprintf("trixie %x", sha256.Sum256(packed)), workers); err != nil {
		return fail(errors.Join(err, text.Close()))
	}
	return c, nil
}

// copyStanzas writes the control stanzas of an index to w, one for each name,
// and returns the offset at which each begins, and the end of the last.
func copyStanzas(w io.Writer, packed []byte) (offsets []int64, err error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	offsets = []int64{0}
	known := make(map[string]bool)
	out := bufio.NewWriter(w)
	for r := deb.NewStanzaReader(unpacked, deb.MaxStanza); ; {
		stanza, err := r.Next()
		if errors.Is(err, io.EOF) {
			return offsets, out.Flush()
		}
		if err != nil {
			return nil, err
		}
		name := stanza.Get("Package")
		if known[name] {
			continue
		}
		known[name] = true
		for _, field := range []string{"Filename", "Size", "MD5sum", "SHA1", "SHA256"} {
			stanza = stanza.Without(field)
		}
		n, err := out.Write(stanza.Bytes())
		if err != nil {
			return nil, err
		}
		offsets = append(offsets, offsets[len(offsets)-1]+int64(n))
	}
}
