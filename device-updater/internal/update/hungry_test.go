package update

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/test/order"
)

// smallMemory makes a control group whose processes have so many bytes together,
// and returns how to put one into it, and this process back to where it was. The
// test is skipped where nobody can.
func smallMemory(t *testing.T, bytes int64) (put func(pid int) error, leave func() error) {
	t.Helper()
	top, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	dir, err := os.MkdirTemp(top, "aptfleet")
	if err != nil {
		top, limit = "/sys/fs/cgroup", "memory.max"
		dir, err = os.MkdirTemp(top, "aptfleet")
	}
	own := ""
	text, readErr := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		// cgroups(7): number, controllers, path.
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && (f[1] == "memory" || f[1] == "" && own == "" && limit == "memory.max") {
			own = f[2]
		}
	}
	if err == nil {
		t.Cleanup(func() {
			for range 100 {
				if err = os.Remove(dir); err == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Error(err)
		})
		err = readErr
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, limit), []byte(strconv.FormatInt(bytes, 10)), 0)
	}
	if err != nil {
		t.Skipf("the memory of a process cannot be limited here: %v", err)
	}
	into := func(group string, pid int) error {
		return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}
	put = func(pid int) error { return into(dir, pid) }
	leave = func() error { return into(filepath.Join(top, own), os.Getpid()) }
	return put, leave
}

// TestTheApplicationEatsAllMemory while a release is installed: it is protected,
// so what the kernel kills belongs to the installation. The updater lives, nothing
// is left, the release is not blamed, and once there is memory it is installed.
func TestTheApplicationEatsAllMemory(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; TestInstallationAttacks kills what is installed without using up memory")
	}
	b := newBench(t, 2<<30)
	before := b.describe()
	const machine = 160 << 20
	put, leave := smallMemory(t, machine)
	var later time.Duration
	b.machine.Clock = func() time.Time { return time.Now().Add(later) }
	// Its script is killed before the updater and the application, whose units
	// have them spared (OOMScoreAdjust); a test may only do it the other way round.
	b.ship(app("echo 1000 >/proc/self/oom_score_adj; perl -e 'push @x, \"x\" x (1 << 20) for 1 .. 64'; echo done >/etc/app.done"))

	// An application that takes all but a few MB. The updater and its sandbox have
	// to do with what it leaves.
	hungry := exec.Command("perl", "-e", fmt.Sprintf(`sleep 1; push @x, "x" x (1 << 20) for 1 .. %d; $| = 1; print "full\n"; sleep 3600`, machine>>20-32))
	said, err := hungry.StdoutPipe()
	if err == nil {
		err = hungry.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hungry.Process.Kill(); _ = hungry.Wait() }()
	if err := put(hungry.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if full, err := bufio.NewReader(said).ReadString('\n'); err != nil || full != "full\n" {
		t.Fatalf("%q, %v", full, err)
	}
	run := b.source.Run
	b.source.Run = func(ctx context.Context, c sandbox.Command, out io.Writer) error {
		if err := put(os.Getpid()); err != nil {
			return err
		}
		return errors.Join(run(ctx, c, out), leave())
	}
	for attempt := range starvedOften + 1 {
		if err := b.machine.Update(t.Context(), Options{Patient: true}); !errors.Is(err, sandbox.ErrKilled) {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
		if why := b.failed(); why != "" || b.machine.Journal.Last().Open() {
			t.Errorf("attempt %d: held against the release: %q; %+v", attempt, why, b.machine.Journal.Last())
		}
		for _, dir := range []string{"base", "pristine"} {
			if names, err := b.roots.List(dir); err != nil || len(names) > 0 {
				t.Errorf("left in %s: %v, %v", dir, names, err)
			}
		}
		later += 6 * time.Minute
	}
	if b.describe() != before {
		t.Error("the running root has changed")
	}
	if err := hungry.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = hungry.Wait()
	if err := b.machine.Update(t.Context(), Options{Patient: true}); err != nil || b.machine.Journal.Last().Phase != journal.Staged {
		t.Fatalf("with memory again: %v, %+v", err, b.machine.Journal.Last())
	}
	if got := b.read(b.staged("etc/app.done")); got != "done\n" {
		t.Errorf("%q", got)
	}
}
