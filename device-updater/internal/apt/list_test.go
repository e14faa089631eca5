package apt

import (
	"strings"
	"testing"
)

const status = `Package: app
Status: install ok installed
Architecture: all
Version: 1
Description: x
 y

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 3

Package: lib
Status: install ok installed
Architecture: amd64
Version: 1:2

Package: never
Status: unknown ok not-installed
Architecture: amd64

`

func TestPlan(t *testing.T) {
	installed, err := ParseStatus(strings.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	p := func(name, arch, version, sum string) Package {
		return Package{Name: name, Architecture: arch, Version: version, SHA256: sum, Size: 10}
	}
	for _, c := range []struct {
		name          string
		list          []Package
		known         map[string]string
		fetch, remove string
		arguments     string
	}{
		{
			"the same", []Package{p("app", "all", "1", "a"), p("lib", "amd64", "1:2", "b")}, nil,
			"", "gone", "app=1 lib:amd64=1:2 gone-",
		}, {
			"upgrade and downgrade", []Package{p("app", "all", "2", "a"), p("lib", "amd64", "1", "b")}, nil,
			"app:all=2 lib:amd64=1", "gone", "app=2 lib:amd64=1 gone-",
		}, {
			"renamed", []Package{p("app2", "all", "2", "a"), p("lib", "amd64", "1:2", "b")}, nil,
			"app2:all=2", "app gone", "app2=2 lib:amd64=1:2 app- gone-",
		}, {
			"from all to one architecture", []Package{p("app", "amd64", "1", "a"), p("lib", "amd64", "1:2", "b")}, nil,
			"app:amd64=1", "gone", "app:amd64=1 lib:amd64=1:2 gone-",
		}, {
			"comes back", []Package{p("app", "all", "1", "a"), p("gone", "amd64", "3", "c"), p("lib", "amd64", "1:2", "b")}, nil,
			"gone:amd64=3", "", "app=1 gone:amd64=3 lib:amd64=1:2",
		}, {
			"built anew", []Package{p("app", "all", "1", "new"), p("lib", "amd64", "1:2", "b")},
			map[string]string{"app:all=1": "old", "lib:amd64=1:2": "b"},
			"app:all=1", "gone", "app=1 lib:amd64=1:2 gone-",
		},
	} {
		plan := MakePlan(c.list, installed, c.known, "amd64")
		var fetch, remove []string
		for _, f := range plan.Fetch {
			fetch = append(fetch, f.String())
		}
		for _, r := range plan.Remove {
			remove = append(remove, r.Name)
		}
		if got := strings.Join(fetch, " "); got != c.fetch {
			t.Errorf("%s: fetch %q, want %q", c.name, got, c.fetch)
		}
		if got := strings.Join(remove, " "); got != c.remove {
			t.Errorf("%s: remove %q, want %q", c.name, got, c.remove)
		}
		if got := strings.Join(plan.arguments(), " "); got != c.arguments {
			t.Errorf("%s: arguments %q, want %q", c.name, got, c.arguments)
		}
		if plan.FetchSize() != int64(10*len(fetch)) {
			t.Errorf("%s: size %d", c.name, plan.FetchSize())
		}
	}
}

func TestChanges(t *testing.T) {
	installed, err := ParseStatus(strings.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	plan := MakePlan([]Package{
		{Name: "app", Architecture: "amd64", Version: "2"}, {Name: "gone", Architecture: "amd64", Version: "3"},
		{Name: "lib", Architecture: "amd64", Version: "1"}, {Name: "new", Architecture: "all", Version: "1"},
	}, installed, nil, "amd64")
	plan.Remove = append(plan.Remove, Installed{Package: Package{Name: "old", Version: "9"}})
	var got []string
	for _, c := range plan.Changes() {
		got = append(got, c.Sign()+" "+c.Name+" "+c.Old+" "+c.New)
	}
	if want := "↑ app 1 2, + gone  3, ↓ lib 1:2 1, + new  1, - old 9 "; strings.Join(got, ", ") != want {
		t.Errorf("got %s", strings.Join(got, ", "))
	}
	if sign := (Change{Old: "1", New: "1"}).Sign(); sign != "=" {
		t.Errorf("another build is %s", sign)
	}
}

func TestMismatch(t *testing.T) {
	list := []Package{{Name: "a", Version: "1", Architecture: "all"}, {Name: "b", Version: "1", Architecture: "amd64"}}
	is := func(p Package, s string) Installed { return Installed{p, s} }
	const ok = "install ok installed"
	for name, c := range map[string]struct {
		installed []Installed
		want      string
	}{
		"equal":      {[]Installed{is(list[0], ok), is(list[1], ok)}, ""},
		"missing":    {[]Installed{is(list[0], ok)}, "b:amd64=1 is not installed"},
		"version":    {[]Installed{is(list[0], ok), is(Package{Name: "b", Version: "2", Architecture: "amd64"}, ok)}, "b:amd64=1 is not installed"},
		"half":       {[]Installed{is(list[0], ok), is(list[1], "install ok half-configured")}, `b is "install ok half-configured"`},
		"too many":   {[]Installed{is(list[0], ok), is(list[1], ok), is(Package{Name: "c", Version: "1", Architecture: "all"}, ok)}, "c:all=1 is installed and not in the list"},
		"left-overs": {[]Installed{is(list[0], ok), is(list[1], ok), is(Package{Name: "c", Version: "1", Architecture: "all"}, "deinstall ok config-files")}, `c is "deinstall ok config-files"`},
	} {
		if got := Mismatch(list, c.installed); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestExtendedStates(t *testing.T) {
	list := []Package{{Name: "app", Architecture: "all"}, {Name: "lib", Architecture: "all"}, {Name: "x", Architecture: "i386"}}
	want := "Package: lib\nArchitecture: amd64\nAuto-Installed: 1\n\nPackage: x\nArchitecture: i386\nAuto-Installed: 1\n\n"
	if got := extendedStates(list, []string{"app"}, "amd64"); got != want {
		t.Errorf("got\n%s", got)
	}
}
