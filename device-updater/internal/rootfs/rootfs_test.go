package rootfs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// disk is a btrfs file system on a loop device.
func disk(t *testing.T) (top string, b *rootfs.Btrfs) {
	t.Helper()
	return diskIn(t, t.TempDir())
}

// diskIn is a disk whose image lies in dir.
func diskIn(t *testing.T, dir string) (top string, b *rootfs.Btrfs) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: `make test` runs as root")
	}
	image, top := filepath.Join(dir, "disk.img"), filepath.Join(dir, "top")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 300<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.btrfs", "-q", image)
	run(t, "mount", "-o", "loop", image, top)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-R", top).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	b, err := rootfs.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	return top, b
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v (`make test` installs what is missing): %v\n%s", argv, err, out)
	}
	return string(out)
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestSubvolumes is judged by the btrfs program.
func TestSubvolumes(t *testing.T) {
	top, b := disk(t)
	run(t, "btrfs", "subvolume", "create", filepath.Join(top, "one"))
	put(t, filepath.Join(top, "one/file"), "1")
	if err := b.Snapshot("one", "base/2", true); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "btrfs", "property", "get", filepath.Join(top, "base/2"), "ro"); !strings.Contains(got, "ro=true") {
		t.Errorf("base/2: %s", got)
	}
	if err := b.Snapshot("base/2", "pristine/2.work", false); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "pristine/2.work/file"), "2")
	if got := read(t, filepath.Join(top, "base/2/file")) + read(t, filepath.Join(top, "one/file")); got != "11" {
		t.Errorf("the sources changed: %s", got)
	}
	if err := b.Rename("pristine/2.work", "deployments/2"); err == nil {
		t.Error("renamed into a directory that is not there")
	}
	if err := b.Rename("pristine/2.work", "pristine/2"); err != nil {
		t.Fatal(err)
	}
	if err := b.Snapshot("one", "pristine/2", false); err == nil {
		t.Error("a snapshot took the place of another")
	}
	if err := b.Snapshot("pristine", "x", false); err == nil {
		t.Error("a plain directory was snapshotted")
	}
	if b.Exists("pristine") || b.Exists("nothing") || !b.Exists("pristine/2") {
		t.Error("Exists is wrong")
	}
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
	if free, err := b.Free(); err != nil || free <= 0 || free > 300<<20 {
		t.Errorf("free: %d, %v", free, err)
	}
	names, err := b.List("pristine")
	if err != nil || strings.Join(names, " ") != "2" {
		t.Errorf("%v, %v", names, err)
	}
	if names, err := b.List("nowhere"); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := rootfs.Open("/proc"); err == nil {
		t.Error("/proc was taken for btrfs")
	}
}

// TestRenameOfAMountedRoot: a trial that does not end is put out of the loader's
// sight while it runs, and the list of mounts then says so (package boot).
func TestRenameOfAMountedRoot(t *testing.T) {
	top, b := disk(t)
	if err := os.MkdirAll(filepath.Join(top, "deployments"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "btrfs", "subvolume", "create", filepath.Join(top, "deployments/3"))
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(run(t, "findmnt", "-no", "SOURCE", top))
	run(t, "mount", "-o", "subvol=deployments/3", device, root)
	t.Cleanup(func() { run(t, "umount", root) })
	put(t, filepath.Join(root, "before"), "1")
	if err := b.Rename("deployments/3", "deployments/3.work"); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "after"), "2")
	if b.Exists("deployments/3") || read(t, filepath.Join(top, "deployments/3.work/before"))+read(t, filepath.Join(top, "deployments/3.work/after")) != "12" {
		t.Error("the root that runs is not what was renamed")
	}
	mounts := read(t, "/proc/self/mountinfo")
	if !strings.Contains(mounts, " /deployments/3.work "+root+" ") {
		t.Errorf("the list of mounts says otherwise:\n%s", mounts)
	}
}

