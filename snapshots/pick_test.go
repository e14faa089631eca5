package snapshots

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// needing is a package with further fields, such as "Depends: libfoo (>= 2)".
func needing(t testing.TB, word string, fields ...string) Package {
	t.Helper()
	name, rest, _ := strings.Cut(word, "=")
	version, arch, _ := strings.Cut(rest, ":")
	text := string(stanzaOf(name, version, arch, ""))
	for _, field := range fields {
		text += field + "\n"
	}
	return must[Package](t)(ParsePackage([]byte(text)))
}

// holdingAll makes a state with packages of the component apps.
func holdingAll(t testing.TB, c Chunks, packages ...Package) State {
	t.Helper()
	ctx := context.Background()
	s := must[State](t)(New(ctx, c, testKeys))
	return must[State](t)(Apply(ctx, c, s, Edit{Component: "apps", Put: packages}))
}

func TestPick(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	p := func(word string, fields ...string) Package { return needing(t, word, fields...) }
	state := func(packages ...Package) State { return holdingAll(t, store, packages...) }
	rows := []struct {
		name       string
		base, from State
		pick       string
		with       bool // dependencies
		want       string
		came       string
		unmet      string
	}{
		{"a newer version", state(p("tool=1:amd64"), p("rest=1:amd64")), state(p("tool=2:amd64"), p("rest=2:amd64")), "tool", false,
			"apps/rest=1:amd64 apps/tool=2:amd64", "tool", ""},
		{"a new package", state(), state(p("tool=2:amd64"), p("rest=2:amd64")), "tool", false, "apps/tool=2:amd64", "tool", ""},
		{"all architectures and versions", state(p("tool=1:amd64"), p("tool=1:arm64")), state(p("tool=2:amd64"), p("tool=3:amd64"), p("tool=2:all")), "tool", false,
			"apps/tool=2:all apps/tool=3:amd64", "tool", ""},
		{"from all to architectures", state(p("tool=1:all")), state(p("tool=1:amd64")), "tool", false, "apps/tool=1:amd64", "tool", ""},
		{"two names, one twice", state(), state(p("aa=1:amd64"), p("bb=1:amd64"), p("cc=1:amd64")), "cc aa cc", false, "apps/aa=1:amd64 apps/cc=1:amd64", "aa cc", ""},
		{"dependencies are left alone unless asked for", state(), state(p("tool=1:amd64", "Depends: lib"), p("lib=1:amd64")), "tool", false,
			"apps/tool=1:amd64", "tool", ""},
		{"a missing dependency, and what it needs", state(), state(p("tool=1:amd64", "Depends: lib"), p("lib=1:amd64", "Pre-Depends: deep (>= 1)"), p("deep=1:amd64"), p("other=1:amd64")), "tool", true,
			"apps/deep=1:amd64 apps/lib=1:amd64 apps/tool=1:amd64", "deep lib tool", ""},
		{"what base has is good enough", state(p("lib=1:amd64")), state(p("tool=1:amd64", "Depends: lib"), p("lib=2:amd64")), "tool", true,
			"apps/lib=1:amd64 apps/tool=1:amd64", "tool", ""},
		{"what base has is too old", state(p("lib=1:amd64")), state(p("tool=1:amd64", "Depends: lib (>= 2)"), p("lib=2:amd64")), "tool", true,
			"apps/lib=2:amd64 apps/tool=1:amd64", "lib tool", ""},
		{"one of several versions in base", state(p("lib=1:amd64"), p("lib=2:amd64")), state(p("tool=1:amd64", "Depends: lib (<< 2)"), p("lib=3:amd64")), "tool", true,
			"apps/lib=1:amd64 apps/lib=2:amd64 apps/tool=1:amd64", "tool", ""},
		{"a dependency on what is picked", state(p("lib=1:amd64")), state(p("tool=1:amd64", "Depends: lib (>= 2)"), p("lib=2:amd64")), "lib tool", true,
			"apps/lib=2:amd64 apps/tool=1:amd64", "lib tool", ""},
		{"the first alternative that is there", state(), state(p("tool=1:amd64", "Depends: gone | second | third"), p("second=1:amd64"), p("third=1:amd64")), "tool", true,
			"apps/second=1:amd64 apps/tool=1:amd64", "second tool", ""},
		{"an alternative in base", state(p("third=1:amd64")), state(p("tool=1:amd64", "Depends: gone | second | third"), p("second=1:amd64")), "tool", true,
			"apps/third=1:amd64 apps/tool=1:amd64", "tool", ""},
		{"a provider in base", state(p("postfix=1:amd64", "Provides: mta")), state(p("tool=1:amd64", "Depends: mta"), p("exim=1:amd64", "Provides: mta")), "tool", true,
			"apps/postfix=1:amd64 apps/tool=1:amd64", "tool", ""},
		{"a provider from the other, by name", state(), state(p("tool=1:amd64", "Depends: mta"), p("postfix=1:amd64", "Provides: mta"), p("exim=1:amd64", "Provides: mta")), "tool", true,
			"apps/exim=1:amd64 apps/tool=1:amd64", "exim tool", ""},
		{"a provider that is replaced does not provide", state(p("exim=1:amd64", "Provides: mta")), state(p("tool=1:amd64", "Depends: mta"), p("exim=2:amd64"), p("postfix=1:amd64", "Provides: mta")), "exim tool", true,
			"apps/exim=2:amd64 apps/postfix=1:amd64 apps/tool=1:amd64", "exim postfix tool", ""},
		{"a version needs a versioned Provides", state(p("exim=3:amd64", "Provides: mta")), state(p("tool=1:amd64", "Depends: mta (>= 2)"), p("postfix=1:amd64", "Provides: mta (= 2)")), "tool", true,
			"apps/exim=3:amd64 apps/postfix=1:amd64 apps/tool=1:amd64", "postfix tool", ""},
		{"what nobody has", state(), state(p("tool=1:amd64", "Depends: libc6 (>= 2.36), gone | lost")), "tool", true,
			"apps/tool=1:amd64", "tool", "tool=1:amd64 amd64 gone | lost, tool=1:amd64 amd64 libc6 (>= 2.36)"},
		{"for all, missing for one architecture", state(p("lib=1:amd64")), state(p("tool=1:all", "Depends: lib")), "tool", true,
			"apps/lib=1:amd64 apps/tool=1:all", "tool", "tool=1:all arm64 lib"},
		{"a dependency of another architecture", state(p("lib=1:amd64")), state(p("tool=1:amd64", "Depends: lib:i386"), p("lib=1:amd64")), "tool", true,
			"apps/lib=1:amd64 apps/tool=1:amd64", "tool", "tool=1:amd64 amd64 lib:i386"},
		{"a dependency that breaks another", state(p("lib=1:amd64")),
			state(p("old=1:amd64", "Depends: lib (<< 2)"), p("tool=1:amd64", "Depends: lib (>= 2)"), p("lib=2:amd64")), "old tool", true,
			"apps/lib=2:amd64 apps/old=1:amd64 apps/tool=1:amd64", "lib old tool", "old=1:amd64 amd64 lib (<< 2)"},
		{"a circle", state(), state(p("aa=1:amd64", "Depends: bb"), p("bb=1:amd64", "Depends: aa")), "aa", true, "apps/aa=1:amd64 apps/bb=1:amd64", "aa bb", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			picked, err := Pick(ctx, store, row.base, row.from, strings.Fields(row.pick), row.with)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(words(t, store, picked.State), " "); got != row.want {
				t.Errorf("the result is %q, want %q", got, row.want)
			}
			if got := strings.Join(picked.Names, " "); got != row.came {
				t.Errorf("%q came, want %q", got, row.came)
			}
			var unmet []string
			for _, u := range picked.Unmet {
				unmet = append(unmet, fmt.Sprint(u.Package, " ", u.Architecture, " ", u.Relation))
			}
			if got := strings.Join(unmet, ", "); got != row.unmet {
				t.Errorf("unmet is %q, want %q", got, row.unmet)
			}
		})
	}
	if _, err := Pick(ctx, store, state(p("tool=1:amd64")), state(), []string{"tool"}, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("picking what the other state lacks: %v", err)
	}
	// An index comes only if something picked is in its component.
	from := stateOf(t, store, append(testKeys, Key{"more", "amd64"}), "more/tool=1:amd64", "apps/data=1:all")
	narrow := stateOf(t, store, []Key{amd64}, "apps/data=0:all")
	for name, want := range map[string][]Key{"tool": {amd64, {"more", "amd64"}}, "data": {amd64, {"apps", "arm64"}}} {
		picked, err := Pick(ctx, store, narrow, from, []string{name}, false)
		if err != nil || !slices.Equal(picked.State.Keys(), want) {
			t.Errorf("picking %s gives the indices %v, %v", name, picked.State.Keys(), err)
		}
	}
}

