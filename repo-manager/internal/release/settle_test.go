package release

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// What settle keeps and gives up, for any sequence of uploads.
func TestSettle(t *testing.T) {
	architectures := []string{"amd64", "arm64"}
	shown := func(packages []snapshots.Package, architecture string) (list []snapshots.Package) {
		for _, p := range packages {
			if share(architecture, p.Architecture) {
				list = append(list, p)
			}
		}
		return list
	}
	rapid.Check(t, func(r *rapid.T) {
		keep := rapid.IntRange(1, 3).Draw(r, "keep")
		var there []snapshots.Package
		for n := range rapid.IntRange(1, 12).Draw(r, "uploads") {
			fresh := snapshots.Package{
				Name: "app", Version: fmt.Sprintf("%d-%d", rapid.IntRange(1, 9).Draw(r, "version"), n),
				Architecture: rapid.SampledFrom([]string{"amd64", "arm64", "all"}).Draw(r, "architecture"),
			}
			before := there
			kept, gone := settle(architectures, keep, fresh, before)
			if len(kept)+len(gone) != len(before)+1 || kept[0].Ref() != fresh.Ref() {
				r.Fatalf("%d and the new one became %d kept and %d gone", len(before), len(kept), len(gone))
			}
			for _, a := range architectures {
				was, is := shown(before, a), shown(kept, a)
				if len(was) > 0 && len(is) == 0 {
					r.Fatalf("%s had %v and has nothing", a, was)
				}
				if !share(a, fresh.Architecture) {
					continue
				}
				for _, p := range shown(gone, a) {
					higher := 0
					for _, q := range is {
						if q.Ref() != fresh.Ref() && deb.Compare(q.Version, p.Version) > 0 {
							higher++
						}
					}
					if higher < keep-1 {
						r.Fatalf("%s lost %s with %d higher ones besides the new one, keep is %d", a, p.Ref(), higher, keep)
					}
				}
				if len(gone) > 0 && keep > 1 && len(is) < 2 && len(was) > 0 && !slices.ContainsFunc(was, func(p snapshots.Package) bool { return p.Architecture == "all" }) {
					r.Fatalf("%s keeps %d of %d although keep is %d", a, len(is), len(was)+1, keep)
				}
			}
			there = kept
		}
	})
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		arrivals []string
		want     string
	}{
		{[]string{"a"}, "a"},
		{[]string{"a", "b", "c"}, "a, b, c"},
		{[]string{"a", "b", "c", "d", "e"}, "a, b, c and 2 more"},
	} {
		if got := summary(c.arrivals); got != c.want {
			t.Errorf("summary of %v is %q, want %q", c.arrivals, got, c.want)
		}
	}
}
