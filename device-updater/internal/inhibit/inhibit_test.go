package inhibit

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the application of TestACrashedHolderLosesItsLock: it takes
// a lock and waits, or becomes a program that does.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hold" {
		h, err := Take(os.Args[2], Lock{Who: "pump", Why: "flashing", PID: os.Getpid()})
		if err == nil {
			err = h.Inherit()
		}
		if err == nil {
			err = unix.Exec("/bin/sh", append([]string{"sh", "-c"}, os.Args[3:]...), os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func list(t *testing.T, dir string) string {
	t.Helper()
	all, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, l := range all {
		said = append(said, l.Who+": "+l.Why)
	}
	return strings.Join(said, ", ")
}

func files(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestTakeAndRelease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	if got := list(t, dir); got != "" {
		t.Errorf("before the first: %s", got)
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	second, err := Take(dir, Lock{Who: "app", Why: "a call", Since: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	first, err := Take(dir, Lock{Who: "pump", Why: "flashing", Since: now})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, dir); got != "pump: flashing, app: a call" {
		t.Errorf("%s", got)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSticky == 0 {
		t.Errorf("others cannot take locks: %v, %v", info.Mode(), err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, dir); got != "app: a call" || files(t, dir) != 1 {
		t.Errorf("%s, %d files", got, files(t, dir))
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
	if files(t, dir) != 0 {
		t.Error("a file is left")
	}
}

// TestACrashedHolderLosesItsLock, and one whose child works on does not.
func TestACrashedHolderLosesItsLock(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		held   bool // after the holder was killed
	}{
		"alone":      {"echo ready; exec sleep 60", false},
		"with child": {"sleep 60 & echo ready; wait", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "locks")
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			holder := exec.Command(program, "hold", dir, c.script)
			holder.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
			out, err := holder.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			holder.Stderr = os.Stderr
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			group := holder.Process.Pid
			t.Cleanup(func() { _ = unix.Kill(-group, unix.SIGKILL) })
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if all, err := List(dir); err != nil || len(all) != 1 || all[0].PID != group || all[0].Why != "flashing" {
				t.Fatalf("%+v, %v", all, err)
			}
			if err := holder.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if _, err := holder.Process.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := list(t, dir); (got != "") != c.held {
				t.Errorf("after its end: %q", got)
			}
			if !c.held && files(t, dir) != 0 {
				t.Error("a file is left")
			}
		})
	}
}

// TestWhatIsNoLock: anybody may put anything there.
func TestWhatIsNoLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	h, err := Take(dir, Lock{Who: "pump", Why: "flashing"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	outside := filepath.Join(t.TempDir(), "precious")
	for path, err := range map[string]error{
		outside: os.WriteFile(outside, nil, 0o600),
		"link":  os.Symlink(outside, filepath.Join(dir, "lock-link")),
		"pipe":  unix.Mkfifo(filepath.Join(dir, "lock-pipe"), 0o600),
		"dir":   os.Mkdir(filepath.Join(dir, "lock-dir"), 0o700),
		"other": os.WriteFile(filepath.Join(dir, "README"), nil, 0o600),
		"dead":  os.WriteFile(filepath.Join(dir, "lock-dead"), []byte(`{"who":"ghost"}`), 0o600),
	} {
		if err != nil {
			t.Fatal(path, err)
		}
	}
	// One that says nothing, or far too much, is held all the same.
	for i, text := range []string{"", strings.Repeat(" ", 1<<20)} {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("lock-odd", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got := list(t, dir); strings.Count(got, "somebody: ") != 2 || !strings.Contains(got, "pump: flashing") || strings.Contains(got, "ghost") {
			t.Errorf("%s", got)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lock-dead")); err == nil {
		t.Error("what a holder left stays")
	}
}

// TestLogind: the answer of systemd 257 to `busctl --json=short call … ListInhibitors`.
func TestLogind(t *testing.T) {
	got, err := parseInhibitors([]byte(`{"type":"a(ssssuu)","data":[[["sleep","NetworkManager","sleeping","delay",0,512],` +
		`["shutdown:sleep","pump","flashing","block",1000,4711],["shutdown","x","soon","delay",0,1],["handle-lid-switch","y","lid","block",0,2]]]}`))
	if err != nil || len(got) != 1 || got[0] != (Lock{Who: "pump", Why: "flashing", PID: 4711}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := parseInhibitors([]byte(`{"type":"a(ssssuu)","data":[[]]}`)); err != nil || len(got) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "Failed", `{"data":[[1]]}`} {
		if got, err := parseInhibitors([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if got := Logind(t.Context()); got != nil {
		t.Errorf("without busctl: %+v", got)
	}
}
