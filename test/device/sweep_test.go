package device

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// victim is the environment variable that makes this test program run the
// machine in that directory until it is killed.
const victim = "APTFLEET_TEST_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victim); dir != "" {
		fmt.Println(runUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runUntilKilled(dir string) error {
	ctx := context.Background()
	m, err := Open(ctx, Config{Dir: dir, Name: "victim", Loader: filepath.Join(dir, "loader")})
	if err != nil {
		return err
	}
	if err := m.PowerOn(); err != nil {
		return err
	}
	if _, err := m.AwaitUp(ctx); err != nil {
		return err
	}
	fmt.Println("up")
	select {}
}

func TestSweepCleansUpAfterAKilledProgramAndOnlyThen(t *testing.T) {
	t.Parallel()
	m := plainMachine(t, "victim")
	dir := m.config.Dir
	if err := os.Rename(m.config.Loader, filepath.Join(dir, "loader")); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Sweep(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victim+"="+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "up\n" {
		t.Fatal(line, err)
	}
	if err := Sweep(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another process runs it") {
		t.Fatalf("sweeping a running machine: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the killed program ended well")
	}
	if mounted, err := isMountPoint(filepath.Join(dir, "top")); err != nil || !mounted {
		t.Fatalf("nothing is left to sweep: %v, %v", mounted, err)
	}
	if err := Sweep(limited(t, time.Minute), filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if mounted, err := isMountPoint(filepath.Join(dir, "top")); err != nil || mounted {
		t.Errorf("the disk is still mounted: %v, %v", mounted, err)
	}
	// Another mount namespace may hold the mount a while longer, if it was copied
	// from this one: then the device is marked to go with its last use.
	loops, err := output(t.Context(), "losetup", "--noheadings", "--output", "AUTOCLEAR", "--associated", filepath.Join(dir, "disk.img"))
	if err != nil || strings.Trim(loops, "1 \n") != "" {
		t.Errorf("the disk stays attached: %q, %v", loops, err)
	}
	_, group, _ := strings.Cut(string(b), `"cgroup":"`)
	group, _, _ = strings.Cut(group, `"`)
	if _, err := os.Stat(group); group == "" || !os.IsNotExist(err) {
		t.Errorf("the control group %q is still there: %v", group, err)
	}
	if err := Sweep(t.Context(), filepath.Dir(dir)); err != nil {
		t.Errorf("sweeping again: %v", err)
	}
}
