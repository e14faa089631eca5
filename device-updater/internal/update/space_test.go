package update

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"aptfleet/device-updater/internal/apt"
)

func TestNeeds(t *testing.T) {
	root := t.TempDir()
	plan := apt.Plan{
		Fetch: []apt.Package{
			{Name: "app", Version: "1", Architecture: "all", Size: 10 << 20},
			{Name: "own", Version: "1", Architecture: "all", Size: 1 << 20, Local: "/x.deb"}, // does not say
		},
		Here: 4 << 20, Installed: map[string]int64{"app:all=1": 70 << 20},
	}
	if got := needs(plan, root); got != (need{download: 7 << 20, install: 75 << 20}) {
		t.Errorf("%+v", got)
	}
	for name, size := range map[string]int64{"initrd.img-6.1": 30 << 20, "initrd.img-6.12": 40 << 20, "vmlinuz-6.12": 9 << 20} {
		path := filepath.Join(root, "boot", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
	}
	if got := needs(plan, root).install; got != (75+70)<<20 {
		t.Errorf("with initrds: %d", got>>20)
	}
	plan.Fetch = append(plan.Fetch, apt.Package{Name: "linux-image-6.13-amd64", Version: "1", Architecture: "amd64", Size: 1 << 20})
	if got := needs(plan, root).install; got != (75+70+5+40)<<20 {
		t.Errorf("with a kernel: %d", got>>20)
	}
	if got := needs(apt.Plan{}, root); got != (need{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// TestNoRoomSaysNumbers: what is needed, what is free, and what could be given
// back; the same release comes when there is room.
func TestNoRoomSaysNumbers(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.tune = func(m *Machine) { m.Settings.Keep = 3 }
	w.follows("2", "3")
	w.offered, w.free = "4", 258<<20
	err := w.settle()
	const want = "cannot update: 258 MB are free and 262 MB are needed (1 to download, 5 to install, 256 to spare); " +
		"`device-updater unpin` and a lower `keep` would give back deployment 1 (about 0 MB): no space left on device"
	if !errors.Is(err, syscall.ENOSPC) || err.Error() != want {
		t.Errorf("%v", err)
	}
	if left := w.there(); len(left) != 3 {
		t.Errorf("there are %v", left)
	}
	w.free = 262 << 20
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "4" {
		t.Errorf("it runs %s", state)
	}
}

// TestInstalledSizes: what dpkg writes, and stanzas that do not say.
func TestInstalledSizes(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "var/lib/dpkg/status")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	stanza := "Package: a\nStatus: install ok installed\nInstalled-Size: 12\nArchitecture: all\nVersion: 1\n\n"
	text := stanza + strings.NewReplacer("Package: a", "Package: b", "Installed-Size: 12\n", "").Replace(stanza) +
		strings.NewReplacer("Package: a", "Package: c", "12", "-3").Replace(stanza)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sizes, err := apt.InstalledSizes(root)
	if err != nil || len(sizes) != 1 || sizes["a:all=1"] != 12<<10 {
		t.Errorf("%v, %v", sizes, err)
	}
}