func TestManifest(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "b/file"), "content")
	if err := os.Symlink("a b\n", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "b/file"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(root, "b/file"), "trusted.x", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := rootfs.WriteManifest(t.Context(), &got, root, nil); err != nil {
		t.Fatal(err)
	}
	want := `d 0755 0:0 - - "/"
d 0755 0:0 - - "/b"
f 4755 0:0 ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73 trusted.x=76 "/b/file"
l 0777 0:0 "a b\n" - "/link"
p 0600 0:0 - - "/pipe"
`
	if got.String() != want {
		t.Errorf("got\n%s", &got)
	}
}

// TestState mounts state over a root in a mount namespace of its own, twice,
// and then over another deployment.
func TestState(t *testing.T) {
	top, _ := disk(t)
	for _, n := range []string{"1", "2"} {
		d := filepath.Join(top, "deployments", n)
		put(t, filepath.Join(d, "var/lib/dpkg/status"), "dpkg of "+n)
		put(t, filepath.Join(d, "var/lib/systemd/deb-systemd-helper-enabled/x"), "units of "+n)
		put(t, filepath.Join(d, "var/lib/systemd/random-seed"), "seed of "+n)
		put(t, filepath.Join(d, "var/lib/own/file"), "release of "+n)
		put(t, filepath.Join(d, "var/lib/app/default"), "default of "+n)
		put(t, filepath.Join(d, "home/skel"), "home of "+n)
		put(t, filepath.Join(d, "usr/lib/aptfleet/release.d/app.conf"), "# ours\n/var/lib/own\n")
		for _, dir := range []string{"root", "srv", "var/log", "var/spool", "usr/local"} {
			if err := os.MkdirAll(filepath.Join(d, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, filepath.Join(top, "deployments/2/var/lib/app/new"), "new of 2")
	// The power failed while this was copied.
	put(t, filepath.Join(top, "state/var-lib/app/.aptfleet-seed/x"), "")
	put(t, filepath.Join(top, "deployments/1/etc/machine-id"), "0123456789abcdef0123456789abcdef\n")
	put(t, filepath.Join(top, "deployments/2/etc/machine-id"), "ffffffffffffffffffffffffffffffff\n")
	boot := func(n int, id string) string {
		t.Helper()
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, "mount", "--bind", filepath.Join(top, "deployments", id), root)
		t.Cleanup(func() {
			if out, err := exec.Command("umount", "-R", root).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
		for range 2 {
			if err := (rootfs.State{Root: root, Sysroot: top, Deployment: n}).Mount(); err != nil {
				t.Fatal(err)
			}
		}
		return root
	}
	one := boot(1, "1")
	for path, want := range map[string]string{
		"var/lib/dpkg/status":                          "dpkg of 1",
		"var/lib/systemd/deb-systemd-helper-enabled/x": "units of 1",
		"var/lib/systemd/random-seed":                  "seed of 1",
		"var/lib/own/file":                             "release of 1",
		"var/lib/app/default":                          "default of 1",
		"home/skel":                                    "home of 1",
	} {
		if got := read(t, filepath.Join(one, path)); got != want {
			t.Errorf("deployment 1: %s is %q, want %q", path, got, want)
		}
	}
	put(t, filepath.Join(one, "var/lib/app/data"), "data")
	put(t, filepath.Join(one, "var/lib/unknown/data"), "data")
	put(t, filepath.Join(one, "home/alice/file"), "hers")
	if err := os.Remove(filepath.Join(one, "home/skel")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(top, "deployments/1/home/skel")); got != "home of 1" {
		t.Errorf("the release's own seed is %q", got)
	}
	two := boot(2, "2")
	for path, want := range map[string]string{
		"var/lib/dpkg/status":         "dpkg of 2",
		"var/lib/own/file":            "release of 2",
		"var/lib/systemd/random-seed": "seed of 1",
		"var/lib/app/default":         "default of 1",
		"var/lib/app/new":             "new of 2",
		"var/lib/app/data":            "data",
		"var/lib/unknown/data":        "data",
		"home/alice/file":             "hers",
	} {
		if got := read(t, filepath.Join(two, path)); got != want {
			t.Errorf("deployment 2: %s is %q, want %q", path, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(top, "deployments/2/var/lib/unknown")); !os.IsNotExist(err) {
		t.Errorf("state went into the deployment: %v", err)
	}
	if err := (rootfs.State{Root: one, Sysroot: top, Deployment: 1}).CheckIdentity(); err != nil {
		t.Error(err)
	}
	if err := (rootfs.State{Root: two, Sysroot: top, Deployment: 2}).CheckIdentity(); err == nil {
		t.Error("deployment 2 has another machine-id and nobody says so")
	}
	if _, err := os.Lstat(filepath.Join(top, "state/var-lib/app/.aptfleet-seed")); !os.IsNotExist(err) {
		t.Errorf("a copy that was interrupted is left: %v", err)
	}
	if info, err := os.Stat(top); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the top level: %v, %v", info.Mode(), err)
	}
	// What was removed does not come back at the next boot of a deployment.
	if err := os.Remove(filepath.Join(two, "var/lib/app/new")); err != nil {
		t.Fatal(err)
	}
	if err := (rootfs.State{Root: two, Sysroot: top, Deployment: 2}).Mount(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(two, "var/lib/app/new")); !os.IsNotExist(err) {
		t.Errorf("a seed came back: %v", err)
	}
}

func TestStateRefusesAPatternThatClimbs(t *testing.T) {
	top, _ := disk(t)
	put(t, filepath.Join(top, "deployments/1/usr/lib/aptfleet/release.d/x.conf"), "/var/lib/../../etc\n")
	if err := (rootfs.State{Root: t.TempDir(), Sysroot: top, Deployment: 1}).Mount(); err == nil {
		t.Error("want an error")
	}
}

// TestReadManifest reads what was written, whatever files are called.
func TestReadManifest(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "b/\"a b\"\n\xff"), "content")
	put(t, filepath.Join(root, "c"), "four")
	if err := os.Symlink("a \" b\n", filepath.Join(root, "! link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(root, "b"), "trusted.x", []byte("v"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "b"), 0o750|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := (rootfs.Recording{
		Strange: func(path string) bool { return path == "/! link" },
		Known:   func(path string, now rootfs.Stamp) (string, bool) { return "unread", path == "/c" && now.Size == 4 },
		Stamped: func(path string) bool { return path != "/c" },
	}).Write(t.Context(), &text, root); err != nil {
		t.Fatal(err)
	}
	got, err := rootfs.ReadManifest(&text)
	if err != nil || len(got) != 5 {
		t.Fatalf("%+v, %v", got, err)
	}
	for rel, entry := range got {
		want, err := rootfs.Describe(filepath.Join(root, rel), true)
		want.Strange = rel == "/! link"
		if rel == "/c" {
			want.Content = "unread"
		} else if err == nil {
			want.Stamp, err = rootfs.StampOf(filepath.Join(root, rel))
		}
		if err != nil || entry != want {
			t.Errorf("%q is read as %+v, and is %+v (%v)", rel, entry, want, err)
		}
	}
	for _, line := range []string{"", "f", "f 9999 0:0 - - \"/x\"", "f 0644 root - - \"/x\"", "f 0644 0:0 - - /x", "l 0777 0:0 \"x - - \"/x\"", "ff 0644 0:0 - - \"/x\"", "@ 1 2 3 4", "d 0755 0:0 - - \"/\"\n@ 1 2 3 4", "f 0755 0:0 - - \"/\"\n@ 1 2 3"} {
		if got, err := rootfs.ReadManifest(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
}

func FuzzReadManifest(f *testing.F) {
	f.Add("f 0644 0:0 - - \"/x\"\n@ 257 1 1700000000000000000 1700000000000000000\n")
	f.Add("d 0755 0:0 - - \"/\"\n! l 0777 0:0 \"a b\" - \"/link\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = rootfs.ReadManifest(strings.NewReader(text)) // it must not panic
	})
}
