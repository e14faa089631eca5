package rig

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
)

// InRelease is what a client knows once it has verified an InRelease file.
type InRelease struct {
	Text    []byte // that is signed
	Date    time.Time
	Indices []IndexFile // those that are served
}

// IndexFile is an entry of an InRelease.
type IndexFile struct {
	Path   string // relative to InRelease, e.g. apps/binary-amd64/Packages.gz
	SHA256 string // hex
	Size   int64  // bytes
}

// ReadInRelease verifies an InRelease with the certificates of keyring.
func ReadInRelease(content, keyring []byte) (InRelease, error) {
	text, _, err := sign.Verify(content, keyring, time.Now())
	if err != nil {
		return InRelease{}, err
	}
	in := InRelease{Text: text}
	for line := range strings.Lines(string(text)) {
		if date, ok := strings.CutPrefix(line, "Date: "); ok {
			if in.Date, err = time.Parse(time.RFC1123, strings.TrimSpace(date)); err != nil {
				return InRelease{}, err
			}
		}
		words := strings.Fields(line)
		if line[0] != ' ' || len(words) != 3 || path.Base(words[2]) == "Packages" {
			continue
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return InRelease{}, err
		}
		in.Indices = append(in.Indices, IndexFile{Path: words[2], SHA256: words[0], Size: size})
	}
	return in, nil
}

// ByHash is where a client finds the file, relative to InRelease.
func (f IndexFile) ByHash() string {
	return path.Join(path.Dir(f.Path), "by-hash", "SHA256", f.SHA256)
}

// Verify tells whether content is what InRelease says.
func (f IndexFile) Verify(content []byte) error {
	if sum := sha256.Sum256(content); int64(len(content)) != f.Size || hex.EncodeToString(sum[:]) != f.SHA256 {
		return fmt.Errorf("the index %s has other bytes than InRelease says", f.Path)
	}
	return nil
}

// Entry is a package of an index.
type Entry struct{ Name, Version, Filename, SHA256 string }

// ReadIndex reads a Packages.gz.
func ReadIndex(content []byte) ([]Entry, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var entries []Entry
	stanzas := deb.NewStanzaReader(unpacked, deb.MaxStanza)
	for {
		stanza, err := stanzas.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{
			Name: stanza.Get("Package"), Version: stanza.Get("Version"), Filename: stanza.Get("Filename"), SHA256: stanza.Get("SHA256"),
		})
	}
}

// ReadBase reads a base of an archive as apt would: its InRelease, the index
// files that this names by their hashes, and the files that they name. fetch
// returns a file by its path relative to the base. Whatever is not there, or
// has other bytes than was said, is an error.
func ReadBase(distribution string, keyring []byte, fetch func(path string) ([]byte, error)) (InRelease, []Entry, error) {
	dists := path.Join("dists", distribution)
	content, err := fetch(path.Join(dists, "InRelease"))
	if err != nil {
		return InRelease{}, nil, err
	}
	in, err := ReadInRelease(content, keyring)
	if err != nil {
		return InRelease{}, nil, fmt.Errorf("InRelease: %w", err)
	}
	var all []Entry
	for _, file := range in.Indices {
		index, err := fetch(path.Join(dists, file.ByHash()))
		if err == nil {
			err = file.Verify(index)
		}
		if err != nil {
			return in, nil, err
		}
		if path.Ext(file.Path) != ".gz" {
			continue
		}
		entries, err := ReadIndex(index)
		if err != nil {
			return in, nil, fmt.Errorf("%s: %w", file.Path, err)
		}
		for _, e := range entries {
			deb, err := fetch(e.Filename)
			if err != nil {
				return in, nil, err
			}
			if sum := sha256.Sum256(deb); hex.EncodeToString(sum[:]) != e.SHA256 {
				return in, nil, fmt.Errorf("%s has other bytes than the index says", e.Filename)
			}
		}
		all = append(all, entries...)
	}
	return in, all, nil
}
