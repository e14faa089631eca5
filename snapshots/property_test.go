package snapshots

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Names are drawn so that borders are frequent: every third of them begins a
// chunk; and one name has versions enough for borders inside its run.
var borderNames, plainNames = func() (border, plain []string) {
	for i := 0; len(border) < 20; i++ {
		name := fmt.Sprintf("name%d", i)
		if isBorder(name) {
			border = append(border, name)
		} else if len(plain) < 40 {
			plain = append(plain, name)
		}
	}
	return border, plain
}()

// runBorders are versions of the package "run" that can be borders inside its
// run, runPlain others.
var runBorders, runPlain = func() (border, plain []string) {
	for i := 0; len(border) < 12; i++ {
		if version := fmt.Sprint(i); isBorder("run " + version) {
			border = append(border, version)
		} else if i%25 == 0 {
			plain = append(plain, version)
		}
	}
	return border, plain
}()

func genRef(t *rapid.T) Ref {
	r := Ref{
		Name:         rapid.SampledFrom(slices.Concat(borderNames, plainNames)).Draw(t, "name"),
		Version:      rapid.SampledFrom([]string{"1", "1.0", "1.00", "1:0", "2~rc1", "2", "10"}).Draw(t, "version"),
		Architecture: rapid.SampledFrom([]string{"all", "amd64", "arm64"}).Draw(t, "arch"),
	}
	switch rapid.IntRange(0, 7).Draw(t, "run") {
	case 0:
		r.Name, r.Version = "run", rapid.SampledFrom(runBorders).Draw(t, "border")
	case 1:
		r.Name, r.Version = "run", fmt.Sprint(rapid.IntRange(0, 9000).Draw(t, "n"))
	}
	return r
}

func genPackage(t *rapid.T) Package {
	r := genRef(t)
	p, err := ParsePackage(stanzaOf(r.Name, r.Version, r.Architecture, rapid.SampledFrom([]string{"", "x"}).Draw(t, "note")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var testKeys = []Key{{"apps", "amd64"}, {"apps", "arm64"}, {"base", "amd64"}}

// filler makes a state of so many chunks that edits leave most of them alone.
// It has a long run of versions of one name.
func filler(t testing.TB, c Chunks) State {
	ctx := context.Background()
	var puts []Package
	for _, name := range slices.Concat(borderNames, plainNames) {
		puts = append(puts, pkg(t, name, "1", "amd64"))
	}
	for _, version := range slices.Concat(runBorders, runPlain) {
		puts = append(puts, pkg(t, "run", version, "amd64"))
	}
	s := must[State](t)(New(ctx, c, testKeys))
	return must[State](t)(Apply(ctx, c, s, Edit{Component: "apps", Put: puts}))
}

func genEdits(t *rapid.T, from []Ref) []Edit {
	edits := make([]Edit, rapid.IntRange(0, 3).Draw(t, "edits"))
	for i := range edits {
		edits[i].Component = "apps"
		edits[i].Put = rapid.SliceOfN(rapid.Custom(genPackage), 0, 12).Draw(t, "put")
		edits[i].Remove = rapid.SliceOfN(rapid.Custom(genRef), 0, 12).Draw(t, "remove")
		if len(from) > 0 {
			edits[i].Remove = append(edits[i].Remove, rapid.SliceOfN(rapid.SampledFrom(from), 0, 12).Draw(t, "known")...)
		}
	}
	return edits
}

// refsOf lists what can be removed, the first packages of chunks more often.
func refsOf(t testing.TB, c Chunks, s State) []Ref {
	var refs []Ref
	for _, key := range s.Keys() {
		for p, err := range All(context.Background(), c, s, key) {
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, p.Ref())
		}
		for _, chunk := range s.Index(key).Chunks {
			for range 10 {
				refs = append(refs, chunk.First)
			}
		}
	}
	return refs
}

// rebuilt returns the state with the content of s, built in one go.
func rebuilt(t testing.TB, c Chunks, s State) State {
	ctx := context.Background()
	fresh := must[State](t)(New(ctx, c, s.Keys()))
	var edits []Edit
	for _, key := range s.Keys() {
		edit := Edit{Component: key.Component}
		for p, err := range All(ctx, c, s, key) {
			if err != nil {
				t.Fatal(err)
			}
			edit.Put = append(edit.Put, p)
		}
		slices.Reverse(edit.Put)
		edits = append(edits, edit)
	}
	return must[State](t)(Apply(ctx, c, fresh, edits...))
}

// The id depends on content alone: whatever edits led to a state, building
// its content at once, in another order, gives the same text.
func TestIDDependsOnContentAlone(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		s := base
		if rapid.Bool().Draw(rt, "empty") {
			s = must[State](t)(New(ctx, store, testKeys))
		}
		for range rapid.IntRange(1, 4).Draw(rt, "steps") {
			next, err := Apply(ctx, store, s, genEdits(rt, known)...)
			if err != nil {
				rt.Fatal(err)
			}
			s = next
		}
		if again := rebuilt(t, store, s); again.ID() != s.ID() {
			rt.Fatalf("built step by step:\n%s\nbuilt at once:\n%s", s.Text(), again.Text())
		}
		loaded, err := Load(ctx, store, s.ID())
		if err != nil || loaded.ID() != s.ID() || string(loaded.Text()) != string(s.Text()) {
			rt.Fatalf("loaded %s as %s: %v", s.ID(), loaded.ID(), err)
		}
	})
}

