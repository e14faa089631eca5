package apt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestRepair: damaged packages of the list are fetched once more, others are
// not.
func TestRepair(t *testing.T) {
	item := func(name, arch string) Package {
		return Package{Name: name, Architecture: arch, Version: "1", SHA256: hash}
	}
	list := []Package{item("app", "all"), item("lib", "amd64"), item("lib", "i386"), item("new", "all"), item("tool", "amd64")}
	var found []Installed
	for _, p := range append(list[:3:3], list[4], item("gone", "all")) {
		found = append(found, Installed{p, wholeStatus})
	}
	plan := MakePlan(list, found, nil, "amd64")
	plan.Repair([]string{"app", "lib:i386", "new", "gone", "nobody"})
	var got []string
	for _, f := range plan.Fetch {
		got = append(got, f.Name+":"+f.Architecture)
	}
	if strings.Join(got, " ") != "app:all lib:i386 new:all" {
		t.Errorf("fetches %v", got)
	}
	for name, want := range map[string]bool{"app": true, "app:amd64": true, "lib:i386": true, "lib:amd64": false, "tool": false, "gone": false} {
		if plan.Installs(name) != want {
			t.Errorf("it installs %s: %v", name, !want)
		}
	}
	if signs := plan.Changes(); len(signs) != 4 || signs[0].Sign() != "=" {
		t.Errorf("%v", signs)
	}
}

// TestLocalPackagesAreFetchedUnlessKnown: the same version says nothing.
func TestLocalPackagesAreFetchedUnlessKnown(t *testing.T) {
	local := LocalPackage("app", "all", "2:1~x", hash, 12, "/overlay/"+hash+".deb")
	if local.File != "app_2%3a1~x_all.deb" || local.Argument() != "/overlay/"+hash+".deb" {
		t.Errorf("%+v", local)
	}
	found := []Installed{{Package{Name: "app", Architecture: "all", Version: "2:1~x"}, wholeStatus}}
	for _, c := range []struct {
		known map[string]string
		want  bool
	}{{nil, true}, {map[string]string{local.String(): strings.Repeat("0", 64)}, true}, {map[string]string{local.String(): hash}, false}} {
		if plan := MakePlan([]Package{local}, found, c.known, "amd64"); (len(plan.Fetch) == 1) != c.want {
			t.Errorf("known %v: fetches %v", c.known, plan.Fetch)
		}
	}
}

// TestRefuseOthers names what apt fetched of itself.
func TestRefuseOthers(t *testing.T) {
	p, err := NewPrivate(t.TempDir(), Source{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.refuseOthers(Plan{}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"app_1_all.deb", "lock"} {
		if err := os.MkdirAll(p.Path("archives"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Path("archives"), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.refuseOthers(Plan{Fetch: []Package{{File: "app_1_all.deb"}}}); err != nil {
		t.Error(err)
	}
	if err := p.refuseOthers(Plan{}); err == nil || !strings.Contains(err.Error(), "app_1_all.deb") {
		t.Errorf("%v", err)
	}
}

func TestUnmet(t *testing.T) {
	failed := errors.New("you have held broken packages")
	said := "Reading…\nThe following packages have unmet dependencies:\n bad : Depends: nowhere (>= 3)\n       Depends: b\n c : x\n d : y\nE: no\n"
	for text, want := range map[string]string{
		said:      "bad : Depends: nowhere (>= 3); Depends: b; c : x: you have held broken packages",
		"nothing": "you have held broken packages",
		"The following packages have unmet dependencies:\n": "you have held broken packages",
	} {
		if got := unmet(text, failed); got.Error() != want || !errors.Is(got, failed) {
			t.Errorf("%q", got)
		}
	}
}

// TestWishesAreAMismatch: two devices are alike to dpkg too.
func TestWishesAreAMismatch(t *testing.T) {
	p := Package{Name: "app", Architecture: "all", Version: "1"}
	held := []Installed{{p, "hold ok installed"}}
	if got := Mismatch([]Package{p}, held); got != `app is "hold ok installed"` {
		t.Errorf("%q", got)
	}
	if plan := MakePlan([]Package{p}, held, nil, "amd64"); plan.Empty() || len(plan.Fetch) > 0 {
		t.Errorf("a hold is nothing to do: %+v", plan)
	}
}
