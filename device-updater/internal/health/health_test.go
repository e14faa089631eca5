package health_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/health"
)

// fakeSystemd puts a systemctl on PATH that shows units from a directory:
// one file for each look, the last one again and again.
func fakeSystemd(t *testing.T, looks ...string) {
	t.Helper()
	dir := t.TempDir()
	for i, look := range looks {
		write(t, filepath.Join(dir, fmt.Sprintf("look%d", i)), look, 0o644)
	}
	write(t, filepath.Join(dir, "systemctl"), fmt.Sprintf(`#!/bin/sh
case $1 in
get-default) echo graphical.target;;
show)
	n=$(cat %[1]s/n 2>/dev/null || echo 0)
	echo $((n + 1)) >%[1]s/n
	while [ ! -e %[1]s/look$n ]; do n=$((n - 1)); done
	cat %[1]s/look$n;;
*) exit 1;;
esac
`, dir), 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// look prints units as systemctl show does: "id active sub restarts", and how
// long it is active, if that counts.
func look(units ...string) string {
	var b strings.Builder
	for _, u := range append(units, "graphical.target active active 0") {
		f := strings.Fields(u)
		fmt.Fprintf(&b, "Id=%s\nActiveState=%s\nSubState=%s\n", f[0], f[1], f[2])
		if strings.HasSuffix(f[0], ".service") {
			fmt.Fprintf(&b, "NRestarts=%s\n", f[3])
		}
		if len(f) > 4 {
			up, err := time.ParseDuration(f[4])
			if err != nil {
				panic(err)
			}
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
				panic(err)
			}
			fmt.Fprintf(&b, "ActiveEnterTimestampMonotonic=%d\n", (time.Duration(now.Nano()) - up).Microseconds())
		}
		b.WriteString("\n")
	}
	return b.String()
}

func watcher(t *testing.T) *health.Watcher {
	return &health.Watcher{
		Dir: t.TempDir(), Observe: 40 * time.Millisecond, Limit: 200 * time.Millisecond, Pause: 5 * time.Millisecond, Clock: time.Now,
	}
}

func check(t *testing.T, w *health.Watcher, name, script string) {
	t.Helper()
	write(t, filepath.Join(w.Dir, name), "#!/bin/sh\n"+script+"\n", 0o755)
}

func watch(t *testing.T, w *health.Watcher, limit time.Duration) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return w.Watch(ctx)
}

const (
	long  = 20 * time.Second
	short = 500 * time.Millisecond
)

func TestGood(t *testing.T) {
	fakeSystemd(t, look("a.service activating start 0"), look("a.service active running 0"))
	w := watcher(t)
	check(t, w, "required/a", "exit 0")
	check(t, w, "wanted/b", "echo the printer is off; exit 1")
	write(t, filepath.Join(w.Dir, "required/README"), "no program", 0o644)
	warnings, err := watch(t, w, long)
	if err != nil || len(warnings) != 1 || warnings[0] != "wanted check b: the printer is off" {
		t.Errorf("%v, %v", warnings, err)
	}
}

func TestBad(t *testing.T) {
	fine := look("a.service active running 0")
	for _, c := range []struct {
		name   string
		looks  []string
		limit  time.Duration
		change func(*testing.T, *health.Watcher)
		reason string
	}{
		{"failed", []string{look("a.service failed failed 0")}, long, nil, "a.service failed"},
		{"failed later", []string{fine, fine, fine, look("a.service failed failed 0")}, long, func(_ *testing.T, w *health.Watcher) {
			w.Observe = 10 * time.Second // a busy machine is slow to look
		}, "a.service failed"},
		{"auto-restart", []string{look("a.service activating auto-restart 3")}, long, nil, "a.service does not stay up"},
		{"restarts grow", []string{look("a.service active running 1"), look("a.service active running 2")}, long, nil, "a.service does not stay up"},
		{"another failed", []string{look("old.service failed failed 0", "a.mount failed failed 0")}, long, func(_ *testing.T, w *health.Watcher) {
			w.Baseline.Failed = []string{"old.service"}
		}, "a.mount failed"},
		{"target", []string{strings.ReplaceAll(fine, "Id=graphical.target\nActiveState=active", "Id=graphical.target\nActiveState=inactive")}, short, nil, "graphical.target was not reached when the time for the trial was up"},
		{"check", []string{fine}, long, func(t *testing.T, w *health.Watcher) {
			check(t, w, "required/a", "echo first; echo no answer; exit 1")
		}, "required check a: no answer"},
		{"check by signal", []string{fine}, long, func(t *testing.T, w *health.Watcher) {
			check(t, w, "required/a", "kill -9 $$")
		}, "required check a: signal: killed"},
		{"check that hangs", []string{fine}, long, func(t *testing.T, w *health.Watcher) {
			check(t, w, "required/a", "sleep 1000 & sleep 1000")
		}, "required check a: it took more than 200ms"},
		{"server", []string{fine}, short, func(_ *testing.T, w *health.Watcher) {
			w.Baseline.Reachable = true
			w.Reachable = func(context.Context) error { return errors.New("connection refused") }
		}, "the server could not be reached (connection refused)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeSystemd(t, c.looks...)
			w := watcher(t)
			if c.change != nil {
				c.change(t, w)
			}
			_, err := watch(t, w, c.limit)
			var bad *health.Bad
			if !errors.As(err, &bad) || !strings.Contains(bad.Reason, c.reason) {
				t.Errorf("want %q, got %v", c.reason, err)
			}
		})
	}
}

