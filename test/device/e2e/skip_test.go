package e2e

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/test/device"
)

// volatile are the paths of a deployment that may differ between two devices
// on the same release, each with the reason.
var volatile = map[string]string{
	"etc/aptfleet/device.yaml":     "the device's own name and stage",
	"etc/.updated":                 "a stamp that systemd writes at the first boot and does not sync",
	"var/.updated":                 "the same",
	"var/cache/ldconfig/aux-cache": "holds the inode numbers of libraries",
}

func TestSkippingVersionsGivesTheSameFiles(t *testing.T) {
	t.Parallel()
	steps, skip := newDevice(t), newDevice(t)
	for _, d := range []*fielded{steps, skip} {
		// Something that only this device's owner has, changed before any update.
		if err := os.WriteFile(filepath.Join(d.Top(), "deployments/1/etc/owner.conf"), []byte("mine\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.on()
	}
	skip.promote("4")
	for _, release := range []string{"2", "3", "4"} {
		steps.promote(release)
		steps.awaitCommit(release)
	}
	skip.awaitCommit("4")
	for _, d := range []*fielded{steps, skip} {
		d.runs("4", "demo-service")
		d.hasItsBOM("4")
		d.off()
	}
	a, b := filesOf(t, steps.Machine, steps.committed()), filesOf(t, skip.Machine, skip.committed())
	sameFiles(t, "by way of 2 and 3", a, "directly", b)
	for path, want := range map[string]bool{
		"etc/owner.conf": true, "etc/demo-service/main.conf": true, "etc/demo-app.conf": false,
		"usr/lib/demo-service/serve": true, "usr/lib/demo-app/serve": false,
	} {
		if _, there := a[path]; there != want {
			t.Errorf("/%s exists: %v, want %v", path, there, want)
		}
	}
	t.Logf("compared %d files", len(a))
}

// sameFiles fails the test for every file that differs, naming both sides.
func sameFiles(t *testing.T, nameA string, a map[string]string, nameB string, b map[string]string) {
	t.Helper()
	if len(a) < 1000 {
		t.Errorf("only %d files were compared", len(a))
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if a[path] != b[path] {
			t.Errorf("/%s is, %s: %s; %s: %s", path, nameA, cmp.Or(a[path], "absent"), nameB, cmp.Or(b[path], "absent"))
		}
	}
}

// filesOf describes every file of a deployment, by path: type, mode, owner,
// content, capabilities. What is mounted inside a running device is not seen.
func filesOf(t *testing.T, m *device.Machine, deployment int) map[string]string {
	t.Helper()
	root := filepath.Join(m.Top(), "deployments", strconv.Itoa(deployment))
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		if _, skip := volatile[name]; !skip {
			all[name], err = describe(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	owner := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return text + " -> " + target, err
	case !info.Mode().IsRegular():
		return text, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	capability := make([]byte, 64)
	if n, err := unix.Lgetxattr(path, "security.capability", capability); err == nil {
		text += fmt.Sprintf(" capability %x", capability[:n])
	}
	return fmt.Sprintf("%s sha256 %x, %d bytes", text, sha256.Sum256(content), len(content)), nil
}
