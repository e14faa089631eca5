package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/sandbox"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main())
	}
	os.Exit(m.Run())
}

// tinyRoot is a root with a shell, made of this machine's own files.
func tinyRoot(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: `make test` runs as root")
	}
	return tinyRootIn(t, t.TempDir())
}

func tinyRootIn(t *testing.T, root string) string {
	t.Helper()
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "usr/sbin", "usr/bin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"/bin/sh", "/bin/cat", "/bin/ls", "/bin/sleep", "/bin/touch", "/bin/mount"} {
		copyProgram(t, program, root)
	}
	return root
}

func copyProgram(t *testing.T, program, root string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		t.Fatal(err)
	}
	libs, err := exec.Command("ldd", real).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{real: filepath.Join(root, "usr/bin", filepath.Base(program))}
	for _, word := range strings.Fields(string(libs)) {
		if strings.HasPrefix(word, "/") {
			files[word] = filepath.Join(root, "usr", strings.TrimPrefix(word, "/usr"))
		}
	}
	for from, to := range files {
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-L", from, to).CombinedOutput(); err != nil {
			t.Fatalf("cp %s: %v\n%s", from, err, out)
		}
	}
}

func TestInside(t *testing.T) {
	root := tinyRoot(t)
	outside := filepath.Join(t.TempDir(), "given")
	if err := os.WriteFile(outside, []byte("from outside\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := sandbox.Run(t.Context(), sandbox.Command{
		Root: root,
		Argv: []string{"sh", "-c", `
			cat /run/in/given /run/f
			cat /run/l
			echo pid=$$ offline=$SYSTEMD_OFFLINE extra=$EXTRA
			cat /proc/net/dev | while read l; do case $l in eth*|ens*|enp*) echo network; esac; done
			/usr/sbin/policy-rc.d; echo policy=$?
			echo x > /run/in/given || echo read-only
			touch /sys/x || echo sys-read-only
			echo y > /dev/null && echo null
			mount -t tmpfs none /etc && echo mounted
			mount -o remount,bind,rw /proc/sys && echo mounted
			cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness || echo settings-read-only
			touch /etc/left-behind
			exit 7`},
		Env:   []string{"EXTRA=1"},
		Binds: []sandbox.Bind{{Source: outside, Target: "/run/in/given"}},
		Files: []sandbox.File{{Path: "/run/f", Content: "file\n", Mode: 0o644}},
		Links: []sandbox.Link{{Path: "/run/l", To: "in/given"}},
	}, &out)
	var exit *sandbox.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 {
		t.Fatalf("want exit status 7, got %v\n%s", err, &out)
	}
	for _, want := range []string{"from outside\nfile\nfrom outside", "offline=1 extra=1", "policy=101", "read-only", "sys-read-only", "settings-read-only", "null"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "mounted") {
		t.Errorf("the sandbox can mount:\n%s", &out)
	}
	if strings.Contains(out.String(), "network") {
		t.Errorf("the sandbox has a network:\n%s", &out)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/left-behind")); err != nil {
		t.Errorf("a change inside the root was lost: %v", err)
	}
	for _, dir := range []string{"usr/sbin", "run", "proc", "dev", "tmp"} {
		if entries, err := os.ReadDir(filepath.Join(root, dir)); err != nil || len(entries) > 0 {
			t.Errorf("%s: left behind %v (%v)", dir, entries, err)
		}
	}
}

func TestCancelKillsAll(t *testing.T) {
	root := tinyRoot(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("took too long"))
	defer cancel()
	// A grandchild in a session of its own holds the output open: Run would
	// not return while it lives.
	err := sandbox.Run(ctx, sandbox.Command{Root: root, Argv: []string{"sh", "-c", "(sleep 1000 &) ; (sleep 1000 &) ; sleep 1000"}}, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "took too long") {
		t.Fatalf("want the cause of the cancellation, got %v", err)
	}
}

// TestKilled: a program that dies of SIGKILL says little about itself.
func TestKilled(t *testing.T) {
	root := tinyRoot(t)
	for script, killed := range map[string]bool{"kill -9 $$": true, "exit 9": false, "kill -15 $$": false} {
		err := sandbox.Run(t.Context(), sandbox.Command{Root: root, Argv: []string{"sh", "-c", script}}, new(bytes.Buffer))
		var exit *sandbox.ExitError
		if errors.Is(err, sandbox.ErrKilled) != killed || !errors.As(err, &exit) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestSetupError(t *testing.T) {
	root := tinyRoot(t)
	for name, c := range map[string]sandbox.Command{
		"program":  {Root: root, Argv: []string{"no-such-program"}},
		"bind":     {Root: root, Argv: []string{"sh"}, Binds: []sandbox.Bind{{Source: "/no/such/file", Target: "/run/x"}}},
		"not /run": {Root: root, Argv: []string{"sh"}, Binds: []sandbox.Bind{{Source: "/etc", Target: "/etc"}}},
		"climbing": {Root: root, Argv: []string{"sh"}, Files: []sandbox.File{{Path: "/run/../etc/x"}}},
	} {
		err := sandbox.Run(t.Context(), c, new(bytes.Buffer))
		if err == nil || !strings.HasPrefix(err.Error(), "cannot make sandbox: ") {
			t.Errorf("%s: want a setup error, got %v", name, err)
		}
	}
}

// TestStatus: a program that tells its progress has a file descriptor for it,
// others have not.
func TestStatus(t *testing.T) {
	root := tinyRoot(t)
	for _, status := range []bool{true, false} {
		var out bytes.Buffer
		err := sandbox.Run(t.Context(), sandbox.Command{Root: root, Argv: []string{"sh", "-c", "echo progress >&3"}, Status: status}, &out)
		if (err == nil) != status || strings.HasPrefix(out.String(), "progress\n") != status {
			t.Errorf("status %v: %v, %q", status, err, &out)
		}
	}
}

// TestNobodyWaitsForTheDisk: fsync of a file that cannot be synced succeeds
// inside, and fails outside.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	root := tinyRoot(t)
	copyProgram(t, "/bin/sync", root)
	for _, argv := range [][]string{{"sync", "/dev/null"}, {"sync", "--data", "/dev/null"}, {"sync", "--file-system", "/etc"}, {"sync"}} {
		var out bytes.Buffer
		if err := sandbox.Run(t.Context(), sandbox.Command{Root: root, Argv: argv}, &out); err != nil {
			t.Errorf("%v: %v: %s", argv, err, &out)
		}
	}
	if err := exec.Command("sync", "/dev/null").Run(); err == nil {
		t.Error("sync says nothing of a file that it cannot sync: the test is blind")
	}
}
