package cuts

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"aptfleet/internal/grub"
)

// TestControlWithHalfASuperblock: mounting writes the superblock, which is two
// sectors. Whichever of them a power cut leaves as it was, boot control is
// mounted by the next boot.
func TestControlWithHalfASuperblock(t *testing.T) {
	const sector = 512
	dir := t.TempDir()
	disk, place := filepath.Join(dir, "disk"), filepath.Join(dir, "mounted")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	read := func() []byte {
		t.Helper()
		content, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(disk, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount := func() {
		t.Helper()
		run("mount", "-o", "loop,noatime", disk, place)
		run("umount", place)
	}
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	write(make([]byte, 8<<20))
	args := grub.MakeControl()
	run(args[0], append(args[1:], disk)...)
	mount()
	before := read()
	mount()
	after := read()
	if bytes.Equal(before[2*sector:4*sector], after[2*sector:4*sector]) {
		t.Fatal("mounting has not written the superblock")
	}
	for _, lost := range []int{2, 3} {
		torn := bytes.Clone(after)
		copy(torn[lost*sector:][:sector], before[lost*sector:])
		write(torn)
		mount()
	}
}
