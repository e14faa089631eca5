package publish

import (
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"aptfleet/snapshots"
)

// Published returns the signed files that lie in a directory of a pipeline. An
// error says that one is missing, or has no good signature.
func (p *Publisher) Published(base Base, dir string) (Signed, error) {
	signed, err := p.published(baseAt(base, dir))
	if err == nil {
		err = p.verify(signed)
	}
	if err != nil {
		return Signed{}, fmt.Errorf("cannot read what is published as %s of %s: %w", dir, base.Pipeline, err)
	}
	return signed, nil
}

// Modified returns when the InRelease in a directory of a pipeline says it was
// modified, to the second; the zero time if there is none.
func (p *Publisher) Modified(base Base, dir string) time.Time {
	info, err := os.Lstat(p.tree.path(path.Join(baseAt(base, dir).dists, inReleaseFile)))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC().Truncate(time.Second)
}

// PublishedParts returns what there is of the signed files in a directory of a
// pipeline, good or not.
func (p *Publisher) PublishedParts(base Base, dir string) (signed Signed) {
	at := baseAt(base, dir)
	for name, target := range map[string]*[]byte{releaseFile: &signed.Text, inReleaseFile: &signed.InRelease, gpgFile: &signed.Gpg} {
		if content, err := os.ReadFile(p.tree.path(path.Join(at.dists, name))); err == nil {
			*target = content
		}
	}
	return signed
}

// ReleaseFields are the fields of a Release text that say what it is of.
type ReleaseFields struct {
	Pipeline   string // Label
	State      snapshots.ID
	Snapshot   string
	Snapshots  string // URL
	Date       time.Time
	ValidUntil time.Time // zero: for ever
}

// ParseRelease reads them. A field that is absent or makes no sense is zero.
func ParseRelease(text []byte) (f ReleaseFields) {
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "Label":
			f.Pipeline = value
		case "Aptfleet-State":
			f.State, _ = snapshots.ParseID(value)
		case "Aptfleet-Snapshot":
			f.Snapshot = value
		case "Snapshots":
			f.Snapshots = value
		case "Date":
			f.Date, _ = time.Parse(dateFormat, value)
		case "Valid-Until":
			f.ValidUntil, _ = time.Parse(dateFormat, value)
		}
	}
	return f
}
