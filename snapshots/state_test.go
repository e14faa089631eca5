package snapshots

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var amd64 = Key{"apps", "amd64"}

// largeState has n packages of one index.
func largeState(t testing.TB, c Chunks, n int) State {
	t.Helper()
	puts := make([]Package, n)
	for i := range puts {
		puts[i] = pkg(t, fmt.Sprintf("package%05d", i), "1.0-1", "amd64")
	}
	s := must[State](t)(New(context.Background(), c, []Key{amd64, {"apps", "arm64"}}))
	return must[State](t)(Apply(context.Background(), c, s, Edit{Component: "apps", Put: puts}))
}

// What one package costs in a state of 20,000.
func TestALargeState(t *testing.T) {
	store := &counting{}
	s := largeState(t, store, 20000)
	t.Run("one change costs few chunks", func(t *testing.T) { oneChangeCostsFewChunks(t, store, s) })
	t.Run("a version bump moves no border", func(t *testing.T) { aVersionBumpMovesNoBorder(t, store, s) })
	t.Run("Diff opens only what differs", func(t *testing.T) { diffOpensOnlyWhatDiffers(t, store, s) })
	t.Run("Find opens few chunks", func(t *testing.T) { findOpensFewChunks(t, store, s) })
	t.Run("Merge opens only what differs", func(t *testing.T) { mergeOpensOnlyWhatDiffers(t, store, s) })
	t.Run("Pick opens few chunks", func(t *testing.T) { pickOpensFewChunks(t, store, s) })
	t.Run("Select opens what its names allow", func(t *testing.T) { selectOpensWhatItsNamesAllow(t, store, s) })
}

// Whatever one package does to a large state, few chunks are read and written.
func oneChangeCostsFewChunks(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	chunks := s.Index(amd64).Chunks
	if len(chunks) < 20 || len(chunks) > 80 {
		t.Fatalf("20,000 packages make %d chunks", len(chunks))
	}
	random := rand.New(rand.NewPCG(1, 2))
	rows := map[string]func() Edit{
		"a version bump": func() Edit {
			name := fmt.Sprintf("package%05d", random.IntN(20000))
			return Edit{Component: "apps", Put: []Package{pkg(t, name, "1.0-2", "amd64")}, Remove: []Ref{{name, "1.0-1", "amd64"}}}
		},
		"a version bump of a chunk's first": func() Edit {
			first := chunks[random.IntN(len(chunks))].First
			return Edit{Component: "apps", Put: []Package{pkg(t, first.Name, "1.0-2", "amd64")}, Remove: []Ref{first}}
		},
		"a new package": func() Edit {
			return Edit{Component: "apps", Put: []Package{pkg(t, fmt.Sprintf("package%05dx", random.IntN(20000)), "1", "amd64")}}
		},
		"a removal": func() Edit {
			return Edit{Component: "apps", Remove: []Ref{{fmt.Sprintf("package%05d", random.IntN(20000)), "1.0-1", "amd64"}}}
		},
		"the removal of a chunk's first": func() Edit {
			return Edit{Component: "apps", Remove: []Ref{chunks[random.IntN(len(chunks))].First}}
		},
	}
	for name, edit := range rows {
		t.Run(name, func(t *testing.T) {
			most := 0
			for range 20 {
				e := edit()
				store.reset()
				after := must[State](t)(Apply(ctx, store, s, e))
				if after.ID() == s.ID() {
					t.Fatalf("%+v changed nothing", e)
				}
				most = max(most, len(store.gets), store.new)
			}
			if most > 5 { // the changed chunk, a neighbour or two, the state
				t.Errorf("one change read or wrote %d texts", most)
			}
		})
	}
}

// A version bump moves no border.
func aVersionBumpMovesNoBorder(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	for i := 0; i < 20000; i += 397 {
		name := fmt.Sprintf("package%05d", i)
		after := must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: []Package{pkg(t, name, "2", "amd64")}, Remove: []Ref{{name, "1.0-1", "amd64"}}}))
		before, now := s.Index(amd64).Chunks, after.Index(amd64).Chunks
		changed := 0
		for j := range before {
			if len(before) != len(now) || before[j].First.Name != now[j].First.Name || before[j].Count != now[j].Count {
				t.Fatalf("%s moved a border", name)
			}
			if before[j].ID != now[j].ID {
				changed++
			}
		}
		if changed != 1 {
			t.Fatalf("%s changed %d chunks", name, changed)
		}
	}
}

