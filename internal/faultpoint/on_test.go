//go:build faults

package faultpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("APTFLEET_FAULT") != "" {
		for range 3 {
			Hit("upload:synced")
			os.Stdout.WriteString("x")
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestHitKillsAtTheNthPassage(t *testing.T) {
	for _, c := range []struct {
		fault  string
		passed string
		killed bool
	}{
		{"upload:synced", "", true},
		{"upload:synced:1", "", true},
		{"upload:synced:3", "xx", true},
		{"upload:synced:4", "xxx", false},
		{"upload", "xxx", false},
		{"synced", "xxx", false},
	} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "APTFLEET_FAULT="+c.fault)
		out, err := cmd.Output()
		if string(out) != c.passed {
			t.Errorf("%s: passed %q, want %q", c.fault, out, c.passed)
		}
		killed := false
		if exit, ok := err.(*exec.ExitError); ok {
			status := exit.Sys().(syscall.WaitStatus)
			killed = status.Signaled() && status.Signal() == syscall.SIGKILL
		}
		if killed != c.killed {
			t.Errorf("%s: killed %v (%v), want %v", c.fault, killed, err, c.killed)
		}
	}
}

func TestHitIsTraced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "APTFLEET_FAULT=upload:synced:2", "APTFLEET_FAULT_TRACE="+path)
	if err := cmd.Run(); err == nil {
		t.Error("the program was not killed")
	}
	got, err := os.ReadFile(path)
	if want := "upload:synced\nupload:synced\n"; err != nil || string(got) != want {
		t.Errorf("the trace says %q (%v), want %q: the point of the death is in it", got, err, want)
	}
}