// Batching does not matter: the edits one by one, or all in one call.
func TestBatchesAreEqual(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		edits := genEdits(rt, known)
		at := must[State](t)(Apply(ctx, store, base, edits...))
		step := base
		for _, e := range edits {
			step = must[State](t)(Apply(ctx, store, step, Edit{Component: e.Component, Remove: e.Remove}))
			for _, p := range e.Put {
				step = must[State](t)(Apply(ctx, store, step, Edit{Component: e.Component, Put: []Package{p}}))
			}
		}
		if at.ID() != step.ID() {
			rt.Fatalf("in one call:\n%s\nstep by step:\n%s", at.Text(), step.Text())
		}
	})
}

// Apply(a, Diff(a, b)) is b.
func TestDiffLeadsFromAToB(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		a := must[State](t)(Apply(ctx, store, base, genEdits(rt, known)...))
		b := must[State](t)(Apply(ctx, store, base, genEdits(rt, known)...))
		differences, err := Diff(ctx, store, a, b)
		if err != nil {
			rt.Fatal(err)
		}
		if (len(differences) == 0) != (a.ID() == b.ID()) {
			rt.Fatalf("%d differences between %s and %s", len(differences), a.ID(), b.ID())
		}
		got, err := Apply(ctx, store, a, Edits(differences)...)
		if err != nil || got.ID() != b.ID() {
			rt.Fatalf("%v: from\n%s\nto\n%s\ncame\n%s", err, a.Text(), b.Text(), got.Text())
		}
	})
}

// A name and version occurs once per index, and what is for all is in every
// index of its component.
func TestAllIsEverywhereAndVersionsOccurOnce(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	rapid.Check(t, func(rt *rapid.T) {
		s := must[State](t)(New(ctx, store, testKeys))
		s = must[State](t)(Apply(ctx, store, s, genEdits(rt, nil)...))
		s = must[State](t)(Apply(ctx, store, s, genEdits(rt, refsOf(t, store, s))...))
		s = must[State](t)(WithKeys(ctx, store, s, Key{"apps", "riscv64"}))
		forAll := make(map[Key][]string)
		for _, key := range s.Keys() {
			seen := make(map[string]bool)
			for p, err := range All(ctx, store, s, key) {
				if err != nil {
					rt.Fatal(err)
				}
				if seen[p.Name+" "+p.Version] {
					rt.Fatalf("%s holds %s %s twice", key, p.Name, p.Version)
				}
				seen[p.Name+" "+p.Version] = true
				if p.Architecture == "all" {
					forAll[key] = append(forAll[key], string(p.Stanza))
				} else if p.Architecture != key.Architecture {
					rt.Fatalf("%s holds %s", key, p.Ref())
				}
			}
		}
		for _, key := range []Key{{"apps", "arm64"}, {"apps", "riscv64"}} {
			if !slices.Equal(forAll[key], forAll[Key{"apps", "amd64"}]) {
				rt.Fatalf("%s lacks packages for all", key)
			}
		}
	})
}

// FindAll finds what a walk through the index finds, and opens no chunk twice,
// wherever the names lie.
func TestFindAll(t *testing.T) {
	ctx := context.Background()
	store := &counting{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		s := must[State](t)(Apply(ctx, store, base, genEdits(rt, known)...))
		names := rapid.SliceOfN(rapid.SampledFrom(slices.Concat(borderNames, plainNames, []string{"run", "a0", "name", "zz"})), 0, 20).Draw(rt, "names")
		slices.Sort(names)
		names = slices.Compact(names)
		for _, key := range testKeys {
			store.reset()
			found, err := FindAll(ctx, store, s, key, names)
			if err != nil {
				rt.Fatal(err)
			}
			for id, n := range store.gets {
				if n > 1 {
					rt.Fatalf("chunk %s was opened %d times", id, n)
				}
			}
			want := make(map[string][]string)
			for p, err := range All(ctx, store, s, key) {
				if err != nil {
					rt.Fatal(err)
				}
				if slices.Contains(names, p.Name) {
					want[p.Name] = append(want[p.Name], string(p.Stanza))
				}
			}
			if len(found) != len(want) {
				rt.Fatalf("%s: found %d names, want %d", key, len(found), len(want))
			}
			for name, packages := range found {
				var got []string
				for _, p := range packages {
					got = append(got, string(p.Stanza))
				}
				if !slices.Equal(got, want[name]) {
					rt.Fatalf("%s: found of %s %q, want %q", key, name, got, want[name])
				}
			}
		}
	})
}