// What is picked is as in the other state, everything else as in base, in the
// one form that this content has, whatever the order of names.
func TestPickTakesThatAndNothingElse(t *testing.T) {
	ctx, store := context.Background(), &Memory{}
	filled := filler(t, store)
	known := refsOf(t, store, filled)
	rapid.Check(t, func(rt *rapid.T) {
		s := genStates(rt, t, store, filled, known, 2)
		all := make(map[string]bool)
		var there []string
		for _, ref := range refsOf(t, store, s[1]) {
			if !all[ref.Name] {
				all[ref.Name] = true
				there = append(there, ref.Name)
			}
		}
		if len(there) == 0 {
			rt.Skip("nothing to pick")
		}
		names := rapid.SliceOfN(rapid.SampledFrom(there), 1, 8).Draw(rt, "names")
		picked, err := Pick(ctx, store, s[0], s[1], names, rapid.Bool().Draw(rt, "dependencies"))
		if err != nil {
			rt.Fatal(err)
		}
		slices.Reverse(names)
		again, err := Pick(ctx, store, picked.State, s[1], names, false)
		if err != nil || again.State.ID() != picked.State.ID() {
			rt.Fatalf("picked again, in another order, it is another state: %v", err)
		}
		if whole := rebuilt(t, store, picked.State); whole.ID() != picked.State.ID() {
			rt.Fatalf("it is cut\n%s\nbuilt at once\n%s", picked.State.Text(), whole.Text())
		}
		got, _ := naive(t, store, First, picked.State)
		base, _ := naive(t, store, First, s[0])
		from, _ := naive(t, store, First, s[1])
		for _, name := range slices.Concat(there, names) {
			for _, component := range []string{"apps", "base"} {
				at, want := component+"/"+name, base[component+"/"+name]
				if slices.Contains(names, name) {
					want = from[at]
				}
				if !slices.Equal(got[at], want) {
					rt.Fatalf("%s is %v, want %v", at, got[at], want)
				}
			}
		}
	})
}