// Chunks are of a useful size whatever the names are like, and thousands of
// versions of one name do not make one growing chunk.
func TestChunkSizes(t *testing.T) {
	versions := make([]Package, 6000)
	for i := range versions {
		versions[i] = pkg(t, "ci", fmt.Sprintf("1.0+git%d.%x", i, sha256.Sum256(fmt.Append(nil, i))), "amd64")
	}
	names := make([]Package, 20000)
	for i := range names {
		names[i] = pkg(t, fmt.Sprintf("lib%x-dev", sha256.Sum256(fmt.Append(nil, i)))[:20], "1", "amd64")
	}
	borderless := make([]Package, 0, 5000)
	for i := 0; len(borderless) < cap(borderless); i++ {
		if name := fmt.Sprintf("name%d", i); !isBorder(name) {
			borderless = append(borderless, pkg(t, name, "1", "amd64"))
		}
	}
	bulky := make([]Package, 40)
	for i := range bulky {
		text := append(stanzaOf(fmt.Sprintf("bulky%02d", i), "1", "amd64", ""), "Note: "+strings.Repeat("x", MaxStanza-1000)+"\n"...)
		p, err := ParsePackage(text)
		if err != nil {
			t.Fatal(err)
		}
		bulky[i] = p
	}
	rows := []struct {
		name       string
		packages   []Package
		fewest     int // chunks
		most       int
		largestRun int
	}{
		{"many versions of one name", versions, 4, 40, maxChunkCount},
		{"many names", names, 25, 70, maxChunkCount},
		{"names without borders", borderless, 3, 3, maxChunkCount},
		{"large stanzas", bulky, 5, 6, 9},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			ctx, store := context.Background(), &Memory{}
			s := must[State](t)(New(ctx, store, []Key{amd64}))
			s = must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: row.packages}))
			index := s.Index(amd64)
			if len(index.Chunks) < row.fewest || len(index.Chunks) > row.most {
				t.Errorf("%d chunks", len(index.Chunks))
			}
			for _, chunk := range index.Chunks {
				if chunk.Count > row.largestRun || chunk.Size > largestChunk {
					t.Errorf("a chunk of %d packages, %d bytes", chunk.Count, chunk.Size)
				}
			}
			if index.Count() != len(row.packages) || s.Count() != len(row.packages) {
				t.Errorf("%d packages of %d", index.Count(), len(row.packages))
			}
		})
	}
}

// Diff opens the chunks that are not shared, and no others.
func diffOpensOnlyWhatDiffers(t *testing.T, store *counting, a State) {
	ctx := context.Background()
	b := must[State](t)(Apply(ctx, store, a, Edit{Component: "apps",
		Put:    []Package{pkg(t, "package00100", "2", "amd64"), pkg(t, "package19000x", "1", "amd64")},
		Remove: []Ref{{"package00100", "1.0-1", "amd64"}},
	}))
	inA := make(map[ID]bool)
	for _, ref := range a.Index(amd64).Chunks {
		inA[ref.ID] = true
	}
	store.reset()
	differences, err := Diff(ctx, store, a, b)
	if err != nil || len(differences) != 2 {
		t.Fatalf("%d differences, %v", len(differences), err)
	}
	inBoth := 0
	for _, ref := range b.Index(amd64).Chunks {
		if inA[ref.ID] {
			inBoth++
			if store.gets[ref.ID] > 0 {
				t.Errorf("the shared chunk %s was opened", ref.ID)
			}
		}
	}
	if inBoth < 20 || len(store.gets) > 4 {
		t.Errorf("%d shared chunks, %d texts read", inBoth, len(store.gets))
	}
	store.reset()
	if differences, err := Diff(ctx, store, b, b); err != nil || len(differences) != 0 || len(store.gets) != 0 {
		t.Errorf("a state and itself: %d differences, %d texts read, %v", len(differences), len(store.gets), err)
	}
}

// A version can be a border only inside a long run of its name.
func TestVersionsAreBordersInLongRunsOnly(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	for _, before := range []int{longRun - 1, longRun} {
		var puts []Package
		for i := range before {
			puts = append(puts, pkg(t, "run", fmt.Sprintf("0.%d", i), "amd64"))
		}
		puts = append(puts, pkg(t, "run", runBorders[0], "amd64"))
		s := must[State](t)(New(ctx, store, []Key{amd64}))
		s = must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: puts}))
		if got, want := len(s.Index(amd64).Chunks), before-longRun+2; got != want {
			t.Errorf("%d versions and then a border make %d chunks, want %d", before, got, want)
		}
	}
}

