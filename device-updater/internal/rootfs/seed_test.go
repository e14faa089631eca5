package rootfs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// mounted mounts the state of deployment n over its root, as a boot does, lets
// look see it, and ends the boot.
func mounted(t *testing.T, top string, n int, look func(root string)) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", filepath.Join(top, "deployments", strconv.Itoa(n)), root)
	defer func() {
		if out, err := exec.Command("umount", "-R", root).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}()
	s := rootfs.State{Root: root, Sysroot: top, Deployment: n, Warn: func(err error) { t.Errorf("deployment %d: %v", n, err) }}
	if err := errors.Join(s.Mount(), s.Mount()); err != nil {
		t.Fatal(err)
	}
	look(root)
}

// bring makes deployment n with seeds.
func bring(t *testing.T, top string, n int, seeds map[string]string) {
	t.Helper()
	for path, content := range seeds {
		put(t, filepath.Join(top, "deployments", strconv.Itoa(n), path), content)
	}
}

// holds compares what lies below root; "" is for nothing.
func holds(t *testing.T, root string, want map[string]string) {
	t.Helper()
	for path, content := range want {
		got, err := os.ReadFile(filepath.Join(root, path))
		if content == "" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || string(got) != content {
			t.Errorf("/%s is %q (%v), want %q", path, got, err, content)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// TestSeedsComeOnce for each path, whatever release brings them.
func TestSeedsComeOnce(t *testing.T) {
	top, _ := disk(t)
	units := rootfs.Units{Sysroot: top}
	both := map[string]string{"var/lib/app/deleted": "1", "var/lib/app/edited": "1", "var/lib/app/dir/x": "1", "srv/kept": "1"}
	bring(t, top, 1, both)
	mounted(t, top, 1, func(root string) {
		holds(t, root, both)
		remove(t, filepath.Join(root, "var/lib/app/deleted"))
		remove(t, filepath.Join(root, "var/lib/app/dir"))
		put(t, filepath.Join(root, "var/lib/app/edited"), "mine")
		put(t, filepath.Join(root, "var/lib/app/own"), "mine")
	})
	bring(t, top, 2, both)
	bring(t, top, 2, map[string]string{"var/lib/app/own": "2", "var/lib/app/dir/new": "2"})
	if err := unix.Chmod(filepath.Join(top, "deployments/2/var/lib/app/dir"), 0o710); err != nil {
		t.Fatal(err)
	}
	after := map[string]string{"var/lib/app/deleted": "", "var/lib/app/edited": "mine", "var/lib/app/dir/x": "", "var/lib/app/dir/new": "2", "var/lib/app/own": "mine", "srv/kept": "1"}
	mounted(t, top, 2, func(root string) {
		holds(t, root, after)
		if info, err := os.Stat(filepath.Join(root, "var/lib/app/dir")); err != nil || info.Mode().Perm() != 0o710 {
			t.Errorf("the directory of a new seed: %v, %v", info, err)
		}
		remove(t, filepath.Join(root, "var/lib/app/own"))
	})
	// The first deployment is long gone; what it brought is known.
	if err := errors.Join(units.SettleSeeds(1), os.Remove(filepath.Join(top, "updater/seeded/1")), units.SettleSeeds(1)); err != nil {
		t.Fatal(err)
	}
	bring(t, top, 3, both)
	bring(t, top, 3, map[string]string{"var/lib/app/own": "3"})
	after["var/lib/app/own"] = ""
	mounted(t, top, 3, func(root string) { holds(t, root, after) })
}

// TestSeedsOfATrialThatFailed are brought again by the next release, where they
// are gone.
func TestSeedsOfATrialThatFailed(t *testing.T) {
	top, _ := disk(t)
	units := "usr/lib/aptfleet/state.d/app.conf"
	bring(t, top, 1, map[string]string{units: "unit app 1 /var/lib/app\n", "var/lib/app/old": "1"})
	mounted(t, top, 1, func(root string) { put(t, filepath.Join(root, "var/lib/app/db"), "1") })
	bring(t, top, 2, map[string]string{units: "unit app 2 /var/lib/app\n", "var/lib/app/old": "1", "var/lib/app/template": "2", "srv/new": "2"})
	mounted(t, top, 2, func(root string) {
		holds(t, root, map[string]string{"var/lib/app/template": "2", "srv/new": "2"})
		put(t, filepath.Join(root, "var/lib/app/db"), "2")
	})
	mounted(t, top, 1, func(root string) {
		holds(t, root, map[string]string{"var/lib/app/template": "", "var/lib/app/db": "1", "srv/new": "2"})
		remove(t, filepath.Join(root, "srv/new"))
		remove(t, filepath.Join(root, "var/lib/app/old"))
	})
	bring(t, top, 3, map[string]string{units: "unit app 2 /var/lib/app\n", "var/lib/app/old": "1", "var/lib/app/template": "3", "srv/new": "3"})
	mounted(t, top, 3, func(root string) {
		holds(t, root, map[string]string{"var/lib/app/template": "3", "var/lib/app/old": "", "srv/new": ""})
	})
	// The updater forgets a deployment that failed, and all that it brought.
	remove(t, filepath.Join(top, "updater/seeded/2"))
	bring(t, top, 4, map[string]string{"srv/new": "4", "var/lib/app/old": "1"})
	remove(t, filepath.Join(top, "updater/seeded/3"))
	mounted(t, top, 4, func(root string) { holds(t, root, map[string]string{"srv/new": "4", "var/lib/app/old": ""}) })
}

// TestHardLinksAmongSeeds stay links.
func TestHardLinksAmongSeeds(t *testing.T) {
	top, _ := disk(t)
	bring(t, top, 1, map[string]string{"var/lib/app/a": "x", "var/lib/app/sub/c": "x"})
	remove(t, filepath.Join(top, "deployments/1/var/lib/app/sub/c"))
	if err := os.Link(filepath.Join(top, "deployments/1/var/lib/app/a"), filepath.Join(top, "deployments/1/var/lib/app/sub/c")); err != nil {
		t.Fatal(err)
	}
	mounted(t, top, 1, func(root string) {
		a, err := os.Stat(filepath.Join(root, "var/lib/app/a"))
		c, err2 := os.Stat(filepath.Join(root, "var/lib/app/sub/c"))
		if err != nil || err2 != nil || !os.SameFile(a, c) {
			t.Errorf("%v, %v", err, err2)
		}
	})
}

// TestDeclaredPaths outlive releases like the usual ones.
func TestDeclaredPaths(t *testing.T) {
	top, _ := disk(t)
	declared := map[string]string{"usr/lib/aptfleet/state.d/v.conf": "path /opt/vendor/data\npath /data\npath /data/inner\n"}
	bring(t, top, 1, declared)
	bring(t, top, 1, map[string]string{"opt/vendor/data/default": "1", "opt/vendor/program": "1", "data/inner/x": "1"})
	if err := os.Chmod(filepath.Join(top, "deployments/1/opt/vendor/data"), 0o2770); err != nil {
		t.Fatal(err)
	}
	mounted(t, top, 1, func(root string) {
		holds(t, root, map[string]string{"opt/vendor/data/default": "1", "opt/vendor/program": "1", "data/inner/x": "1"})
		if info, err := os.Stat(filepath.Join(root, "opt/vendor/data")); err != nil || info.Mode().Perm() != 0o770 {
			t.Errorf("the directory: %v, %v", info, err)
		}
		put(t, filepath.Join(root, "opt/vendor/data/rows"), "r")
		put(t, filepath.Join(root, "data/y"), "y")
		put(t, filepath.Join(root, "data/inner/z"), "z")
	})
	bring(t, top, 2, declared)
	bring(t, top, 2, map[string]string{"opt/vendor/program": "2", "opt/vendor/data/default": "2"})
	mounted(t, top, 2, func(root string) {
		holds(t, root, map[string]string{
			"opt/vendor/data/default": "1", "opt/vendor/program": "2", "opt/vendor/data/rows": "r", "data/y": "y", "data/inner/z": "z", "data/inner/x": "1",
		})
	})
	if _, err := os.Lstat(filepath.Join(top, "deployments/2/opt/vendor/data/rows")); !os.IsNotExist(err) {
		t.Errorf("state went into the deployment: %v", err)
	}
}

// TestAUnitInTroubleIsClosedOff: its application can neither read nor write it,
// and everything else is mounted.
func TestAUnitInTroubleIsClosedOff(t *testing.T) {
	top, _ := disk(t)
	conf := "usr/lib/aptfleet/state.d/app.conf"
	bring(t, top, 1, map[string]string{conf: "unit app 1 /var/lib/app\n", "var/lib/app/db": "1", "srv/x": "1"})
	bring(t, top, 2, map[string]string{conf: "unit app 2 /var/lib/app\n", "var/lib/app/new": "2", "srv/y": "2"})
	mounted(t, top, 1, func(string) {})
	put(t, filepath.Join(top, "kept/1"), "in the way")
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", filepath.Join(top, "deployments/2"), root)
	defer run(t, "umount", "-R", root)
	var said []error
	s := rootfs.State{Root: root, Sysroot: top, Deployment: 2, Warn: func(err error) { said = append(said, err) }}
	if err := s.Mount(); err != nil || len(said) != 1 {
		t.Fatalf("%v, said %v", err, said)
	}
	holds(t, root, map[string]string{"var/lib/app/db": "", "srv/x": "1", "srv/y": "2"})
	if err := os.WriteFile(filepath.Join(root, "var/lib/app/db"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing there: %v", err)
	}
	holds(t, top, map[string]string{"state/var-lib/app/db": "1", "state/var-lib/app/new": ""})
	// Once it can be kept, the next boot is a whole one.
	remove(t, filepath.Join(top, "kept/1"))
	mounted(t, top, 2, func(root string) { holds(t, root, map[string]string{"var/lib/app/db": "1", "var/lib/app/new": "2"}) })
}

// TestWrongDeclarationsKeepNothingFromBooting.
func TestWrongDeclarationsKeepNothingFromBooting(t *testing.T) {
	top, _ := disk(t)
	bring(t, top, 1, map[string]string{"usr/lib/aptfleet/state.d/app.conf": "path /opt/x\nnonsense\n", "opt/x/seed": "1", "srv/x": "1"})
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", filepath.Join(top, "deployments/1"), root)
	defer run(t, "umount", "-R", root)
	var said []error
	s := rootfs.State{Root: root, Sysroot: top, Deployment: 1, Warn: func(err error) { said = append(said, err) }}
	if err := s.Mount(); err != nil || len(said) != 1 {
		t.Fatalf("%v, said %v", err, said)
	}
	holds(t, root, map[string]string{"opt/x/seed": "1", "srv/x": "1"})
	holds(t, top, map[string]string{`state/opt-x/seed`: "1"})
}
