package sandbox_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/sandbox"
)

// TestNoSubvolumes: what a package gives systemd-tmpfiles to make on btrfs is a
// directory. Without the variable it is a subvolume: the test can see one.
func TestNoSubvolumes(t *testing.T) {
	dir := t.TempDir()
	image, top := filepath.Join(dir, "disk.img"), filepath.Join(dir, "top")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 300<<20); err != nil {
		t.Fatal(err)
	}
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v (`make test` installs what is missing): %v\n%s", argv, err, out)
		}
	}
	run("mkfs.btrfs", "-q", image)
	run("mkdir", top)
	run("mount", "-o", "loop", image, top)
	t.Cleanup(func() { run("umount", "-R", top) })
	run("btrfs", "subvolume", "create", filepath.Join(top, "root"))
	root := tinyRootIn(t, filepath.Join(top, "root"))
	copyProgram(t, "/usr/bin/systemd-tmpfiles", root)
	for _, c := range []struct {
		name, before string
		subvolume    bool
	}{{"as packages do", "", false}, {"without the variable", "unset SYSTEMD_TMPFILES_FORCE_SUBVOL;", true}} {
		var out bytes.Buffer
		err := sandbox.Run(t.Context(), sandbox.Command{Root: root, Argv: []string{"/bin/sh", "-c", c.before +
			"for kind in v q Q; do echo \"$kind /var/$kind 0755\"; done >/run/x.conf; systemd-tmpfiles --create /run/x.conf; status=$?; exit $status"}}, &out)
		if err != nil && !c.subvolume { // it also wants quotas for subvolumes
			t.Errorf("%s: %v\n%s", c.name, err, &out)
		}
		for _, kind := range []string{"v", "q", "Q"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, "var", kind), &st); err != nil || (st.Ino == 256) != c.subvolume {
				t.Errorf("%s: %s makes inode %d (%v), want a subvolume: %v", c.name, kind, st.Ino, err, c.subvolume)
			}
		}
		run("rm", "-rf", filepath.Join(root, "var"))
	}
}
