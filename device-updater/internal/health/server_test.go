package health_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/uplink"
)

// far is a server that nobody reaches.
func far(context.Context) error { return errors.New("no route to host") }

// found is an Explain that always finds the same.
func found(f uplink.Finding) func(context.Context, *uplink.Path, *uplink.Request, error) (uplink.Finding, bool) {
	return func(context.Context, *uplink.Path, *uplink.Request, error) (uplink.Finding, bool) { return f, true }
}

// TestServer: what was before, what is now, and the verdict.
func TestServer(t *testing.T) {
	outside, here := uplink.Finding{Outside: true, What: "eth0 has no carrier"}, uplink.Finding{What: "it does not leave this device"}
	for _, c := range []struct {
		name    string
		before  bool // it was reachable
		now     func(context.Context) error
		finding *uplink.Finding
		bad     string // reason; "": committed
		warning string
	}{
		{"reachable before and now", true, func(context.Context) error { return nil }, nil, "", ""},
		{"never reachable", false, far, &here, "", ""},
		{"cut by the release", true, far, &here, "the server could not be reached (no route to host): it does not leave this device when the time for the trial was up", ""},
		{"dead uplink", true, far, &outside, "", "committed without a word from the server: eth0 has no carrier"},
		{"cannot be told", true, far, nil, "the server could not be reached (no route to host) when the time for the trial was up", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeSystemd(t, look("a.service active running 0"))
			w := watcher(t)
			w.Baseline.Reachable, w.Reachable = c.before, c.now
			if c.finding != nil {
				w.Explain = found(*c.finding)
			}
			check(t, w, "wanted/b", "echo the printer is off; exit 1")
			warnings, err := watch(t, w, short)
			var bad *health.Bad
			if c.bad != "" {
				if !errors.As(err, &bad) || bad.Reason != c.bad {
					t.Errorf("%v", err)
				} else if len(bad.Evidence) != 1 || !strings.Contains(bad.Evidence[0].Text, "no route to host") {
					t.Errorf("evidence %+v", bad.Evidence)
				}
				return
			}
			want := "wanted check b: the printer is off"
			if c.warning != "" {
				want += "; " + c.warning
			}
			if got := strings.Join(warnings, "; "); err != nil || got != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestAServerThatComesLate: health has held meanwhile, and need not hold for as
// long again.
func TestAServerThatComesLate(t *testing.T) {
	fakeSystemd(t, look("a.service active running 0"))
	w := watcher(t)
	w.Observe = 400 * time.Millisecond
	w.Baseline.Reachable = true
	start := time.Now()
	w.Reachable = func(context.Context) error {
		if time.Since(start) < 600*time.Millisecond {
			return errors.New("slow uplink")
		}
		return nil
	}
	warnings, err := watch(t, w, long)
	if took := time.Since(start); err != nil || len(warnings) > 0 || took > 950*time.Millisecond {
		t.Errorf("%v after %v, %v", warnings, took, err)
	}
}

// TestADeadUplinkExcusesNothingElse: a check that fails at the end is what
// counts.
func TestADeadUplinkExcusesNothingElse(t *testing.T) {
	fakeSystemd(t, look("a.service active running 0"))
	w := watcher(t)
	w.Baseline.Reachable, w.Reachable, w.Explain = true, far, found(uplink.Finding{Outside: true, What: "eth0 has no carrier"})
	check(t, w, "required/a", "echo no pump; exit 1")
	var bad *health.Bad
	if _, err := watch(t, w, long); !errors.As(err, &bad) || bad.Reason != "required check a: no pump" {
		t.Errorf("%v", err)
	} else if len(bad.Evidence) != 1 || bad.Evidence[0].From != "the output of required check a" || bad.Evidence[0].Text != "no pump" {
		t.Errorf("evidence %+v", bad.Evidence)
	}
}

// TestTheServerIsNotWaitedForByUnits: a unit that fails is seen at once while a
// request hangs.
func TestTheServerIsNotWaitedForByUnits(t *testing.T) {
	fine := look("a.service active running 0")
	fakeSystemd(t, fine, fine, look("a.service failed failed 0"))
	w := watcher(t)
	w.Baseline.Reachable = true
	w.Reachable = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	start := time.Now()
	var bad *health.Bad
	if _, err := watch(t, w, long); !errors.As(err, &bad) || bad.Reason != "a.service failed" || time.Since(start) > long/2 {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestBootComplete(t *testing.T) {
	const ours = "aptfleet-boot-complete.target inactive dead"
	fine := "a.service active running 0"
	reached := look(fine, "aptfleet-boot-complete.target active active", "boot-complete.target active active")
	for _, c := range []struct {
		name  string
		looks []string
		was   bool // it was not reached before the update either
		bad   string
	}{
		{"reached", []string{look(fine, ours), reached}, false, ""},
		{"not reached", []string{look(fine, ours)}, false, "boot-complete.target was not reached when the time for the trial was up"},
		{"not reached before either", []string{look(fine, ours)}, true, ""},
		{"an old release, which does not wait for it", []string{look(fine)}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeSystemd(t, c.looks...)
			w := watcher(t)
			w.Baseline.Incomplete = c.was
			limit := long
			if c.bad != "" {
				limit = short
			}
			_, err := watch(t, w, limit)
			var bad *health.Bad
			if c.bad == "" && err != nil || c.bad != "" && (!errors.As(err, &bad) || bad.Reason != c.bad) {
				t.Errorf("%v", err)
			}
		})
	}
	fakeSystemd(t, look(fine, ours))
	if b, err := health.Units(t.Context()); err != nil || !b.Incomplete {
		t.Errorf("%+v, %v", b, err)
	}
	fakeSystemd(t, reached)
	if b, err := health.Units(t.Context()); err != nil || b.Incomplete {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestAskServer(t *testing.T) {
	asked := 0
	restarts := func(context.Context) error {
		if asked++; asked < 3 {
			return errors.New("connection refused")
		}
		return nil
	}
	var b health.Baseline
	if b.AskServer(t.Context(), time.Millisecond, restarts); !b.Reachable || b.Uplink != nil {
		t.Errorf("%+v", b)
	}
	if b.AskServer(t.Context(), time.Millisecond, far); b.Reachable {
		t.Errorf("%+v", b)
	}
}
