package rootfs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/rootfs/rootfstest"
)

// backend is an empty btrfs file system; the btrfs program makes what the
// updater is given.
func backend(t *testing.T) rootfstest.Backend {
	top, b := disk(t)
	return rootfstest.Backend{
		Roots: b, Size: 300 << 20,
		Create: func(rel string) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(top, rel)), 0o755); err != nil {
				t.Fatal(err)
			}
			run(t, "btrfs", "subvolume", "create", filepath.Join(top, rel))
		},
		Plain: func(rel string) { put(t, filepath.Join(top, rel, "file"), "") },
	}
}

func TestBtrfs(t *testing.T) {
	t.Run("names", func(t *testing.T) { rootfstest.Names(t, backend) })
	t.Run("files", func(t *testing.T) {
		rootfstest.Files(t, backend, func(b rootfstest.Backend, rel string) { b.Create(rel) })
	})
}

// TestDeleteWhatIsMounted: in the mount namespace of a container, say.
func TestDeleteWhatIsMounted(t *testing.T) {
	b := backend(t)
	b.Create("deployments/1")
	at := t.TempDir()
	run(t, "mount", "--bind", b.Path("deployments/1"), at)
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	if err := b.Delete(t.Context(), "deployments/1"); err != nil {
		t.Fatal(err)
	}
	if b.Exists("deployments/1") {
		t.Error("it is still there")
	}
}

// TestSeedsKeepWhatFilesHave: seeds and copies of units are as their originals,
// on one file system, where blocks are shared, and from one to another.
func TestSeedsKeepWhatFilesHave(t *testing.T) {
	top, _ := disk(t)
	other, _ := disk(t)
	for name, from := range map[string]string{"one file system": top, "another file system": other} {
		t.Run(name, func(t *testing.T) {
			source := filepath.Join(from, "source")
			if err := os.Mkdir(source, 0o755); err != nil {
				t.Fatal(err)
			}
			rootfstest.Furnish(t, source)
			want := rootfstest.Inventory(t, source)
			for how, copied := range map[string]func(from, to string) error{"copy": rootfs.CopyTree, "seed": rootfs.SeedTree} {
				target := filepath.Join(top, name, how)
				if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := copied(source, target); err != nil {
					t.Fatal(err)
				}
				if got := rootfstest.Inventory(t, target); got != want {
					t.Errorf("the %s is\n%s\nwant\n%s", how, got, want)
				}
			}
		})
	}
}

// TestNoCowStays: a database that is not copied on write.
func TestNoCowStays(t *testing.T) {
	top, _ := disk(t)
	dir := filepath.Join(top, "db")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "chattr", "+C", dir)
	put(t, filepath.Join(dir, "file"), "rows")
	if err := rootfs.CopyTree(dir, filepath.Join(top, "copy")); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(top, "copy/file")); got != "rows" {
		t.Errorf("the copy is %q", got)
	}
	if got := run(t, "lsattr", filepath.Join(top, "copy/file")); got[:len("---------------C")] != "---------------C" {
		t.Errorf("the copy has attributes %s", got)
	}
}
