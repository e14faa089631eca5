package update

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/apttest"
)

// overlays: local packages are on top of one release and the next, and gone
// without a trace.
func overlays(t *testing.T, f *fleet, direct *exactDevice) {
	d := f.fresh()
	d.mustMove(f.boms[1])
	keep := func(packages ...apttest.Package) Overlay {
		t.Helper()
		var files []string
		for _, p := range packages {
			files = append(files, f.archive.Deb(p))
		}
		o, err := d.source.Records.KeepLocal(files, "ann", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	local := func(version, fields string) apttest.Package {
		return apttest.Package{Name: "app", Version: version, Fields: fields, Files: map[string]string{"usr/bin/app": "local\n", "usr/share/app/version": version + "~local\n"}}
	}
	has := func(path, want string) {
		t.Helper()
		if got, err := os.ReadFile(filepath.Join(d.root, path)); err != nil || string(got) != want {
			t.Errorf("/%s is %q (%v), want %q", path, got, err, want)
		}
	}
	// The same version as that of the release, with other bytes: an own build.
	same := keep(local("1", ""))
	d.mustMove(f.boms[1], same...)
	has("usr/share/app/version", "1~local\n")
	// And of another size: that is another package to apt.
	bigger := local("1", "")
	bigger.Files["usr/share/app/big"] = strings.Repeat("x", 100_000)
	d.mustMove(f.boms[1], keep(bigger)...)
	has("usr/share/app/big", bigger.Files["usr/share/app/big"])
	d.mustMove(f.boms[1], same...)
	d.mustMove(f.boms[1])
	has("usr/share/app/version", "1\n")
	d.mustMove(f.boms[1], same...)
	// Another version, with a package that only the next release has.
	fresh := same.With(keep(local("0.9", "Depends: mine\n"), apttest.Package{Name: "mine", Version: "1", Files: map[string]string{"usr/bin/mine": "x"}}))
	if got := strings.Join(fresh.Names(), ", "); got != "app 0.9, mine 1" {
		t.Errorf("the overlay is %s", got)
	}
	d.mustMove(f.boms[1], fresh...)
	has("usr/share/app/version", "0.9~local\n")
	needs := fresh.With(keep(local("0.8", "Depends: mine, extra\n")))
	if _, err := d.move(f.boms[1], needs...); err == nil || !strings.Contains(err.Error(), "app : Depends: extra") || !strings.Contains(err.Error(), "rejoin") {
		t.Errorf("what it needs is not in this release: %v", err)
	}
	d.mustMove(f.boms[2], needs...)
	has("usr/share/app/version", "0.8~local\n")
	if log, err := d.move(f.boms[3], needs...); err == nil {
		t.Errorf("what it needs is not in the next release\n%s", log)
	}
	// The very packages again are nothing to do, and VERIFY knows of them.
	if plan, err := d.source.Plan(t.Context(), Offer{State: stateID(2), BOM: f.boms[2], Overlay: needs, Booted: true}, d.root, d.record); err != nil || !plan.Empty() {
		t.Errorf("%v, %v", plan.Changes(), err)
	}
	if wrong, err := Mismatch(d.root, d.record); wrong != "" || err != nil {
		t.Errorf("%s, %v", wrong, err)
	}
	for name, c := range map[string]struct {
		p    apttest.Package
		says string
	}{
		"needs what nobody has":           {apttest.Package{Name: "mine2", Version: "1", Fields: "Depends: nowhere (>= 3)\n"}, "mine2 : Depends: nowhere (>= 3)"},
		"would remove an essential one":   {apttest.Package{Name: "mine2", Version: "1", Fields: "Conflicts: base-files\n"}, "mine2 : Conflicts: base-files"},
		"would remove one of the release": {apttest.Package{Name: "mine2", Version: "1", Fields: "Conflicts: tool\n"}, "Conflicts: tool"},
		"of another architecture":         {apttest.Package{Name: "mine2", Version: "1", Architecture: "s390x"}, "it is for s390x"},
		"breaks the updater": {apttest.Package{
			Name: "device-updater", Version: "2", Files: map[string]string{"usr/bin/device-updater": "#!/bin/sh\nexit 1\n"}, Modes: map[string]os.FileMode{"usr/bin/device-updater": 0o755},
		}, "could never be updated"},
	} {
		before := d.record
		if log, err := d.move(f.boms[2], needs.With(keep(c.p))...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: want an error about %q, got %v\n%s", name, c.says, err, log)
		}
		d.record = before
	}
	// Without them it is what every device is.
	d.mustMove(f.boms[3])
	samePackages(t, direct, d)
}

// TestKeepLocal refuses what is no package, and keeps nothing of it.
func TestKeepLocal(t *testing.T) {
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	archive := apttest.New(t)
	good := archive.Deb(apttest.Package{Name: "app", Version: "1.2~local"})
	other := archive.Deb(apttest.Package{Name: "app", Version: "1.3~local"})
	text := filepath.Join(t.TempDir(), "readme.deb")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(t.TempDir(), "torn.deb")
	if err := os.WriteFile(torn, whole[:len(whole)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe.deb")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		files []string
		says  string
	}{
		{[]string{pipe}, "it is not a file"}, {[]string{text}, "it is not a .deb"}, {[]string{torn}, "torn.deb"}, {[]string{"/nowhere.deb"}, "no such file"}, {[]string{t.TempDir()}, "it is not a file"},
		{[]string{good, other}, "holds package app too"}, {[]string{"/dev/zero"}, "it is not a file"},
	} {
		if _, err := records.KeepLocal(c.files, "", time.Now()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want something about %q", c.files, err, c.says)
		}
	}
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	o, err := records.KeepLocal([]string{good}, "ann", at)
	if err != nil || len(o) != 1 || o[0].String() != "app 1.2~local" || o[0].By != "ann" || !o[0].At.Equal(at) || o[0].File != filepath.Base(good) {
		t.Fatalf("%+v, %v", o, err)
	}
	if kept, err := os.ReadFile(records.LocalFile(o[0])); err != nil || string(kept) != string(whole) {
		t.Errorf("%d bytes were kept, %v", len(kept), err)
	}
	if err := records.PutOverlay(o); err != nil {
		t.Fatal(err)
	}
	if got, err := records.Overlay(); err != nil || got.ID() != o.ID() || got.ID() == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := records.SweepLocal(o); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(records.path("overlay/*"))
	if err != nil || len(left) != 2 {
		t.Errorf("kept %v, %v", left, err)
	}
	for range 2 {
		if err := records.PutOverlay(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := records.SweepLocal(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(records.path("overlay/*")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
