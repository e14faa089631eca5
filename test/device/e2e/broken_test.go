package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// shipBroken lets a device meet a broken release and returns it when it is
// back, together with the reason it gives.
func shipBroken(t *testing.T, release string, change ...func(*fielded)) (*fielded, string) {
	t.Helper()
	d := newDevice(t, change...)
	d.on()
	before := d.packages()
	d.promote(release)
	start := time.Now()
	reason := d.awaitRollback(release)
	times.add("broken release: promotion until it is back ("+release+")", time.Since(start))
	d.runs("1", "demo-app")
	if after := d.packages(); difference(before, after) != "" {
		t.Errorf("the rollback left other packages:\n%s", difference(before, after))
	}
	if d.trials() == 0 {
		t.Error("the release was never tried")
	}
	if d.trials() > d.trial.Tries {
		t.Errorf("the release was booted %d times, tries are %d", d.trials(), d.trial.Tries)
	}
	if reason == "" {
		t.Error("the journal does not say why")
	}
	t.Logf("%s: %d trial boots, back after %v, because %s", release, d.trials(), time.Since(start).Round(100*time.Millisecond), reason)
	return d, reason
}

// saysWhyNot checks that status names the failed release and a reason.
func (d *fielded) saysWhyNot(release string, words ...string) {
	d.t.Helper()
	var report protocol.Report
	d.await("status name the failed release", func() bool {
		report = d.status()
		return report.WhyNot != "" && len(report.Failed) == 1
	})
	if report.Failed[0].State != world.releases[release].State {
		d.t.Errorf("status says that %q failed, want %q", report.Failed[0].State, world.releases[release].State)
	}
	for _, word := range words {
		if !strings.Contains(report.Failed[0].Reason, word) {
			d.t.Errorf("status gives the reason %q, want it to name %q", report.Failed[0].Reason, word)
		}
	}
}

func TestAReleaseWhoseServiceDoesNotStartGoesBackByItself(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "no-start")
	d.saysWhyNot("no-start", "demo-app.service")
}

func TestAReleaseWhoseServiceCrashesAfterTwentySecondsGoesBackByItself(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "crash", func(d *fielded) { d.trial = trial{Tries: 2, Timeout: "70s", Observe: "25s"} })
	d.saysWhyNot("crash", "demo-app.service")
}

func TestAReleaseWhoseServiceHangsGoesBackByItself(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; a service that does not start is refused alike")
	}
	t.Parallel()
	d, _ := shipBroken(t, "hang", impatient)
	d.saysWhyNot("hang")
}

// The following four break what could end the trial: PID 1 and the loader
// must do it alone.

func TestAReleaseThatDeletesTheUpdaterGoesBackUnattended(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "updater-deleted", impatient)
	d.saysWhyNot("updater-deleted")
	// Nobody watched: the loader and the journal of its last boot are witnesses.
	said := fmt.Sprint(d.status().Failed[0].Evidence)
	for _, words := range []string{"0 of 2 tries were left", "the journal of its last boot"} {
		if !strings.Contains(said, words) {
			t.Errorf("the evidence has no %q: %s", words, said)
		}
	}
}

func TestAReleaseWhoseUpdaterExitsAtOnceGoesBackUnattended(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "updater-exits", impatient)
	d.saysWhyNot("updater-exits")
}

func TestAReleaseWhoseUpdaterHangsGoesBackUnattended(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "updater-hangs", impatient)
	d.saysWhyNot("updater-hangs")
}

func TestAReleaseThatBreaksFstabGoesBackUnattended(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "fstab", impatient)
	d.saysWhyNot("fstab")
}

func TestAReleaseWhoseHealthCheckFailsIsNotTriedAgainAfterThreePowerCycles(t *testing.T) {
	t.Parallel()
	d, _ := shipBroken(t, "unhealthy")
	d.saysWhyNot("unhealthy", "demo-app", "the pump does not answer")
	for cycle := range 3 {
		d.cut()
		before := len(d.Boots())
		d.on()
		// The updater looks at the stage, which still offers the release.
		seen := len(d.journal())
		d.await("the updater look at its stage", func() bool {
			return d.status().Wanted == world.releases["unhealthy"].State || len(d.journal()) > seen
		})
		time.Sleep(3 * time.Second) // three polls: time for it to do what it must not
		boots := d.Boots()[before:]
		if len(boots) != 1 || boots[0].Trial || boots[0].Deployment != 1 {
			t.Fatalf("power cycle %d: boots %+v, want one of 1", cycle+1, boots)
		}
	}
	d.saysWhyNot("unhealthy")
	// A different release is another matter.
	d.promote("2")
	d.awaitCommit("2")
	d.runs("2", "demo-app")
}
