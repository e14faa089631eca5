package rootfstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// Files runs the suite for what is in a root on back ends that open makes. Nest
// makes a root inside another one.
func Files(t *testing.T, open func(t *testing.T) Backend, nest func(b Backend, rel string)) {
	run := func(name string, test func(t *testing.T, b Backend)) {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			b.Create("deployments/1")
			test(t, b)
		})
	}
	run("a snapshot is as it was", func(t *testing.T, b Backend) {
		file := func(rel string) string { return filepath.Join(b.Path(rel), "file") }
		put(t, file("deployments/1"), "1")
		must(t, b.Snapshot("deployments/1", "base/2", true))
		must(t, b.Snapshot("base/2", "pristine/2.work", false))
		put(t, file("deployments/1"), "later")
		put(t, file("pristine/2.work"), "2")
		for rel, want := range map[string]string{"deployments/1": "later", "base/2": "1", "pristine/2.work": "2"} {
			if got, err := os.ReadFile(file(rel)); err != nil || string(got) != want {
				t.Errorf("%s has %q (%v), want %q", rel, got, err, want)
			}
		}
	})
	run("read-only", func(t *testing.T, b Backend) {
		put(t, filepath.Join(b.Path("deployments/1"), "file"), "1")
		must(t, b.Snapshot("deployments/1", "base/2", true))
		for what, err := range map[string]error{
			"write":  os.WriteFile(filepath.Join(b.Path("base/2"), "file"), []byte("x"), 0o644),
			"create": os.WriteFile(filepath.Join(b.Path("base/2"), "new"), nil, 0o644),
			"remove": os.Remove(filepath.Join(b.Path("base/2"), "file")),
			"chmod":  os.Chmod(b.Path("base/2"), 0o700),
		} {
			if !errors.Is(err, unix.EROFS) {
				t.Errorf("%s in a read-only root: %v", what, err)
			}
		}
	})
	run("all that files have", func(t *testing.T, b Backend) {
		Furnish(t, b.Path("deployments/1"))
		want := Inventory(t, b.Path("deployments/1"))
		must(t, b.Snapshot("deployments/1", "base/2", true))
		must(t, b.Snapshot("base/2", "deployments/2", false))
		for _, rel := range []string{"base/2", "deployments/2"} {
			if got := Inventory(t, b.Path(rel)); got != want {
				t.Errorf("%s is\n%s\nwant\n%s", rel, got, want)
			}
		}
		if got := Inventory(t, b.Path("deployments/1")); got != want {
			t.Errorf("the source is\n%s\nand was\n%s", got, want)
		}
	})
	run("what is in use can be deleted", func(t *testing.T, b Backend) {
		must(t, b.Snapshot("deployments/1", "deployments/2", false))
		path := filepath.Join(b.Path("deployments/2"), "file")
		put(t, path, "open")
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		must(t, b.Delete(t.Context(), "deployments/2"))
		if b.Exists("deployments/2") {
			t.Error("it is still there")
		}
	})
	run("nested", func(t *testing.T, b Backend) {
		put(t, filepath.Join(b.Path("deployments/1"), "var/lib/file"), "")
		nest(b, "deployments/1/var/lib/a")
		nest(b, "deployments/1/var/lib/a/b")
		if nested, err := b.Nested(t.Context(), "deployments/1"); err != nil || strings.Join(nested, " ") != "var/lib/a var/lib/a/b" {
			t.Errorf("%v, %v", nested, err)
		}
		put(t, filepath.Join(b.Path("deployments/1"), "var/lib/a/b/file"), "")
		must(t, b.Snapshot("deployments/1", "deployments/2", false))
		if names, err := os.ReadDir(filepath.Join(b.Path("deployments/2"), "var/lib/a")); err != nil || len(names) > 0 {
			t.Errorf("what is nested is in a snapshot: %v, %v", names, err)
		}
		if nested, err := b.Nested(t.Context(), "deployments/2"); err != nil || len(nested) > 0 {
			t.Errorf("%v, %v", nested, err)
		}
		must(t, b.Delete(t.Context(), "deployments/1"))
		if b.Exists("deployments/1") {
			t.Error("it is still there")
		}
	})
}