func TestDiffPairsVersions(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	empty := must[State](t)(New(ctx, store, []Key{amd64, {"apps", "arm64"}}))
	state := func(refs ...string) State {
		var puts []Package
		for _, ref := range refs {
			name, rest, _ := strings.Cut(ref, "=")
			version, arch, _ := strings.Cut(rest, ":")
			note := ""
			version, note, _ = strings.Cut(version, "!")
			p, err := ParsePackage(stanzaOf(name, version, arch, note))
			if err != nil {
				t.Fatal(err)
			}
			puts = append(puts, p)
		}
		return must[State](t)(Apply(ctx, store, empty, Edit{Component: "apps", Put: puts}))
	}
	rows := []struct {
		name string
		a, b State
		want []string
	}{
		{"nothing", state("tool=1:amd64"), state("tool=1:amd64"), nil},
		{"new, gone, upgraded, downgraded", state("gone=1:amd64", "up=1:amd64", "down=1:amd64"), state("new=1:amd64", "up=2~rc1:amd64", "down=0:amd64"),
			[]string{"apps/amd64 down=1:amd64 → down=0:amd64", "apps/amd64 gone=1:amd64 → ", "apps/amd64  → new=1:amd64", "apps/amd64 up=1:amd64 → up=2~rc1:amd64"}},
		{"the same version with other bytes", state("tool=1:amd64"), state("tool=1!x:amd64"), []string{"apps/amd64 tool=1:amd64 → tool=1:amd64"}},
		{"for all, in both architectures", state(), state("data=1:all"), []string{"apps/amd64  → data=1:all", "apps/arm64  → data=1:all"}},
		{"several versions", state("tool=1:amd64", "tool=2:amd64"), state("tool=2:amd64", "tool=3:amd64"), []string{"apps/amd64 tool=1:amd64 → tool=3:amd64"}},
		{"fewer versions than before", state("tool=1:amd64", "tool=2:amd64"), state("tool=3:amd64"), []string{"apps/amd64 tool=1:amd64 → ", "apps/amd64 tool=2:amd64 → tool=3:amd64"}},
		{"more versions than before", state("tool=1:amd64"), state("tool=2:amd64", "tool=3:amd64"), []string{"apps/amd64  → tool=2:amd64", "apps/amd64 tool=1:amd64 → tool=3:amd64"}},
		{"from no state at all", State{}, state("tool=1:amd64"), []string{"apps/amd64  → tool=1:amd64"}},
		{"from all to one architecture", state("tool=1:all"), state("tool=1:amd64"), []string{"apps/amd64 tool=1:all → tool=1:amd64", "apps/arm64 tool=1:all → "}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			differences, err := Diff(ctx, store, row.a, row.b)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range differences {
				var old, now string
				if d.Old != nil {
					old = d.Old.Ref().String()
				}
				if d.New != nil {
					now = d.New.Ref().String()
				}
				got = append(got, fmt.Sprintf("%s %s → %s", d.Key, old, now))
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("differences are\n%q\nwant\n%q", got, row.want)
			}
		})
	}
}