// Picking costs what is picked.
func pickOpensFewChunks(t *testing.T, store *counting, s State) {
	ctx := context.Background()
	edit := Edit{Component: "apps"}
	for i := 0; i < 20000; i += 10 {
		name := fmt.Sprintf("package%05d", i)
		edit.Remove = append(edit.Remove, Ref{name, "1.0-1", "amd64"})
		edit.Put = append(edit.Put, needing(t, name+"=2:amd64", "Depends: "+fmt.Sprintf("package%05d (>= 2)", (i+10000)%20000)))
	}
	from := must[State](t)(Apply(ctx, store, s, edit))
	for dependencies, want := range map[bool]int{false: 1, true: 2} {
		store.reset()
		picked, err := Pick(ctx, store, s, from, []string{"package00100"}, dependencies)
		if err != nil || len(picked.Names) != want || len(picked.Unmet) > 0 {
			t.Fatalf("picked %v, unmet %v, %v", picked.Names, picked.Unmet, err)
		}
		// Whether somebody provides package10100 (>= 2) the whole base tells.
		most := 6
		if dependencies {
			most += len(s.Index(amd64).Chunks)
		}
		if len(store.gets) > most || store.new > want+1 {
			t.Errorf("picking %d packages opened %d chunks and wrote %d texts", want, len(store.gets), store.new)
		}
	}
}
