package mirror

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// memory is the directory in which a mirror keeps what must outlive an update:
//
//	InRelease-<suite>-<16 hex>  the one accepted last, of each suite of each URL
//	selection                   what the mirror was selected from, and what it held then
//	indices/<sha256>            the index files of the last look at upstream, as downloaded
//	packages/<sha256>           .debs of an update that has not ended
type memory struct{ dir string }

func (m memory) indices() downloads  { return downloads{filepath.Join(m.dir, "indices")} }
func (m memory) packages() downloads { return downloads{filepath.Join(m.dir, "packages")} }

// accepted is where the InRelease of a suite is kept, so that nobody can move
// a mirror back by showing it an old one, whose signature stays good for ever.
func (m memory) accepted(s release.MirrorSuite) string {
	sum := sha256.Sum256([]byte(s.URL + "\n" + s.Suite))
	return filepath.Join(m.dir, fmt.Sprintf("InRelease-%s-%x", strings.ReplaceAll(s.Suite, "/", "_"), sum[:8]))
}

// adopt gives the InRelease that was kept while mirrors had one suite to the
// first one.
func (m memory) adopt(first release.MirrorSuite) error {
	err := os.Rename(filepath.Join(m.dir, "InRelease"), m.accepted(first))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the release accepted before: %w", err)
	}
	return nil
}

// refuseOlder fails if r is older than the release of its suite that was
// accepted before.
func (m memory) refuseOlder(r inRelease) error {
	path := m.accepted(r.up.suite)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the release accepted before: %w", err)
	}
	for line := range bytes.Lines(raw) {
		value, isDate := bytes.CutPrefix(line, []byte("Date:"))
		if !isDate {
			continue
		}
		before, err := parseTime(strings.TrimSpace(string(value)))
		if err != nil {
			return fmt.Errorf("cannot read the release accepted before, %s: its Date: %w", path, err)
		}
		if r.date.Before(before) {
			return fmt.Errorf("cannot accept %s: it is of %s and older than the one of %s accepted before; to go back on purpose, remove %s",
				r.url, r.date.Format(time.RFC3339), before.Format(time.RFC3339), path)
		}
		return nil
	}
	return fmt.Errorf("cannot read the release accepted before, %s: it has no Date", path)
}

// accept keeps releases as those that their suites may not go behind.
func (m memory) accept(releases []inRelease) error {
	for _, r := range releases {
		path := m.accepted(r.up.suite)
		if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, r.raw) {
			continue
		}
		if err := atomicfile.Write(path, r.raw, 0o644); err != nil {
			return fmt.Errorf("cannot keep the accepted release: %w", err)
		}
	}
	return nil
}

// outcome says from what a mirror was selected, and what it held afterwards.
// While both are still so, another update could change nothing.
type outcome struct {
	Basis   snapshots.ID `json:"basis"`   // see basisOf
	Content snapshots.ID `json:"content"` // see contentOf
}

// outcome returns what was kept last. Without it an update only costs more, so
// what cannot be read is as good as nothing.
func (m memory) outcome() outcome {
	var s outcome
	raw, err := os.ReadFile(filepath.Join(m.dir, "selection"))
	if err != nil || json.Unmarshal(raw, &s) != nil {
		return outcome{}
	}
	return s
}

func (m memory) keepOutcome(s outcome) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(m.dir, "selection"), append(raw, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot keep what the mirror was selected from: %w", err)
	}
	return nil
}

// basisOf identifies everything that decides what is selected: the wishes, the
// architectures, and the indices, which name all else. The Date of an
// InRelease is none of it: Debian signs the same indices anew several times a
// day.
func basisOf(config release.MirrorConfig, architectures []string, indices []index) (snapshots.ID, error) {
	sum := sha256.New()
	write := json.NewEncoder(sum)
	for _, part := range []any{selectionRules, config, architectures} {
		if err := write.Encode(part); err != nil {
			return snapshots.ID{}, err
		}
	}
	for _, ix := range indices {
		fmt.Fprintf(sum, "%d %s %s %x\n", ix.release.up.position, ix.architecture, ix.path, ix.packed.sha256)
	}
	return snapshots.ID(sum.Sum(nil)), nil
}

// selectionRules grows when the same upstream would be selected from otherwise.
const selectionRules = 1

// contentOf identifies what a component holds in a state.
func contentOf(state snapshots.State, component string, architectures []string) snapshots.ID {
	sum := sha256.New()
	for _, architecture := range architectures {
		fmt.Fprintln(sum, architecture)
		for _, chunk := range state.Index(snapshots.Key{Component: component, Architecture: architecture}).Chunks {
			fmt.Fprintln(sum, chunk.ID)
		}
	}
	return snapshots.ID(sum.Sum(nil))
}
