package merge

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// Edits is what was changed in a tree since it was merged. Paths are below it,
// sorted. What programs make from other files is left out.
type Edits struct {
	Changed []string `json:"changed"` // new, or with other content, mode, owner or attributes
	Deleted []string `json:"deleted"`
}

// FindEdits compares a tree with the Manifest of its merge.
func FindEdits(ctx context.Context, tree string, manifest []byte) (Edits, error) {
	edits := Edits{Changed: []string{}, Deleted: []string{}}
	was, err := rootfs.ReadManifest(bytes.NewReader(manifest))
	if err != nil {
		return edits, err
	}
	var now bytes.Buffer
	if err := rootfs.WriteManifest(ctx, &now, tree, nil); err != nil {
		return edits, err
	}
	is, err := rootfs.ReadManifest(&now)
	if err != nil {
		return edits, err
	}
	for _, path := range slices.Sorted(maps.Keys(is)) {
		rel := strings.TrimPrefix(path, "/")
		if old, ok := was[path]; rel != "" && !isGenerated(rel) && (!ok || old != is[path]) {
			edits.Changed = append(edits.Changed, rel)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(was)) {
		rel := strings.TrimPrefix(path, "/")
		if _, ok := is[path]; !ok && !isGenerated(rel) {
			edits.Deleted = append(edits.Deleted, rel)
		}
	}
	return edits, nil
}

// Copy copies files of a tree into the directory to, with their mode, owner and
// attributes, below the directories that they are in. Files that would make it
// more than limit bytes are left out; it returns how many.
func Copy(tree, to string, paths []string, limit int64) (left int, err error) {
	for _, path := range paths {
		n, err := load(tree, path)
		if err != nil {
			return left, fmt.Errorf("cannot copy %s: %w", path, err)
		}
		if limit -= int64(len(n.content)); limit < 0 {
			limit += int64(len(n.content))
			left++
			continue
		}
		if err := copyTo(tree, to, path, n); err != nil {
			return left, fmt.Errorf("cannot copy %s: %w", path, err)
		}
	}
	return left, nil
}

func copyTo(tree, to, path string, n node) error {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		above, err := load(tree, path[:i])
		if err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(to, path[:i])); err == nil {
			continue
		}
		if above.kind != unix.S_IFDIR {
			return fmt.Errorf("%s is not a directory", path[:i])
		}
		if err := above.write(to, path[:i]); err != nil {
			return err
		}
	}
	if n.kind == absent {
		return nil
	}
	return n.write(to, path)
}
