package drift

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/device-updater/internal/rootfs"
)

// stamped is the manifest of the tree, with stamps.
func (r tree) stamped() []byte {
	r.t.Helper()
	var out bytes.Buffer
	all := func(string) bool { return true }
	if err := (rootfs.Recording{Stamped: all}).Write(r.t.Context(), &out, r.root); err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes()
}

func (r tree) read(manifest []byte) map[string]rootfs.Entry {
	r.t.Helper()
	recorded, err := rootfs.ReadManifest(bytes.NewReader(manifest))
	if err != nil {
		r.t.Fatal(err)
	}
	return recorded
}

// TestOnlyWhatWasTouchedIsRead: whatever happens to a file changes its stamp,
// also where content and times look the same; a file with its stamp is not
// read, which a wrong sum in the database shows.
func TestOnlyWhatWasTouchedIsRead(t *testing.T) {
	const status = "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
	const sums = "var/lib/dpkg/info/one.md5sums"
	grow := func(r tree) []byte {
		r.write("var/lib/dpkg/status", status)
		r.write("var/lib/dpkg/info/one.list", "/.\n/usr\n/usr/bin\n/usr/bin/tool\n/bin\n")
		r.write(sums, sum("tool")+"  usr/bin/tool\n")
		r.write("usr/bin/tool", "tool")
		r.write("usr/lib/cache", "a script made it")
		return r.stamped()
	}
	for _, c := range []struct {
		what  string
		touch func(r tree)
		want  string
	}{
		{"nothing", func(tree) {}, ""},
		{"content, and the time set back", func(r tree) { again(r, "usr/bin/tool", "TOOL") }, "/usr/bin/tool content"},
		{"another file of its name, size and time", func(r tree) {
			info, err := os.Stat(filepath.Join(r.root, "usr/bin/tool"))
			if err != nil {
				r.t.Fatal(err)
			}
			r.write("usr/bin/new", "TOOL")
			other := filepath.Join(r.root, "usr/bin/new")
			if err := os.Chtimes(other, time.Time{}, info.ModTime()); err != nil {
				r.t.Fatal(err)
			}
			if err := os.Rename(other, filepath.Join(r.root, "usr/bin/tool")); err != nil {
				r.t.Fatal(err)
			}
		}, "/usr/bin/tool content"},
		{"what the package wants", func(r tree) { r.write(sums, sum("other")+"  usr/bin/tool\n") }, "/usr/bin/tool content"},
		{"the sums are gone", func(r tree) { remove(r, sums) }, ""},
		{"mode", func(r tree) {
			if err := os.Chmod(filepath.Join(r.root, "usr/bin/tool"), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}, "/usr/bin/tool permission"},
		{"gone", func(r tree) { remove(r, "usr/bin/tool") }, "/usr/bin/tool missing"},
		{"a file of nobody", func(r tree) { again(r, "usr/lib/cache", "A script made it") }, "/usr/lib/cache"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newTree(t)
			recorded := grow(r)
			time.Sleep(20 * time.Millisecond) // a tick of the file system's clock
			c.touch(r)
			got, err := Changed(t.Context(), r.root, r.read(recorded))
			if err != nil {
				t.Fatal(err)
			}
			if told(got) != c.want {
				t.Errorf("Changed tells %q, want %q", told(got), c.want)
			}
			full := r.check(recorded)
			if told(full) != c.want {
				t.Errorf("Check tells %q, want %q", told(full), c.want)
			}
		})
	}
	// The sum in the database was wrong from the beginning: who reads sees it.
	r := newTree(t)
	grow(r)
	r.write(sums, sum("other")+"  usr/bin/tool\n")
	recorded := r.stamped()
	unread, err := Installed(t.Context(), r.root, r.read(recorded))
	if err != nil || told(unread) != "" {
		t.Errorf("a file with its stamp was read: %s (%v)", told(unread), err)
	}
	if all, err := Installed(t.Context(), r.root, nil); err != nil || told(all) != "/usr/bin/tool content" {
		t.Errorf("a file without a stamp was not read: %s (%v)", told(all), err)
	}
}

// again writes a file in place and gives it back its time.
func again(r tree, rel, content string) {
	r.t.Helper()
	path := filepath.Join(r.root, rel)
	info, err := os.Stat(path)
	if err == nil {
		r.write(rel, content)
		err = os.Chtimes(path, time.Time{}, info.ModTime())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func remove(r tree, rel string) {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.root, rel)); err != nil {
		r.t.Fatal(err)
	}
}
