package snapshots

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
)

// stateOf makes a state of "component/name=version:arch" words; "!note" behind
// a version makes it another file.
func stateOf(t testing.TB, c Chunks, keys []Key, words ...string) State {
	t.Helper()
	ctx := context.Background()
	s := must[State](t)(New(ctx, c, keys))
	for _, word := range words {
		component, ref, _ := strings.Cut(word, "/")
		name, rest, _ := strings.Cut(ref, "=")
		version, arch, _ := strings.Cut(rest, ":")
		version, note, _ := strings.Cut(version, "!")
		p := must[Package](t)(ParsePackage(stanzaOf(name, version, arch, note)))
		s = must[State](t)(Apply(ctx, c, s, Edit{Component: component, Put: []Package{p}}))
	}
	return s
}

// words lists a state as stateOf reads it, without notes.
func words(t testing.TB, c Chunks, s State) []string {
	t.Helper()
	var list []string
	for _, key := range s.Keys() {
		for _, ref := range content(t, c, s, key) {
			list = append(list, key.Component+"/"+ref)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestMerge(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	state := func(words ...string) State { return stateOf(t, store, testKeys, words...) }
	rows := []struct {
		name          string
		states        []State
		latest, first []string
		conflicts     []string // of both; none: Refuse agrees with the others
	}{
		{"one state", []State{state("apps/tool=1:amd64")},
			[]string{"apps/tool=1:amd64"}, []string{"apps/tool=1:amd64"}, nil},
		{"nothing in common", []State{state("apps/tool=1:amd64"), state("base/tool=2:amd64", "apps/data=1:all")},
			[]string{"apps/data=1:all", "apps/tool=1:amd64", "base/tool=2:amd64"}, []string{"apps/data=1:all", "apps/tool=1:amd64", "base/tool=2:amd64"}, nil},
		{"the same in both", []State{state("apps/tool=1:amd64", "apps/tool=2:amd64"), state("apps/tool=1:amd64", "apps/tool=2:amd64")},
			[]string{"apps/tool=1:amd64", "apps/tool=2:amd64"}, []string{"apps/tool=1:amd64", "apps/tool=2:amd64"}, nil},
		{"nothing at all", []State{state(), {}}, nil, nil, nil},
		{"two versions", []State{state("apps/tool=1.9:amd64"), state("apps/tool=1.10:amd64")},
			[]string{"apps/tool=1.10:amd64"}, []string{"apps/tool=1.9:amd64"}, []string{"apps/tool 1.9 | 1.10"}},
		{"three states, the middle one lacks it", []State{state("apps/tool=2:amd64"), state("apps/new=1:amd64"), state("apps/tool=3:amd64")},
			[]string{"apps/new=1:amd64", "apps/tool=3:amd64"}, []string{"apps/new=1:amd64", "apps/tool=2:amd64"}, []string{"apps/tool 2 |  | 3"}},
		{"the same version with other bytes: the state named first", []State{state("apps/tool=1:amd64"), state("apps/tool=1!x:amd64")},
			[]string{"apps/tool=1:amd64"}, []string{"apps/tool=1:amd64"}, []string{"apps/tool 1 | 1"}},
		{"a name comes whole", []State{state("apps/tool=1:amd64", "apps/tool=1:arm64"), state("apps/tool=2:amd64")},
			[]string{"apps/tool=2:amd64"}, []string{"apps/tool=1:amd64", "apps/tool=1:arm64"}, []string{"apps/tool 1 | 2"}},
		{"the longer list", []State{state("apps/tool=2:amd64"), state("apps/tool=2:amd64", "apps/tool=1:arm64")},
			[]string{"apps/tool=1:arm64", "apps/tool=2:amd64"}, []string{"apps/tool=2:amd64"}, []string{"apps/tool 2 | 2 1"}},
		{"the second highest", []State{state("apps/tool=3:amd64", "apps/tool=1:amd64"), state("apps/tool=3:amd64", "apps/tool=2:amd64")},
			[]string{"apps/tool=2:amd64", "apps/tool=3:amd64"}, []string{"apps/tool=1:amd64", "apps/tool=3:amd64"}, []string{"apps/tool 3 1 | 3 2"}},
		{"for all against one architecture", []State{state("apps/tool=1:all"), state("apps/tool=2:arm64")},
			[]string{"apps/tool=2:arm64"}, []string{"apps/tool=1:all"}, []string{"apps/tool 1 | 2"}},
		{"the same name in two components", []State{state("apps/tool=1:amd64"), state("base/tool=1:amd64")},
			[]string{"apps/tool=1:amd64", "base/tool=1:amd64"}, []string{"apps/tool=1:amd64", "base/tool=1:amd64"}, nil},
		{"an index that one lacks", []State{stateOf(t, store, []Key{amd64}, "apps/data=1:all", "apps/tool=1:amd64"), stateOf(t, store, []Key{{"apps", "arm64"}}, "apps/data=1:all")},
			[]string{"apps/data=1:all", "apps/tool=1:amd64"}, []string{"apps/data=1:all", "apps/tool=1:amd64"}, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for rule, want := range map[Rule][]string{Latest: row.latest, First: row.first} {
				merged, conflicts, err := Merge(ctx, store, rule, row.states...)
				if err != nil {
					t.Fatal(err)
				}
				if got := words(t, store, merged); !slices.Equal(got, want) {
					t.Errorf("rule %d gives %q, want %q", rule, got, want)
				}
				var told []string
				for _, c := range conflicts {
					var versions []string
					for _, v := range c.Versions {
						versions = append(versions, strings.Join(v, " "))
					}
					told = append(told, c.Component+"/"+c.Name+" "+strings.Join(versions, " | "))
					if rule == First && c.Taken != 0 {
						t.Errorf("%s was taken from state %d", c.Name, c.Taken)
					}
				}
				if !slices.Equal(told, row.conflicts) {
					t.Errorf("conflicts are %q, want %q", told, row.conflicts)
				}
			}
			merged, conflicts, err := Merge(ctx, store, Refuse, row.states...)
			var refused *ConflictError
			switch {
			case row.conflicts == nil:
				if err != nil || conflicts != nil || !slices.Equal(words(t, store, merged), row.latest) {
					t.Errorf("without a conflict Refuse gives %q, %v", words(t, store, merged), err)
				}
			case !errors.As(err, &refused) || len(refused.Conflicts) != len(row.conflicts) || !merged.ID().IsZero():
				t.Errorf("the conflict is %v", err)
			}
		})
	}
	if _, _, err := Merge(ctx, store, Refuse); err == nil {
		t.Error("no state at all was merged")
	}
	many := []string{}
	for i := range 3 {
		many = append(many, fmt.Sprintf("apps/tool%d=1:amd64", i))
	}
	_, _, err := Merge(ctx, store, Refuse, state(many...), state(strings.Split(strings.ReplaceAll(strings.Join(many, " "), "=1", "=2"), " ")...))
	if err == nil || !strings.Contains(err.Error(), "tool0 of component apps and in 2 more packages") {
		t.Errorf("error is %v", err)
	}
}

// naive merges as the rules say it, with maps and without chunks.
func naive(t testing.TB, c Chunks, rule Rule, states ...State) (content map[string][]string, conflict bool) {
	content = make(map[string][]string)
	type holder struct{ entries, versions []string }
	names := make(map[string][]holder)
	for _, s := range states {
		held := make(map[string]*holder)
		for _, key := range s.Keys() {
			for p, err := range All(context.Background(), c, s, key) {
				if err != nil {
					t.Fatal(err)
				}
				h := held[key.Component+"/"+p.Name]
				if h == nil {
					h = &holder{}
					held[key.Component+"/"+p.Name] = h
				}
				if !slices.Contains(h.entries, string(p.Stanza)) {
					h.entries = append(h.entries, string(p.Stanza))
					h.versions = append(h.versions, p.Version)
				}
			}
		}
		for name, h := range held {
			slices.Sort(h.entries)
			slices.SortFunc(h.versions, func(a, b string) int { return deb.Compare(b, a) })
			names[name] = append(names[name], *h)
		}
	}
	for name, holders := range names {
		taken := holders[0]
		for _, h := range holders[1:] {
			if slices.Equal(h.entries, taken.entries) {
				continue
			}
			conflict = true
			if rule == Latest && slices.CompareFunc(h.versions, taken.versions, deb.Compare) > 0 {
				taken = h
			}
		}
		content[name] = taken.entries
	}
	return content, conflict
}

// genStates draws states that share most of their chunks; some lack an index.
func genStates(rt *rapid.T, t testing.TB, c Chunks, base State, known []Ref, n int) []State {
	ctx := context.Background()
	states := make([]State, n)
	for i := range states {
		from := base
		switch rapid.IntRange(0, 5).Draw(rt, "from") {
		case 0:
			from = must[State](t)(New(ctx, c, testKeys))
		case 1:
			from = must[State](t)(New(ctx, c, []Key{amd64}))
		}
		edits := genEdits(rt, known)
		if !from.Has(Key{"apps", "arm64"}) {
			for j := range edits {
				edits[j].Put = slices.DeleteFunc(edits[j].Put, func(p Package) bool { return p.Architecture == "arm64" })
			}
		}
		states[i] = must[State](t)(Apply(ctx, c, from, edits...))
	}
	return states
}

// Merge does what the rules say, in the one form that its content has.
func TestMergeAgainstTheRules(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		states := genStates(rt, t, store, base, known, rapid.IntRange(1, 4).Draw(rt, "states"))
		for _, rule := range []Rule{Refuse, Latest, First} {
			want, conflict := naive(t, store, rule, states...)
			got, conflicts, err := Merge(ctx, store, rule, states...)
			if rule == Refuse && conflict {
				var refused *ConflictError
				if !errors.As(err, &refused) {
					rt.Fatalf("a conflict was not refused: %v", err)
				}
				continue
			}
			if err != nil || (len(conflicts) > 0) != conflict {
				rt.Fatalf("rule %d: %v, conflicts %v", rule, err, conflicts)
			}
			is, _ := naive(t, store, First, got)
			if fmt.Sprint(is) != fmt.Sprint(want) {
				rt.Fatalf("rule %d gives\n%v\nwant\n%v", rule, is, want)
			}
			if again := rebuilt(t, store, got); again.ID() != got.ID() {
				rt.Fatalf("rule %d cuts\n%s\nbuilt at once it is\n%s", rule, got.Text(), again.Text())
			}
		}
	})
}

