package rootfs_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/rootfs"
)

const conf = "usr/lib/aptfleet/state.d/app.conf"

func TestReadDeclared(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, conf), "# ours\npath /opt/vendor/data # all of it\n\nunit app 2 /var/lib/app /opt/vendor/data/db\n")
	put(t, filepath.Join(root, "usr/lib/aptfleet/state.d/zz.conf"), "path /data\npath /var/lib/app\npath /data\nunit zz 0 /data\n")
	got, err := rootfs.ReadDeclared(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"/data", "/opt/vendor/data"}; !reflect.DeepEqual(got.Paths, want) {
		t.Errorf("paths %q, want %q", got.Paths, want)
	}
	if want := []rootfs.Unit{
		{Name: "app", Epoch: 2, Paths: []string{"/opt/vendor/data/db", "/var/lib/app"}}, {Name: "zz", Paths: []string{"/data"}},
	}; !reflect.DeepEqual(got.Units, want) {
		t.Errorf("units %+v, want %+v", got.Units, want)
	}
	if got, err := rootfs.ReadDeclared(t.TempDir()); err != nil || got.Paths != nil || got.Units != nil {
		t.Errorf("of nothing: %+v, %v", got, err)
	}
}

// TestWrongDeclarations are refused one by one, and the right ones beside them
// count.
func TestWrongDeclarations(t *testing.T) {
	for line, words := range map[string]string{
		"volume /data":                       "it is neither",
		"path":                               "it is neither",
		"path /a /b":                         "it is neither",
		"path data":                          "not a clean absolute path",
		"path /data/":                        "not a clean absolute path",
		"path /data/../etc":                  "not a clean absolute path",
		"path /":                             "files of its own",
		"path /opt":                          "files of its own",
		"path /var":                          "files of its own",
		"path /usr":                          "files of its own",
		"path /usr/share/x":                  "needs /usr",
		"path /etc/x":                        "needs /etc",
		"path /sysroot/x":                    "needs /sysroot",
		"path /run/x":                        "needs /run",
		"path /link/x":                       "/link is a symbolic link",
		"path /file":                         "not a directory",
		"unit App 1 /var/lib/app":            "the name",
		"unit a.b 1 /var/lib/app":            "the name",
		"unit app -1 /var/lib/app":           "the epoch",
		"unit app 01 /var/lib/app":           "the epoch",
		"unit app 99999999999 /var/lib/a":    "the epoch",
		"unit app 1":                         "it is neither",
		"unit app 1 /opt/x":                  "does not outlive",
		"unit app 1 /var/lib":                "does not outlive",
		"unit app 1 /var/lib/dpkg/x":         "belongs to the release",
		"unit app 1 /var/lib/systemd":        "belongs to the release",
		"unit app 1 /var/lib/a /var/lib/a/b": "within the other",
		"unit app 1 /var/lib/good/x":         "within the other",
		"unit good 1 /var/lib/other":         "twice",
	} {
		root := t.TempDir()
		if err := os.Symlink("/etc", filepath.Join(root, "link")); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(root, "file"), "")
		put(t, filepath.Join(root, conf), "unit good 3 /var/lib/good\n"+line+"\npath /data\n")
		got, err := rootfs.ReadDeclared(root)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", line, err, words)
		}
		if len(got.Paths) != 1 || len(got.Units) != 1 || got.Units[0].Epoch != 3 {
			t.Errorf("%s: beside it is read %+v", line, got)
		}
	}
}

// TestPlaceNames: no two directories lie at the same place.
func TestPlaceNames(t *testing.T) {
	for path, want := range map[string]string{"/opt/vendor/data": "opt-vendor-data", "/opt/my-app/.d": `opt-my\x2dapp-.d`, "/.a": `\x2ea`} {
		if got := rootfs.PlaceName(path); got != want {
			t.Errorf("%s is at %s, want %s", path, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`(/[a-z.\\-]{1,3}){1,3}`)
		a, b := path.Draw(t, "a"), path.Draw(t, "b")
		if a != b && rootfs.PlaceName(a) == rootfs.PlaceName(b) {
			t.Fatalf("%s and %s are both at %s", a, b, rootfs.PlaceName(a))
		}
	})
}

func FuzzReadDeclared(f *testing.F) {
	f.Add("path /opt/x\nunit app 2 /opt/x/db /var/lib/app # x\n")
	f.Add("unit a 1 /var/lib/a\nunit b 2 /var/lib/a/b\n")
	f.Fuzz(func(t *testing.T, text string) {
		root := t.TempDir()
		put(t, filepath.Join(root, conf), text)
		d, _ := rootfs.ReadDeclared(root) // it must not panic
		for _, u := range d.Units {
			for _, p := range u.Paths {
				if !filepath.IsAbs(p) || filepath.Clean(p) != p {
					t.Errorf("unit %s has path %q", u.Name, p)
				}
			}
		}
	})
}
