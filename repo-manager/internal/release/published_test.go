package release_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/repo-manager/internal/release"
)

// What a device is told of a release is what lies in the archive, and comes
// from memory until something moves.
func TestOffered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		offered := func(stage string) *release.Published {
			t.Helper()
			p, err := w.Offered(ctx, "demo", stage)
			must(t, err)
			return p
		}
		if p := offered("canary"); p != nil {
			t.Errorf("canary offers %+v", p)
		}
		if _, err := w.Offered(ctx, "demo", "moon"); release.CodeOf(err) != release.NotFound {
			t.Errorf("no such stage: %v", err)
		}
		if _, err := w.Offered(ctx, "nowhere", "dev"); release.CodeOf(err) != release.NotFound {
			t.Errorf("no such pipeline: %v", err)
		}
		_, err := w.add("hello", "1.0", "amd64")
		must(t, err)
		isInArchive := func(p *release.Published) {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(w.dir, "public", p.Base, "dists", p.Distribution, "Release"))
			must(t, err)
			if sum := sha256.Sum256(text); hex(sum) != p.Release {
				t.Errorf("%s has another Release than %+v", p.Base, p)
			}
			if len(p.Components) != 1 || p.Components[0] != "apps" {
				t.Errorf("its components are %q", p.Components)
			}
		}
		one := offered("dev")
		if isInArchive(one); one.Snapshot != "" || one.Base != "demo/states/"+one.State.String() {
			t.Errorf("dev offers %+v", one)
		}
		if again := offered("dev"); again != one {
			t.Error("what did not move is looked up again")
		}
		// A state that gets a name is offered by it.
		_, err = w.Promote(ctx, ann, "demo", "dev", "canary", "fine", nil, false)
		must(t, err)
		named := offered("canary")
		if isInArchive(named); named.State != one.State || named.Base != "demo/snapshots/"+named.Snapshot || offered("dev").Snapshot != named.Snapshot {
			t.Errorf("canary offers %+v, dev %+v", named, offered("dev"))
		}
		_, err = w.add("hello", "2.0", "amd64")
		must(t, err)
		if two := offered("dev"); two.State == one.State || two.Snapshot != "" {
			t.Errorf("after an upload dev offers %+v", two)
		}
		if again := offered("canary"); again != named {
			t.Error("what another stage did makes it another release")
		}
		pinned, err := w.PublishedSnapshot(ctx, "demo", named.Snapshot)
		if must(t, err); pinned != named {
			t.Errorf("the snapshot is %+v", pinned)
		}
		for _, id := range []string{"", "2026", named.Snapshot[:10], "99991231T235959Z"} {
			if _, err := w.PublishedSnapshot(ctx, "demo", id); release.CodeOf(err) != release.NotFound {
				t.Errorf("%q: %v", id, err)
			}
		}
		_, err = w.Undo(ctx, ann, "demo", "canary", "bad", nil)
		if release.CodeOf(err) != release.Refused {
			t.Fatal(err)
		}
		w.close()
		w.open()
		if again := offered("canary"); again.Release != named.Release || again.Base != named.Base {
			t.Errorf("after a restart it is %+v", again)
		}
	})
}