func TestApplyPutsAndRemoves(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	keys := []Key{amd64, {"apps", "arm64"}, {"base", "amd64"}}
	s := must[State](t)(New(ctx, store, keys))
	put := func(name, version, arch string) {
		s = must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: []Package{pkg(t, name, version, arch)}}))
	}
	put("tool", "1.10", "amd64")
	put("tool", "1.9", "amd64")
	put("tool", "1:0", "amd64")
	put("data", "1", "all")
	put("tool", "1.9", "arm64")
	expect := func(key Key, want ...string) {
		t.Helper()
		if got := content(t, store, s, key); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", key, got, want)
		}
	}
	expect(amd64, "data=1:all", "tool=1.9:amd64", "tool=1.10:amd64", "tool=1:0:amd64")
	expect(Key{"apps", "arm64"}, "data=1:all", "tool=1.9:arm64")
	expect(Key{"base", "amd64"})

	same := must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Remove: []Ref{{"absent", "1", "amd64"}, {"tool", "1.10", "arm64"}, {"data", "1", "amd64"}}}))
	if same.ID() != s.ID() {
		t.Error("removing what is not there changed the state")
	}
	put("data", "1", "amd64") // takes the place of the one for all
	expect(amd64, "data=1:amd64", "tool=1.9:amd64", "tool=1.10:amd64", "tool=1:0:amd64")
	expect(Key{"apps", "arm64"}, "tool=1.9:arm64")
	s = must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Remove: []Ref{{"data", "1", "amd64"}, {"tool", "1.10", "amd64"}}}))
	expect(amd64, "tool=1.9:amd64", "tool=1:0:amd64")

	found := must[[]Package](t)(Find(ctx, store, s, amd64, "tool"))
	if len(found) != 2 || found[0].Version != "1.9" || found[1].Version != "1:0" {
		t.Errorf("found %v", found)
	}
	for _, absent := range []string{"a", "toolbox", "zzz"} {
		if found := must[[]Package](t)(Find(ctx, store, s, amd64, absent)); len(found) != 0 {
			t.Errorf("found %s: %v", absent, found)
		}
	}
	grown := must[State](t)(WithKeys(ctx, store, s, Key{"more", "amd64"}, amd64))
	if !slices.Equal(grown.Keys(), []Key{amd64, {"apps", "arm64"}, {"base", "amd64"}, {"more", "amd64"}}) || !grown.Has(Key{"more", "amd64"}) || grown.Has(Key{"more", "arm64"}) {
		t.Errorf("keys are %v", grown.Keys())
	}
	nothing := must[State](t)(New(ctx, store, nil))
	if string(nothing.Text()) != header || nothing.Count() != 0 {
		t.Errorf("a state without indices is %q", nothing.Text())
	}
}

// Find opens the chunks that can hold the name, and no others.
func findOpensFewChunks(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	for i := 0; i < 20000; i += 400 {
		store.reset()
		name := fmt.Sprintf("package%05d", i)
		if found := must[[]Package](t)(Find(ctx, store, s, amd64, name)); len(found) != 1 || found[0].Name != name {
			t.Fatalf("found %v", found)
		}
		if len(store.gets) > 2 {
			t.Fatalf("looking up %s opened %d chunks", name, len(store.gets))
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	s := must[State](t)(New(ctx, store, []Key{amd64}))
	lying := pkg(t, "tool", "1", "amd64")
	lying.Version = "2"
	rows := []struct {
		name string
		edit Edit
		want string
	}{
		{"an unknown component", Edit{Component: "nope", Put: []Package{pkg(t, "tool", "1", "amd64")}}, "no such component"},
		{"a component with a slash", Edit{Component: "a/b"}, "component name"},
		{"an undeclared architecture", Edit{Component: "apps", Put: []Package{pkg(t, "tool", "1", "riscv64")}}, "no index for riscv64"},
		{"a package that is not what its stanza says", Edit{Component: "apps", Put: []Package{lying}}, "its stanza describes"},
		{"a package without stanza", Edit{Component: "apps", Put: []Package{{Name: "tool", Version: "1", Architecture: "amd64"}}}, "cannot read package"},
		{"a removal of a name with a space", Edit{Component: "apps", Remove: []Ref{{"a b", "1", "amd64"}}}, "cannot remove"},
		{"a removal of a version with a newline", Edit{Component: "apps", Remove: []Ref{{"tool", "1\n2", "amd64"}}}, "cannot remove"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if _, err := Apply(ctx, store, s, row.edit); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want one about %q", err, row.want)
			}
		})
	}
	for _, key := range []Key{{"apps", "all"}, {"apps", "any"}, {"", "amd64"}, {"a b", "amd64"}, {".hidden", "amd64"}, {strings.Repeat("x", 65), "amd64"}} {
		if _, err := New(ctx, store, []Key{key}); err == nil {
			t.Errorf("an index %s was made", key)
		}
	}
}

// A store that returns other bytes is found out, and named.
func TestADamagedStore(t *testing.T) {
	ctx := context.Background()
	store := &Memory{}
	s := largeState(t, store, 100)
	chunk := s.Index(amd64).Chunks[0].ID
	store.texts[chunk] = append([]byte("X"), store.texts[chunk][1:]...)
	for _, err := range All(ctx, store, s, amd64) {
		if err == nil || !strings.Contains(err.Error(), chunk.String()) || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("error is %v", err)
		}
	}
	delete(store.texts, chunk)
	if _, err := Apply(ctx, store, s, Edit{Component: "apps", Remove: []Ref{{"package00001", "1.0-1", "amd64"}}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
	store.texts[s.ID()] = []byte("other")
	if _, err := Load(ctx, store, s.ID()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error is %v", err)
	}
	if _, err := Load(ctx, store, ID{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
