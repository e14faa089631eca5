package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
)

// universeOf makes a universe of one line a package:
//
//	name version [field: value]…
//
// with "; " between the fields.
func universeOf(t interface {
	Helper()
	Fatal(...any)
}, lines []string) *universe {
	t.Helper()
	u, err := newUniverse("amd64", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		head, fields, _ := strings.Cut(line, " | ")
		name, version, _ := strings.Cut(strings.TrimSpace(head), " ")
		text := "Package: " + name + "\nVersion: " + version + "\nArchitecture: amd64\n"
		for _, field := range strings.Split(fields, "; ") {
			if field != "" {
				text += strings.TrimSpace(field) + "\n"
			}
		}
		stanza, err := deb.ParseStanza([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := u.add(&upstream{}, stanza); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.seal(); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestClosure(t *testing.T) {
	for _, c := range []struct {
		name       string
		universe   []string
		wanted     []string
		recommends bool
		want       string // members, or
		err        string
	}{
		{name: "depends and pre-depends, transitively",
			universe: []string{"aa 1 | Depends: bb; Pre-Depends: cc", "bb 1 | Depends: dd", "cc 1", "dd 1 | Depends: aa", "ee 1"},
			wanted:   []string{"aa"}, want: "aa bb cc dd"},
		{name: "recommends only when asked for",
			universe: []string{"aa 1 | Recommends: bb, gone", "bb 1"}, wanted: []string{"aa"}, want: "aa"},
		{name: "recommends, and missing ones do not matter",
			universe: []string{"aa 1 | Recommends: bb, gone", "bb 1"}, wanted: []string{"aa"}, recommends: true, want: "aa bb"},
		{name: "every device's packages",
			universe: []string{"aa 1", "bash 5 | Essential: yes; Depends: base-files", "base-files 1", "passwd 4 | Priority: required",
				"apt 3 | Priority: important", "vim 9 | Priority: important"},
			wanted: []string{"aa"}, want: "aa apt base-files bash passwd"},
		{name: "the first real alternative",
			universe: []string{"aa 1 | Depends: xx | cc | bb", "bb 1", "cc 1", "dd 1 | Provides: xx"}, wanted: []string{"aa"}, want: "aa cc"},
		{name: "an alternative that is there already",
			universe: []string{"aa 1 | Depends: bb | cc", "bb 1", "cc 1"}, wanted: []string{"aa", "cc"}, want: "aa cc"},
		{name: "an alternative that something later needs anyway",
			universe: []string{"aa 1 | Depends: bb | cc, dd", "bb 1", "cc 1", "dd 1 | Depends: cc"}, wanted: []string{"aa"}, want: "aa cc dd"},
		{name: "an alternative whose version fits",
			universe: []string{"aa 1 | Depends: bb (>= 2) | cc (<< 2)", "bb 1", "cc 1"}, wanted: []string{"aa"}, want: "aa cc"},
		{name: "a provider that is there already",
			universe: []string{"aa 1 | Depends: mta", "bb 1 | Provides: mta", "cc 1 | Provides: mta"}, wanted: []string{"aa", "cc"}, want: "aa cc"},
		{name: "the most important provider, then the first by name",
			universe: []string{"aa 1 | Depends: mta, awk", "cc 1 | Provides: mta", "bb 1 | Provides: mta", "gawk 1 | Provides: awk; Priority: optional", "mawk 1 | Provides: awk; Priority: standard"},
			wanted:   []string{"aa"}, want: "aa bb mawk"},
		{name: "versioned provides",
			universe: []string{"aa 1 | Depends: api (>= 2)", "bb 1 | Provides: api (= 1)", "cc 1 | Provides: api", "dd 9 | Provides: api (= 2.1)"},
			wanted:   []string{"aa"}, want: "aa dd"},
		{name: "a provides without version does not satisfy one with",
			universe: []string{"aa 1 | Depends: api (>= 2)", "cc 1 | Provides: api"}, wanted: []string{"aa"}, err: `"api (>= 2)"`},
		{name: "qualifiers",
			universe: []string{"aa 1 | Depends: python:any, perl:amd64", "python 3", "perl 5"}, wanted: []string{"aa"}, want: "aa perl python"},
		{name: "another architecture's package",
			universe: []string{"aa 1 | Depends: wine:i386", "wine 1"}, wanted: []string{"aa"}, err: `"wine:i386" for amd64`},
		{name: "the highest version counts",
			universe: []string{"aa 1~rc1 | Depends: gone", "aa 1", "aa 1~rc2 | Depends: gone"}, wanted: []string{"aa"}, want: "aa"},
		{name: "a missing dependency names the chain",
			universe: []string{"aa 1 | Depends: bb", "bb 2 | Depends: cc (>= 1)", "cc 3 | Depends: gone | away (= 1)"}, wanted: []string{"aa"},
			err: `cannot satisfy "gone | away (= 1)" for amd64: the mirrored components have no such package; it is needed by cc 3, needed by bb 2, needed by aa 1 (wanted)`},
		{name: "a relation that cannot be read",
			universe: []string{"aa 1 | Depends: bb (1)", "bb 2"}, wanted: []string{"aa"}, err: "cannot read Depends of aa 1 (wanted)"},
		{name: "unknown wishes are left out", universe: []string{"aa 1"}, wanted: []string{"zz", "aa"}, want: "aa"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := universeOf(t, c.universe)
			defer u.Close()
			members, err := u.close(rootsOf(c.wanted), c.recommends)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := memberNames(members); got != c.want {
				t.Errorf("members %q, want %q", got, c.want)
			}
		})
	}
}

// Whatever the universe: a closure has its roots, lacks no dependency, and is
// the same in whatever order the index lists its packages and the wishes come.
func TestClosureIsClosedAndDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const packages, virtuals = 12, 3
		name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("p%02d", rapid.IntRange(0, packages-1).Draw(t, "package")) })
		virtual := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("v%02d", rapid.IntRange(0, virtuals-1).Draw(t, "virtual")) })
		relation := rapid.Custom(func(t *rapid.T) string {
			r := rapid.OneOf(name, name, virtual).Draw(t, "name")
			op := rapid.SampledFrom([]string{"", "", ":any", " (>= 2)", " (<< 3)", " (= 1)"}).Draw(t, "op")
			return r + op
		})
		group := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(relation, 1, 3).Draw(t, "alternatives"), " | ")
		})
		lines := []string{"v00 1"} // a name that is real and virtual
		for i := range packages {
			line := fmt.Sprintf("p%02d %d | ", i, rapid.IntRange(1, 3).Draw(t, "version"))
			var fields []string
			if groups := rapid.SliceOfN(group, 0, 3).Draw(t, "depends"); len(groups) > 0 {
				fields = append(fields, "Depends: "+strings.Join(groups, ", "))
			}
			if rapid.Bool().Draw(t, "provides") {
				version := rapid.SampledFrom([]string{"", " (= 2)"}).Draw(t, "provided version")
				fields = append(fields, "Provides: "+virtual.Draw(t, "provided")+version)
			}
			if rapid.IntRange(0, 9).Draw(t, "essential") == 0 {
				fields = append(fields, "Essential: yes")
			}
			lines = append(lines, line+strings.Join(fields, "; "))
		}
		wanted := rapid.SliceOfN(name, 1, 3).Draw(t, "wanted")
		seed := rapid.Uint64().Draw(t, "seed")

		u := universeOf(t, lines)
		defer u.Close()
		members, err := u.close(rootsOf(wanted), false)

		shuffled, reversed := slices.Clone(lines), slices.Clone(wanted)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		slices.Reverse(reversed)
		v := universeOf(t, shuffled)
		defer v.Close()
		again, errAgain := v.close(rootsOf(reversed), false)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || memberNames(members) != memberNames(again) {
			t.Fatalf("in another order: %s, %v; first: %s, %v", memberNames(again), errAgain, memberNames(members), err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "cannot satisfy") {
				t.Fatal(err)
			}
			return
		}
		for _, root := range append(wanted, u.base()...) {
			if !slices.ContainsFunc(members, func(m *chosen) bool { return m.name == root }) {
				t.Fatalf("%s is missing from %s", root, memberNames(members))
			}
		}
		for _, m := range members {
			stanza, err := u.stanza(m.candidate)
			if err != nil {
				t.Fatal(err)
			}
			groups, err := deb.ParseRelations(stanza.Get("Depends"))
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range groups {
				if !slices.ContainsFunc(members, func(o *chosen) bool {
					return slices.ContainsFunc(group, func(r deb.Relation) bool { return u.satisfiedBy(r, o.candidate) })
				}) {
					t.Fatalf("nobody in %s satisfies %v of %s", memberNames(members), group, m.name)
				}
			}
		}
	})
}

func memberNames(members []*chosen) string {
	var names []string
	for _, m := range members {
		names = append(names, m.name)
	}
	return strings.Join(names, " ")
}
