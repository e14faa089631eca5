package publish

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"aptfleet/snapshots"
)

// poolFileOf returns the pool file that a finding is about.
func (c *checker) poolFileOf(name string) (filename string, file pooled, ok bool) {
	filename, ok = strings.CutPrefix(name, c.p.publicPrefix())
	if ok {
		file, ok = c.pool[filename]
	}
	return filename, file, ok
}

// maxNeedingStates is how many bases of states a finding names: a rolling
// repository has thousands.
const maxNeedingStates = 10

// needers finds out which bases need the pool files that are bad.
func (c *checker) needers(ctx context.Context) error {
	bad := make(map[string]string) // by the field Filename: the finding
	for name := range c.found {
		if filename, _, ok := c.poolFileOf(name); ok {
			bad[filename] = name
		}
	}
	if len(bad) == 0 {
		return nil
	}
	holds := make(map[snapshots.ID][]string) // by chunk: findings
	for id, ref := range c.chunks {
		packages, err := snapshots.OpenChunk(ctx, c.p.blobs, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue // the chunk has a finding of its own
		}
		for _, p := range packages {
			if name, ok := bad[p.Filename]; ok {
				holds[id] = append(holds[id], name)
			}
		}
	}
	for _, base := range c.expect.Bases {
		state, err := snapshots.Load(ctx, c.p.blobs, base.State)
		if err != nil {
			continue
		}
		root := baseAt(base.Base, base.Dir).root
		for _, key := range state.Keys() {
			for _, ref := range state.Index(key).Chunks {
				for _, name := range holds[ref.ID] {
					f := c.found[name]
					if n := len(f.needed); n == 0 || f.needed[n-1] != root {
						f.needed = append(f.needed, root)
						c.found[name] = f
					}
				}
			}
		}
	}
	return nil
}

// finding makes a Finding for people.
func (c *checker) finding(name string, f finding) Finding {
	made := Finding{Path: name, Reason: f.reason}
	filename, file, ok := c.poolFileOf(name)
	if !ok {
		return made
	}
	made.SHA256 = fmt.Sprintf("%x", file.sum)
	made.NeededBy = inOrder(f.needed)
	made.Restore = fmt.Sprintf("repo-manager package restore FILE, where FILE is %s of %d bytes with the SHA-256 %x", filename[strings.LastIndex(filename, "/")+1:], file.size, file.sum)
	return made
}

// inOrder puts stages before snapshots before states, and leaves out states
// beyond a number.
func inOrder(roots []string) []string {
	rank := func(root string) int {
		switch {
		case strings.Contains(root, "/states/"):
			return 2
		case strings.Contains(root, "/snapshots/"):
			return 1
		}
		return 0
	}
	slices.SortFunc(roots, func(a, b string) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b)) })
	if first := slices.IndexFunc(roots, func(root string) bool { return rank(root) == 2 }); first >= 0 && len(roots) > first+maxNeedingStates {
		roots = roots[:first+maxNeedingStates]
	}
	return roots
}
