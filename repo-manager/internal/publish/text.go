package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"aptfleet/snapshots"
)

// origin is the Origin field of every Release file.
const origin = "Aptfleet"

// Meta is what a Release text says beside its base and its state.
type Meta struct {
	Suite      string    // the stage; "" for fixed bases
	Snapshot   string    // the snapshot's id, or ""
	Date       time.Time // of the publication, to the second
	ValidUntil time.Time // zero: for ever
	Modified   time.Time // modification time of the signed files; zero: Date. Not part of the text
	Snapshots  string    // URL where apt finds snapshots, with @SNAPSHOTID@; or ""
}

// ReleaseText returns the Release text of a state below base, and makes the
// index files that it lists. The text depends on the arguments alone. Its
// fields, in order (the format is that of Debian's repository, see
// https://wiki.debian.org/DebianRepository/Format):
//
//	Origin Label Suite Codename Date Valid-Until Acquire-By-Hash Architectures
//	Components Aptfleet-State Aptfleet-Snapshot Snapshots SHA256
//
// Suite, Valid-Until, Aptfleet-Snapshot and Snapshots are left out where they
// are empty. Every declared component × architecture has its three index
// entries, sorted, be it empty or not in the state at all.
func (p *Publisher) ReleaseText(ctx context.Context, base Base, state snapshots.State, meta Meta) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, _, err := p.releaseText(ctx, base, state, meta)
	return text, err
}

// named is an index under its place in a base.
type named struct {
	dir string // <component>/binary-<architecture>
	key IndexKey
	sums
}

func (p *Publisher) releaseText(ctx context.Context, base Base, state snapshots.State, meta Meta) ([]byte, []named, error) {
	indices, err := p.indices(ctx, base, state)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write Release of %s: %w", base.Pipeline, err)
	}
	text, err := releaseText(base, state.ID(), meta, indices)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write Release of %s: %w", base.Pipeline, err)
	}
	return text, indices, nil
}

// indices makes the files of every declared index.
func (p *Publisher) indices(ctx context.Context, base Base, state snapshots.State) ([]named, error) {
	if err := base.validate(); err != nil {
		return nil, err
	}
	keys := base.keys()
	for _, key := range state.Keys() {
		if !slices.Contains(keys, key) && state.Index(key).Count() > 0 {
			return nil, fmt.Errorf("the state has packages in %s, which the pipeline does not declare", key)
		}
	}
	var indices []named
	for _, key := range keys {
		k, s, err := p.index(ctx, base.Pipeline+" "+key.String(), state.Index(key))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		indices = append(indices, named{dir: indexDir(key), key: k, sums: s})
	}
	return indices, nil
}

func indexDir(key snapshots.Key) string {
	return path.Join(key.Component, "binary-"+key.Architecture)
}

// releaseText writes the fields; it is a function of its arguments.
func releaseText(base Base, state snapshots.ID, meta Meta, indices []named) ([]byte, error) {
	var text bytes.Buffer
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&text, "%s: %s\n", name, value)
		}
	}
	field("Origin", origin)
	field("Label", base.Pipeline)
	field("Suite", meta.Suite)
	field("Codename", base.Distribution)
	field("Date", releaseDate(meta.Date))
	if !meta.ValidUntil.IsZero() {
		field("Valid-Until", releaseDate(meta.ValidUntil))
	}
	field("Acquire-By-Hash", "yes")
	field("Architectures", words(base.Architectures))
	field("Components", words(base.Components))
	field("Aptfleet-State", state.String())
	field("Aptfleet-Snapshot", meta.Snapshot)
	field("Snapshots", meta.Snapshots)
	if strings.ContainsAny(meta.Suite+meta.Snapshot+meta.Snapshots, "\n\r \t") {
		return nil, fmt.Errorf("stage %q, snapshot %q or URL %q holds white space", meta.Suite, meta.Snapshot, meta.Snapshots)
	}
	text.WriteString(section(indices))
	return text.Bytes(), nil
}

// section returns the last field of a Release text: the index files.
func section(indices []named) string {
	var b strings.Builder
	b.WriteString("SHA256:\n")
	if len(indices) == 0 {
		// apt refuses a Release file without any entry. This one names an
		// empty file that no source asks for.
		fmt.Fprintf(&b, " %x 0 Packages\n", sha256.Sum256(nil))
	}
	for _, index := range indices {
		b.WriteString(index.lines(index.dir))
	}
	return b.String()
}

// dateFormat is a time as apt reads it: RFC 1123 in UTC, to the second.
const dateFormat = "Mon, 02 Jan 2006 15:04:05 UTC"

func releaseDate(t time.Time) string { return t.UTC().Format(dateFormat) }

// dateOf reads the Date field of a Release text.
func dateOf(text []byte) (time.Time, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Date: "); ok {
			return time.Parse(dateFormat, strings.TrimSuffix(value, "\n"))
		}
	}
	return time.Time{}, fmt.Errorf("cannot read Release: it has no Date")
}

// words joins names, sorted and without repetition.
func words(names []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), " ")
}
