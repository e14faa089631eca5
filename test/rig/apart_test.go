package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// untidy marks the process that TestApart starts.
const untidy = "APTFLEET_UNTIDY"

func TestMain(m *testing.M) {
	if os.Getenv(untidy) != "" {
		if code, ended := Apart(); ended {
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

// A program that ends in the middle of its work leaves nothing behind.
func TestApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounts need root; make test runs as root")
	}
	if os.Getenv(untidy) != "" {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("sleep", "1").Start(); err != nil { // holds the mount a moment longer
			t.Fatal(err)
		}
		os.Exit(7)
	}
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestApart$")
	cmd.Env = append(os.Environ(), untidy+"=1", "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("it ended with %d (%v), want 7:\n%s", code, err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("something is mounted below %s still (%v)", dir, err)
	}
}
