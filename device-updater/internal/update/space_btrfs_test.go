package update

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/test/device/bootcontrol"
)

// onDisk is a machine whose deployments lie on a real btrfs file system of that
// many bytes; 3 is committed, 2 is the previous one.
func onDisk(t *testing.T, size int64) (m *Machine, top string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: `make test` runs as root")
	}
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v (`make test` installs what is missing): %v\n%s", argv, err, out)
		}
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.img")
	top = filepath.Join(dir, "top")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(top, 0o755)); err != nil {
		t.Fatal(err)
	}
	run("mkfs.btrfs", "-q", image)
	run("mount", "-o", "loop", image, top)
	t.Cleanup(func() { run("umount", "-R", top) })
	if err := os.Mkdir(filepath.Join(top, "deployments"), 0o755); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		root := filepath.Join(top, deployment(n))
		run("btrfs", "-q", "subvolume", "create", root)
		write(t, filepath.Join(root, "usr/app"), 30<<20)
		status := filepath.Join(root, "var/lib/dpkg/status")
		text := fmt.Sprintf("Package: app\nStatus: install ok installed\nInstalled-Size: %d\nArchitecture: all\nVersion: %d\n", 30<<10, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(status), 0o755), os.WriteFile(status, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t)
	w.current = 3
	w.boot["committed.env"] = bootcontrol.NewBlock("committed=3", "previous=2")
	m, done := w.machine()
	t.Cleanup(done)
	roots, err := rootfs.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	m.Roots = roots
	return m, top
}

// write makes a file of bytes that no file system makes smaller. A disk that is
// full ends it.
func write(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, size); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestRoomOnARealDisk: a full disk refuses an update with the numbers; what a
// person gives back is there again, and then it goes.
func TestRoomOnARealDisk(t *testing.T) {
	m, top := onDisk(t, 640<<20)
	plan := apt.Plan{Fetch: []apt.Package{{Name: "app", Version: "4", Architecture: "all", Size: 20 << 20}}, Installed: map[string]int64{"app:all=4": 60 << 20}}
	if err := m.room(plan); err != nil {
		t.Fatalf("an empty disk: %v", err)
	}
	if err := m.Pin(1, "ann", "acceptance"); err != nil {
		t.Fatal(err)
	}
	free, err := m.Roots.Free()
	if err != nil {
		t.Fatal(err)
	}
	need := needs(plan, "").total()
	write(t, filepath.Join(top, "state/filler"), free-need+(15<<20))
	if err := m.Roots.Sync(); err != nil {
		t.Fatal(err)
	}
	err = m.room(plan)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "336 MB are needed (20 to download, 60 to install, 256 to spare)") ||
		!strings.Contains(err.Error(), "would give back deployment 1 (about 30 MB)") {
		t.Fatalf("a full disk: %v", err)
	}
	t.Log(err)
	if err := m.Prune(t.Context()); err != nil || !m.Roots.Exists(deployment(1)) {
		t.Fatalf("the pinned deployment is gone (%v)", err)
	}
	if err := m.Unpin(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Prune(t.Context()); err != nil || m.Roots.Exists(deployment(1)) || !m.Roots.Exists(deployment(2)) {
		t.Fatalf("the unpinned deployment stays, or another one went (%v)", err)
	}
	// btrfs gives the room back a moment later.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := m.Roots.Sync(); err != nil {
			t.Fatal(err)
		}
		if err = m.room(plan); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a minute after one was deleted: %v", err)
		}
	}
	// A disk without the room that must stay says so too.
	if free, err = m.Roots.Free(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(top, "state/more"), free-(100<<20))
	if err := m.room(apt.Plan{}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "256 MB are needed") {
		t.Errorf("a disk that is quite full: %v", err)
	}
}
