package backup

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Finding is one file of a backup directory that is not what it should be.
type Finding struct {
	Path   string // relative to the backup directory
	Reason string
}

// Report is the answer of Verify.
type Report struct {
	Files    int64 // that were read
	Bytes    int64
	Findings []Finding // by path
}

// Verify reads every object that a backup needs, or all backups if id is "",
// and holds it against its name. Errors are those of ctx and of an id that is
// not there; whatever is damaged is a finding.
func (d *Dir) Verify(ctx context.Context, id string, progress Progress) (Report, error) {
	var manifests []Listed
	if id != "" {
		m, err := d.Find(id)
		if err != nil {
			return Report{}, err
		}
		manifests = []Listed{{Manifest: m}}
	} else {
		all, err := d.List()
		if err != nil {
			return Report{}, err
		}
		manifests = all
	}
	v := verifier{d: d, progress: progress, needed: make(map[[sha256.Size]byte]need)}
	for _, m := range manifests {
		v.report.Files++
		if m.Err != nil {
			v.bad(path.Join(manifestsDir, m.ID+suffix), m.Err.Error())
		}
		v.need(m.Manifest)
	}
	err := v.run(ctx)
	slices.SortFunc(v.report.Findings, func(a, b Finding) int { return cmp.Compare(a.Path, b.Path) })
	return v.report, err
}

// need is what an object must be, and for which file.
type need struct {
	size int64
	path string
	id   string
}

type verifier struct {
	d        *Dir
	progress Progress
	needed   map[[sha256.Size]byte]need
	mu       sync.Mutex
	report   Report
}

// need notes the objects of a backup; the newest that has one names it.
func (v *verifier) need(m Manifest) {
	for _, f := range m.Files {
		for _, p := range f.Parts {
			if _, ok := v.needed[p.SHA256]; !ok {
				v.needed[p.SHA256] = need{p.Size, f.Path, m.ID}
			}
		}
	}
}

func (v *verifier) bad(name, reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Findings = append(v.report.Findings, Finding{name, reason})
}

func (v *verifier) run(ctx context.Context) error {
	var total int64
	for _, n := range v.needed {
		total += n.size
	}
	v.progress.Total(total, "bytes")
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for sum, n := range v.needed {
		group.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			v.object(sum, n)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

func (v *verifier) object(want [sha256.Size]byte, n need) {
	sum, size, err := hashFile(v.d.objectPath(want))
	v.progress.Add(size)
	v.mu.Lock()
	v.report.Files++
	v.report.Bytes += size
	v.mu.Unlock()
	name := path.Join(objectsDir, hexOf(want)[:2], hexOf(want))
	who := fmt.Sprintf("backup %s needs it for %s", n.id, n.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.bad(name, "is missing; "+who)
	case err != nil:
		v.bad(name, fmt.Sprintf("cannot be read: %v; %s", err, who))
	case size != n.size:
		v.bad(name, fmt.Sprintf("has %d bytes instead of %d; %s", size, n.size, who))
	case sum != want:
		v.bad(name, fmt.Sprintf("has the SHA-256 %s; %s", hexOf(sum), who))
	}
}

// hexOf is how an object is called.
func hexOf(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }
