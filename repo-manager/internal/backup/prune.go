package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"aptfleet/internal/atomicfile"
	"aptfleet/repo-manager/internal/release"
)

// Pruned is what Prune removed, or would.
type Pruned struct {
	IDs     []string // of backups, oldest first
	Objects int
	Bytes   int64
}

// Prune removes all but the newest keep backups and every object that those
// do not need; with dryRun it only tells. Manifests go first, so a crash
// leaves objects that the next Prune removes.
func Prune(ctx context.Context, dir string, keep int, dryRun bool) (p Pruned, err error) {
	if keep < 1 {
		return Pruned{}, &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot keep %d backups: want at least 1", keep)}
	}
	d, err := openToChange(dir)
	if err != nil {
		return Pruned{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ids, err := d.ids()
	if err != nil {
		return Pruned{}, err
	}
	p.IDs = ids[:max(0, len(ids)-keep)]
	needed := make(map[[sha256.Size]byte]bool)
	for _, id := range ids[len(p.IDs):] {
		m, err := d.read(id)
		if err != nil {
			return Pruned{}, &release.Error{
				Code: release.Conflict, Text: fmt.Sprintf("cannot prune %s: it is not known which objects backup %s needs: %v", dir, id, err),
				Hint: "if that backup is given up, remove " + d.manifestPath(id) + " by hand",
			}
		}
		for sum := range m.objects() {
			needed[sum] = true
		}
	}
	there, err := d.objects()
	if err != nil {
		return Pruned{}, fmt.Errorf("cannot list objects: %w", err)
	}
	var unneeded []string
	for sum, size := range there {
		if !needed[sum] {
			unneeded = append(unneeded, d.objectPath(sum))
			p.Objects++
			p.Bytes += size
		}
	}
	if dryRun {
		return p, nil
	}
	for _, id := range p.IDs {
		if err := os.Remove(d.manifestPath(id)); err != nil {
			return Pruned{}, fmt.Errorf("cannot remove backup %s: %w", id, err)
		}
	}
	if err := atomicfile.SyncDir(filepath.Join(dir, manifestsDir)); err != nil {
		return Pruned{}, err
	}
	for _, path := range unneeded {
		if err := ctx.Err(); err != nil {
			return Pruned{}, err
		}
		if err := os.Remove(path); err != nil {
			return Pruned{}, fmt.Errorf("cannot remove object: %w", err)
		}
	}
	return p, nil
}