// The rules are associative, keep what is merged with itself or with nothing,
// and Refuse does not see an order.
func TestMergeIsAssociative(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	base := filler(t, store)
	known := refsOf(t, store, base)
	rapid.Check(t, func(rt *rapid.T) {
		s := genStates(rt, t, store, base, known, 3)
		for _, rule := range []Rule{Refuse, Latest, First} {
			merge := func(states ...State) (State, bool) {
				merged, _, err := Merge(ctx, store, rule, states...)
				var refused *ConflictError
				if err != nil && !errors.As(err, &refused) {
					rt.Fatal(err)
				}
				return merged, err == nil
			}
			all, agreed := merge(s...)
			for _, order := range [][2][]State{{{s[0], s[1]}, {s[2]}}, {{s[0]}, {s[1], s[2]}}} {
				left, ok1 := merge(order[0]...)
				right, ok2 := merge(order[1]...)
				result, ok3 := merge(left, right)
				if ok := ok1 && ok2 && ok3; ok != agreed || ok && result.ID() != all.ID() {
					rt.Fatalf("rule %d: at once (%v)\n%s\nin two steps (%v)\n%s", rule, agreed, all.Text(), ok, result.Text())
				}
			}
			if same, ok := merge(s[0], s[0]); !ok || same.ID() != s[0].ID() {
				rt.Fatalf("rule %d: a state merged with itself is another", rule)
			}
			if same, ok := merge(State{}, s[0], must[State](t)(New(ctx, store, s[0].Keys()))); !ok || same.ID() != s[0].ID() {
				rt.Fatalf("rule %d: a state merged with nothing is another", rule)
			}
			if back, ok := merge(s[2], s[1], s[0]); rule == Refuse && (ok != agreed || ok && back.ID() != all.ID()) {
				rt.Fatal("Refuse depends on the order")
			}
		}
	})
}

// What is shared stays closed: the cost of a merge follows what differs.
func mergeOpensOnlyWhatDiffers(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	with := func(word string) State {
		name, version, _ := strings.Cut(word, "=")
		return must[State](t)(Apply(ctx, store, s, Edit{Component: "apps", Put: []Package{pkg(t, name, version, "amd64")}}))
	}
	a, b, c := with("package01000=2"), with("package09000=2"), with("new=1")
	store.reset()
	merged, conflicts, err := Merge(ctx, store, Latest, a, b, c, s)
	if err != nil || len(conflicts) != 2 {
		t.Fatalf("conflicts are %v, %v", conflicts, err)
	}
	if len(store.gets) > 12 || store.new > 4 {
		t.Errorf("three changes in four states opened %d chunks and wrote %d texts", len(store.gets), store.new)
	}
	if n := len(must[[]Difference](t)(Diff(ctx, store, s, merged))); n != 3 {
		t.Errorf("the merge differs in %d packages", n)
	}
}
