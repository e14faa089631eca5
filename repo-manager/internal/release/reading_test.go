package release_test

import (
	encoding "encoding/hex"
	"fmt"
	"testing"

	"aptfleet/repo-manager/internal/release"
)

// A pipeline is as private as somebody said last, also for who opens it anew.
func TestSetPrivate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		private := func() bool {
			t.Helper()
			p, err := w.Pipeline(ctx, "demo")
			must(t, err)
			if p.Private != w.HasPrivate() {
				t.Errorf("demo is private: %v, any pipeline: %v", p.Private, w.HasPrivate())
			}
			return p.Private
		}
		if private() {
			t.Error("a new pipeline is private although nobody said so")
		}
		for _, want := range []bool{true, true, false, true} {
			p, err := w.SetPrivate(ctx, ann, "demo", want)
			must(t, err)
			if p.Private != want || private() != want {
				t.Errorf("set to %v it is %v", want, p.Private)
			}
		}
		w.close()
		w.open()
		if !private() {
			t.Error("after a restart it is public")
		}
		acts, err := w.Acts(ctx, "demo", 0)
		must(t, err)
		said := ""
		for _, a := range acts {
			if a.Verb == "set" {
				said += a.Detail + " "
			}
		}
		if said != "private public private " {
			t.Errorf("the audit trail has %q", said)
		}
		_, err = w.SetPrivate(ctx, ann, "none", true)
		wantCode(t, err, release.NotFound)
		must(t, func() error {
			_, err := w.SetPrivate(ctx, ann, "demo", false)
			return err
		}())
		made, err := w.CreatePipeline(ctx, ann, release.Pipeline{Name: "own", Distribution: "trixie", Architectures: []string{"amd64"}, Private: true})
		if err != nil || !made.Private || !w.HasPrivate() {
			t.Errorf("made private it is %+v, %v", made, err)
		}
		_, err = w.CreatePipeline(ctx, ann, release.Pipeline{Name: "ca.pem", Distribution: "trixie", Architectures: []string{"amd64"}})
		wantCode(t, err, release.Invalid)
	})
}

// A pipeline lists what any of its states has, from whatever base it is asked,
// and nothing of another.
func TestLists(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.retain(1, 0)
		sums := map[string][32]byte{}
		for _, version := range []string{"1", "2", "3"} {
			for i := range 8 {
				must(t, func() error { _, err := w.add(fmt.Sprintf("lib%d", i), version, "all"); return err }())
			}
			up, err := w.add("app", version, "amd64")
			must(t, err)
			raw, err := encoding.DecodeString(up.SHA256)
			must(t, err)
			sums[version] = [32]byte(raw)
			if version == "1" {
				_, err := w.CreateSnapshot(ctx, ann, "demo", "", "first", nil)
				must(t, err)
				w.promote("dev", "canary")
			}
		}
		_, err := w.CreatePipeline(ctx, ann, release.Pipeline{Name: "other", Distribution: "trixie", Architectures: []string{"amd64"}})
		must(t, err)
		lists := func(pipeline, base, name string, sum [32]byte) bool {
			t.Helper()
			found, err := w.Lists(ctx, pipeline, base, name, sum)
			must(t, err)
			return found
		}
		for version, sum := range sums {
			for _, base := range []string{"dev", "canary", "production", "snapshots/none", "states/" + w.stage("dev").Offer.State.String(), ""} {
				if !lists("demo", base, "app", sum) {
					t.Errorf("from %q demo does not list version %s", base, version)
				}
				for name, found := range map[string]bool{
					"other":   lists("other", base, "app", sum),
					"a name":  lists("demo", base, "lib1", sum),
					"no name": lists("demo", base, "", sum),
					"a sum":   lists("demo", base, "app", [32]byte{1}),
				} {
					if found {
						t.Errorf("from %q %s lists version %s", base, name, version)
					}
				}
			}
		}
		hour()
		w.gc(false)
		if lists("demo", "dev", "app", sums["2"]) || !lists("demo", "dev", "app", sums["1"]) || !lists("demo", "dev", "app", sums["3"]) {
			t.Error("after a gc demo lists what is gone, or not what stays")
		}
		_, err = w.Lists(ctx, "none", "dev", "app", sums["1"])
		wantCode(t, err, release.NotFound)
	})
}
