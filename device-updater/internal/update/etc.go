package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/internal/atomicfile"
)

// Etc is what became of the local changes of /etc when a deployment was made.
// Paths are below /etc.
type Etc struct {
	Deployment int              `json:"deployment"`
	At         time.Time        `json:"at"`
	Taken      []string         `json:"taken"` // carried over; at most keepPaths of them
	Left       int              `json:"left,omitempty"`
	Conflicts  []merge.Conflict `json:"conflicts"`
}

// etcReport is the record of what a merge did, etcFiles the list of what /etc held
// then.
func etcReport(n int) string { return "etc/" + strconv.Itoa(n) + ".json" }
func etcFiles(n int) string  { return "etc/" + strconv.Itoa(n) + ".files" }

// keepPaths bounds the lists of paths that are kept.
const keepPaths = 500

// Etc returns the record of deployment n, and whether there is one: a deployment
// of the factory has none.
func (r Records) Etc(n int) (Etc, bool, error) {
	var e Etc
	err := r.read(etcReport(n), &e)
	return e, e.Deployment != 0, err
}

// PutEtc keeps what a merge did.
func (r Records) PutEtc(n int, result merge.Result, at time.Time) error {
	if err := atomicfile.Write(r.path(etcFiles(n)), result.Manifest, 0o600); err != nil {
		return fmt.Errorf("cannot keep the list of /etc: %w", err)
	}
	e := Etc{Deployment: n, At: at, Taken: []string{}, Conflicts: []merge.Conflict{}}
	e.Taken = append(e.Taken, result.Taken[:min(keepPaths, len(result.Taken))]...)
	e.Left = len(result.Taken) - len(e.Taken)
	e.Conflicts = append(e.Conflicts, result.Conflicts[:min(keepPaths, len(result.Conflicts))]...)
	return r.write(etcReport(n), e)
}

// KeptEdits are changes of /etc that somebody made in a deployment while it was
// on trial, before the device went back. Copies of the files lie in Files.
type KeptEdits struct {
	Deployment int       `json:"deployment"`
	At         time.Time `json:"at"`
	Files      string    `json:"files"` // directory
	Changed    []string  `json:"changed"`
	Deleted    []string  `json:"deleted"`
	Left       int       `json:"left,omitempty"` // changed files of which there is no copy: they were too big
}

const (
	keepEdits    = 3        // of how many trials
	keepEditSize = 16 << 20 // bytes of copies, for each
)

// KeptEdits returns those that are kept, oldest first. Who has seen to them
// deletes the directory.
func (r Records) KeptEdits() ([]KeptEdits, error) {
	numbers, err := r.keptNumbers()
	if err != nil {
		return nil, err
	}
	var all []KeptEdits
	for _, n := range numbers {
		k := KeptEdits{}
		if err := r.read(editsName(n)+"/edits.json", &k); err != nil {
			return nil, err
		}
		if k.Deployment == n {
			all = append(all, k)
		}
	}
	return all, nil
}

func editsName(n int) string { return "edits/" + strconv.Itoa(n) }

func (r Records) keptNumbers() ([]int, error) {
	entries, err := os.ReadDir(r.path("edits"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read records: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// keepEditsOf copies what was changed in etc, the /etc of deployment n, since it
// was merged, and reports whether anything was. It may be repeated.
func (r Records) keepEditsOf(ctx context.Context, n int, etc string, at time.Time) (bool, error) {
	manifest, err := os.ReadFile(r.path(etcFiles(n)))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(manifest) == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	edits, err := merge.FindEdits(ctx, etc, manifest)
	if err != nil || len(edits.Changed)+len(edits.Deleted) == 0 {
		return false, err
	}
	dir := r.path(editsName(n))
	if err := os.RemoveAll(dir); err != nil {
		return false, err
	}
	k := KeptEdits{Deployment: n, At: at, Files: filepath.Join(dir, "etc"), Changed: edits.Changed, Deleted: edits.Deleted}
	if err := os.MkdirAll(k.Files, 0o700); err != nil {
		return false, err
	}
	if k.Left, err = merge.Copy(etc, k.Files, edits.Changed, keepEditSize); err != nil {
		return false, err
	}
	k.Changed, k.Deleted = k.Changed[:min(keepPaths, len(k.Changed))], k.Deleted[:min(keepPaths, len(k.Deleted))]
	if err := r.write(editsName(n)+"/edits.json", k); err != nil {
		return false, err
	}
	numbers, err := r.keptNumbers()
	for _, old := range numbers[:max(0, len(numbers)-keepEdits)] {
		err = errors.Join(err, os.RemoveAll(r.path(editsName(old))))
	}
	return true, err
}

// saveEdits keeps what somebody changed in /etc of a deployment that is given
// up. That it cannot be kept must not keep the device from going back.
func (m *Machine) saveEdits(ctx context.Context, tx journal.Record) error {
	if !m.Roots.Exists(deployment(tx.Deployment)) {
		return nil
	}
	etc := filepath.Join(m.Roots.Path(deployment(tx.Deployment)), "etc")
	kept, err := m.Records.keepEditsOf(ctx, tx.Deployment, etc, m.recordTime())
	if kept && err == nil {
		err = m.Roots.Sync() // before the originals are deleted
	}
	if err != nil {
		return fmt.Errorf("cannot keep the changes of /etc in deployment %d: %w", tx.Deployment, err)
	}
	return nil
}