// holed is how big the sparse file of Furnish is, in bytes.
const holed = 64 << 20

// Furnish puts into dir what is easily lost in a copy: owners, set-id bits,
// extended attributes, a capability, an access control list, hard links, holes,
// links that lead nowhere, a pipe, a device, odd names and old times.
func Furnish(t *testing.T, dir string) {
	t.Helper()
	at := func(rel string) string { return filepath.Join(dir, rel) }
	put(t, at("d/file"), "content")
	put(t, at("d/empty"), "")
	put(t, at("d/\"a b\"\n\xff"), strings.Repeat("odd", 5000))
	must(t, os.Chown(at("d"), 1234, 4321))
	must(t, os.Chmod(at("d"), 0o750|os.ModeSticky|os.ModeSetgid))
	must(t, os.Chown(at("d/file"), 65534, 7))
	must(t, os.Chmod(at("d/file"), 0o755|os.ModeSetuid))
	must(t, unix.Setxattr(at("d/file"), "user.note", []byte("\x00\xff"), 0))
	must(t, unix.Setxattr(at("d"), "trusted.dir", []byte("v"), 0))
	// cap_net_raw=ep: struct vfs_cap_data of <linux/capability.h>, revision 2.
	put(t, at("d/ping"), "#!")
	must(t, unix.Setxattr(at("d/ping"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	// u::rw-,u:1000:r--,g::r--,m::r--,o::---: version 2 of POSIX ACLs.
	put(t, at("d/acl"), "")
	must(t, unix.Setxattr(at("d/acl"), "system.posix_acl_access", []byte("\x02\x00\x00\x00"+
		"\x01\x00\x06\x00\xff\xff\xff\xff"+"\x02\x00\x04\x00\xe8\x03\x00\x00"+"\x04\x00\x04\x00\xff\xff\xff\xff"+
		"\x10\x00\x04\x00\xff\xff\xff\xff"+"\x20\x00\x00\x00\xff\xff\xff\xff"), 0))
	must(t, os.Link(at("d/file"), at("hard")))
	must(t, os.Link(at("d/file"), at("d/harder")))
	must(t, os.Symlink("no/where \n", at("dangling")))
	must(t, os.Lchown(at("dangling"), 5, 6))
	must(t, unix.Mkfifo(at("pipe"), 0o620))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	f, err := os.Create(at("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 20<<20)
	must(t, errors.Join(err, f.Truncate(holed), f.Sync(), f.Close()))
	for _, rel := range []string{"d/file", "dangling", "pipe", "sparse", "d", "."} {
		old := unix.NsecToTimespec(1_000_000_000_123_456_789)
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(rel), []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// Inventory describes all that lies in dir, line by line: what a manifest says,
// and how often a file is linked, its size, its time, and whether it has holes.
func Inventory(t *testing.T, dir string) string {
	t.Helper()
	var out bytes.Buffer
	must(t, rootfs.WriteManifest(t.Context(), &out, dir, nil))
	linked := map[uint64]string{}
	must(t, rootfs.Walk(t.Context(), dir, func(rel, _ string, st *unix.Stat_t) error {
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			fmt.Fprintf(&out, "%q %d\n", rel, st.Mtim.Nano())
			return nil
		}
		if _, ok := linked[st.Ino]; !ok {
			linked[st.Ino] = rel
		}
		fmt.Fprintf(&out, "%q is %q, %d links, %d bytes, holes %v, %d\n",
			rel, linked[st.Ino], st.Nlink, st.Size, st.Size >= holed && st.Blocks*512 < 1<<20, st.Mtim.Nano())
		return nil
	}))
	return out.String()
}

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
}