func TestWhatWasWrongBeforeIsForgiven(t *testing.T) {
	fakeSystemd(t, look("old.service failed failed 0", "flap.service active running 7"), look("old.service failed failed 0", "flap.service activating auto-restart 8"))
	baseline, err := health.Units(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(baseline.Failed, baseline.Restarting, baseline.Reachable) != "[old.service] [flap.service] false" {
		t.Errorf("baseline %+v", baseline)
	}
	w := watcher(t)
	w.Baseline = baseline
	// The server was not reachable before: it is not asked.
	w.Reachable = func(context.Context) error { return errors.New("connection refused") }
	if _, err := watch(t, w, long); err != nil {
		t.Error(err)
	}
}

// TestOneCrashLongAgoIsNoExcuse: the unit was fine before the update.
func TestOneCrashLongAgoIsNoExcuse(t *testing.T) {
	fakeSystemd(t, look("a.service active running 1 6m", "b.service active running 1 20s"), look("a.service failed failed 0", "b.service failed failed 0"))
	w := watcher(t)
	var err error
	if w.Baseline, err = health.Units(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(w.Baseline.Restarting); got != "[b.service]" {
		t.Errorf("restarting before: %s", got)
	}
	var bad *health.Bad
	if _, err := watch(t, w, long); !errors.As(err, &bad) || bad.Reason != "a.service failed" {
		t.Errorf("%v", err)
	}
}

// TestServiceManagerThatIsAway: a reexecution of PID 1 is no verdict on a
// release.
func TestServiceManagerThatIsAway(t *testing.T) {
	fakeSystemd(t, look("a.service active running 0"), "no units", look("a.service active running 0"))
	if _, err := watch(t, watcher(t), long); err != nil {
		t.Error(err)
	}
	fakeSystemd(t, "no units")
	var bad *health.Bad
	if _, err := watch(t, watcher(t), short); !errors.As(err, &bad) || !strings.Contains(bad.Reason, "names none when the time for the trial was up") {
		t.Errorf("%v", err)
	}
}

func TestACheckMayNeedTime(t *testing.T) {
	fakeSystemd(t, look("a.service active running 0"))
	w := watcher(t)
	w.Observe = 2 * time.Second
	flag := filepath.Join(t.TempDir(), "ready")
	check(t, w, "required/a", "test -e "+flag)
	w.Progress = func(waiting string) {
		if waiting != "" {
			write(t, flag, "", 0o644)
		}
	}
	if _, err := watch(t, w, long); err != nil {
		t.Error(err)
	}
}

func TestOneReachIsEnough(t *testing.T) {
	fakeSystemd(t, look("a.service active running 0"))
	w := watcher(t)
	w.Baseline.Reachable = true
	asked := 0
	w.Reachable = func(context.Context) error {
		if asked++; asked == 2 {
			return nil
		}
		return errors.New("slow uplink")
	}
	if _, err := watch(t, w, long); err != nil || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestNoServiceManager(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "systemctl"), "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n", 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if _, err := health.Units(t.Context()); err == nil || !strings.Contains(err.Error(), "Failed to connect to bus") {
		t.Errorf("%v", err)
	}
}
