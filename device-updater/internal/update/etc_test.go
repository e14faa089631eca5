package update

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
)

// TestEditsOnTheWay are edits of /etc at each moment of an update with a real
// disk, apt and merge: before it, while it is staged, on trial, and after a
// trial that was bad.
func TestEditsOnTheWay(t *testing.T) {
	b := newBench(t, 2<<30)
	update := func(o Options) {
		t.Helper()
		if err := b.machine.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	view := func() View {
		t.Helper()
		v, err := Look(b, b.machine.Records, b.machine.Journal.Last(), "dev")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	b.put("etc/app.d/a", "before\n") // of a conffile, which the next release changes
	release := app("echo made >/etc/made")
	release.Files["etc/app.d/a"], release.Files["etc/app.conf"] = "a of 2\n", "of release 2\n"
	b.ship(release)
	update(Options{})
	b.put("etc/app.conf", "while staged\n")
	b.put("etc/local", "while staged\n")
	update(Options{Reboot: true})
	b.reboot()
	if b.current != 2 || b.rebooting {
		t.Fatalf("it runs %d, rebooting: %v", b.current, b.rebooting)
	}
	for path, want := range map[string]string{
		"etc/app.d/a": "before\n", "etc/app.d/a.dpkg-dist": "a of 2\n", "etc/app.conf": "while staged\n", "etc/app.conf.aptfleet-new": "of release 2\n",
		"etc/local": "while staged\n", "etc/made": "made\n",
	} {
		if got := b.read(b.booted(path)); got != want {
			t.Errorf("/%s is %q, want %q", path, got, want)
		}
	}
	v := view()
	want := []merge.Conflict{{Path: "app.conf", Kind: merge.Edited, Beside: "app.conf.aptfleet-new"}}
	if v.Etc == nil || v.Etc.Deployment != 2 || !slices.Equal(v.Etc.Conflicts, want) || !slices.Equal(v.Etc.Taken, []string{"local"}) || len(v.Edits) > 0 {
		t.Errorf("what is told: %+v, %+v", v.Etc, v.Edits)
	}

	// The next release goes back. What somebody did meanwhile is kept aside.
	b.ship(release)
	update(Options{Reboot: true})
	b.bad = "app.service failed"
	b.onTrial = func() {
		b.put("etc/app.conf", "on trial\n")
		b.put("etc/new", "on trial\n")
		if err := errors.Join(os.Remove(b.booted("etc/local")), os.WriteFile(b.booted("etc/ld.so.cache"), []byte("made"), 0o644)); err != nil {
			t.Error(err)
		}
	}
	b.reboot()
	b.bad, b.onTrial = "", nil
	b.reboot()
	if b.current != 2 {
		t.Fatalf("it runs %d", b.current)
	}
	v = view()
	if len(v.Edits) != 1 || v.Edits[0].Deployment != 3 || !slices.Equal(v.Edits[0].Changed, []string{"app.conf", "new"}) || !slices.Equal(v.Edits[0].Deleted, []string{"local"}) {
		t.Fatalf("what was done on trial: %+v", v.Edits)
	}
	for path, want := range map[string]string{"app.conf": "on trial\n", "new": "on trial\n"} {
		if got := b.read(filepath.Join(v.Edits[0].Files, path)); got != want {
			t.Errorf("%s was kept as %q", path, got)
		}
	}
	if got := b.read(b.booted("etc/app.conf")); got != "while staged\n" {
		t.Errorf("what was done on trial is in the running root: %q", got)
	}
	// Once somebody has seen to them, they are gone.
	if err := os.RemoveAll(filepath.Dir(v.Edits[0].Files)); err != nil {
		t.Fatal(err)
	}
	if v = view(); len(v.Edits) > 0 {
		t.Errorf("%+v", v.Edits)
	}
	// The conflict is there until it is resolved.
	b.ship(release)
	update(Options{Reboot: true})
	b.reboot()
	if v = view(); v.Etc == nil || len(v.Etc.Conflicts) != 1 {
		t.Errorf("%+v", v.Etc)
	}
	b.put("etc/app.conf", b.read(b.booted("etc/app.conf.aptfleet-new")))
	b.ship(release)
	update(Options{Reboot: true})
	b.reboot()
	if v = view(); v.Etc == nil || len(v.Etc.Conflicts) > 0 {
		t.Errorf("%+v", v.Etc)
	}
	if _, err := os.Lstat(b.booted("etc/app.conf.aptfleet-new")); !os.IsNotExist(err) {
		t.Errorf("the release's version still lies there: %v", err)
	}
	failedMerge(t, b)
}

// failedMerge is no switch: the device stays what it is, the release is not
// blamed, and the next attempt begins with the root as it then is.
func failedMerge(t *testing.T, b *bench) {
	before, err := b.roots.List("deployments")
	if err != nil {
		t.Fatal(err)
	}
	b.ship(app("useradd -u 3333 app || echo app:x:3333:3333::/:/bin/sh >>/etc/passwd"))
	if err := b.machine.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	passwd := b.read(b.booted("etc/passwd"))
	b.put("etc/passwd", passwd+"alice:x:3333:3333::/:/bin/sh\n")
	err = b.machine.Update(t.Context(), Options{Reboot: true})
	if err == nil || !strings.Contains(err.Error(), "would both have number 3333") || b.rebooting {
		t.Fatalf("%v, rebooting: %v", err, b.rebooting)
	}
	if tx := b.machine.Journal.Last(); tx.Phase != journal.Idle || b.failed() != "" {
		t.Errorf("%+v; %s", tx, b.failed())
	}
	if trial, ok := b.Trial(); ok && trial.Tries > 0 {
		t.Error("the boot loader was told")
	}
	if names, err := b.roots.List("deployments"); err != nil || !slices.Equal(names, before) {
		t.Errorf("deployments: %v, %v", names, err)
	}
	b.put("etc/passwd", passwd)
	if err := b.machine.Update(t.Context(), Options{Reboot: true}); err != nil || !b.rebooting {
		t.Errorf("%v, rebooting: %v", err, b.rebooting)
	}
}

// TestKeptEditsAreBounded: in number of trials, and in size.
func TestKeptEditsAreBounded(t *testing.T) {
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base, running, target := t.TempDir(), t.TempDir(), t.TempDir()
	result, err := merge.Trees(base, running, target)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "small"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(target, "big"), make([]byte, keepEditSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		if err := records.PutEtc(n+1, result, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		if kept, err := records.keepEditsOf(t.Context(), n+1, target, time.Unix(int64(n), 0)); err != nil || !kept {
			t.Fatal(kept, err)
		}
		if err := records.Forget(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	all, err := records.KeptEdits()
	if err != nil || len(all) != keepEdits || all[2].Deployment != 7 || all[2].Left != 1 || !slices.Equal(all[2].Changed, []string{"big", "small"}) {
		t.Errorf("%+v, %v", all, err)
	}
	if names, err := os.ReadDir(records.path("etc")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
