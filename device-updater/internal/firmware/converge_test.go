package firmware

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/test/order"
)

// TestBothRevisions: one release, two boards; each gets its own image, with the
// update and with the way back.
func TestBothRevisions(t *testing.T) {
	for _, revision := range []string{"A1", "B2"} {
		t.Run(revision, func(t *testing.T) {
			d := newDevice(t, revision)
			d.must(1)
			d.has("1.0", "1.0", "")
			if acts := d.results(); acts != "" {
				t.Errorf("it was flashed with what it had: %s", acts)
			}
			changes, err := d.converge(2, trial)
			if err != nil || fmt.Sprint(changes) != "[{mcu 1.0 2.0}]" {
				t.Errorf("%v, %v", changes, err)
			}
			d.has("2.0", "2.0", "")
			d.must(2)
			d.must(1)
			d.has("1.0", "1.0", "")
			if acts := d.results(); acts != "1.0→2.0 done, 2.0→1.0 done" {
				t.Errorf("acts: %s", acts)
			}
		})
	}
}

// TestTheOtherImageBricks: the microcontroller of these tests would not survive
// a mistake, and the tests would see it.
func TestTheOtherImageBricks(t *testing.T) {
	d := newDevice(t, "A1")
	d.revision = "B2" // a lie
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
	if _, err := d.Flashed(); err == nil || !strings.Contains(err.Error(), "is destroyed") {
		t.Errorf("%v", err)
	}
	d.cut()
	d.on()
	if out, err := exec.Command(filepath.Join(programs, "flash"), "probe").Output(); err == nil {
		t.Errorf("it came back to life: %s", out)
	}
	// The device is given up: what the end of the test looks at is another one.
	if err := os.RemoveAll(d.Dir); err != nil {
		t.Fatal(err)
	}
}

// TestNothingIsTouched where it is not certain what may be put there.
func TestNothingIsTouched(t *testing.T) {
	for _, c := range []struct {
		name     string
		revision string
		unsure   error
		why      string
	}{
		{"unknown", "-", nil, "nobody knows the hardware revision"},
		{"unsupported", "C3", nil, "hardware revision C3 is not supported: this release has firmware for A1, B2"},
		{"contradictory", "", errors.New(`the factory says "A1", dmi "B2"`), `the factory says "A1", dmi "B2"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(t, "B2")
			d.must(1)
			d.revision, d.unsure = c.revision, c.unsure
			d.hook(2, "touch "+filepath.Join(d.dir, "touched")+"; exit 1")
			for _, s := range []func(*Situation){trial, func(*Situation) {}, person} {
				if changes, err := d.converge(2, s); err != nil || len(changes) != 0 {
					t.Errorf("%v, %v", changes, err)
				}
				d.has("1.0", "", c.why)
			}
			if _, err := os.Stat(filepath.Join(d.dir, "touched")); err == nil {
				t.Error("the hook was run")
			}
			// Once it is known, it is done.
			d.revision, d.unsure = "", nil
			d.release(3, "3.0")
			d.must(3)
			d.has("3.0", "3.0", "")
		})
	}
}

// TestIrreversible firmware waits for the commit, and stays.
func TestIrreversible(t *testing.T) {
	d := newDevice(t, "B2")
	d.release(2, "2.0", "reversible: true", "reversible: false")
	d.must(1)
	d.must(2, trial)
	d.has("1.0", "2.0", "waits until the release is committed")
	d.must(2, func(s *Situation) { s.Held = "ada holds it: fair" })
	d.has("1.0", "2.0", "so it waits: ada holds it: fair")
	d.must(2)
	d.has("2.0", "2.0", "")
	// A person goes back to the older release, which believes that it could.
	d.must(1, trial)
	d.has("2.0", "1.0", "it cannot go back to 1.0: it has had 2.0")
	d.must(1, person)
	d.has("2.0", "1.0", "it cannot go back")
	d.release(3, "3.0", "reversible: true", "reversible: false")
	d.must(3)
	d.has("3.0", "3.0", "")
	// The factory had put something newer on it than this release has.
	e := newDevice(t, "A1")
	e.release(1, "0.9", "reversible: true", "reversible: false")
	e.must(1)
	e.has("1.0", "0.9", "it cannot go back to 0.9 from 1.0")
}

// TestAnInterruptedIrreversible flash is not mended with something older.
func TestAnInterruptedIrreversible(t *testing.T) {
	d := newDevice(t, "B2")
	d.release(2, "2.0", "reversible: true", "reversible: false")
	d.Pace = 5 * time.Millisecond
	d.cut()
	d.on()
	d.killed(2, d.half, 0)
	d.on()
	if !d.half() {
		t.Fatal("the flash was not cut off: the moment is chosen badly")
	}
	d.must(1)
	d.has("half", "1.0", "it cannot go back to 1.0: it has had 2.0")
	d.must(2)
	d.has("2.0", "2.0", "")
}

// TestPowerCuts: at whatever moment the power of the whole device fails, what is
// left is whole or only answers from its boot ROM, the next start brings it to
// what that deployment wants, and the book tells of it.
func TestPowerCuts(t *testing.T) {
	cuts := 12
	if order.Long() {
		cuts = 200
	}
	random := rand.New(rand.NewPCG(order.Seed(t), 7))
	d := newDevice(t, "B2")
	d.Pace = 2 * time.Millisecond
	d.cut()
	d.on()
	began := time.Now()
	d.must(2)
	took := time.Since(began)
	left := map[string]int{}
	at := 2
	for i := range cuts {
		at = 3 - at
		if i%2 == 0 {
			d.killed(at, d.half, time.Duration(random.Int64N(int64(took))))
		} else {
			d.killed(at, nil, time.Duration(random.Int64N(int64(took))))
		}
		got, err := d.Flashed()
		if err != nil {
			t.Fatal(err)
		}
		left[got]++
		d.on()
		// The loader may boot either deployment after that.
		next := 1 + random.IntN(2)
		d.must(next)
		d.has(fmt.Sprint(next, ".0"), fmt.Sprint(next, ".0"), "")
		at = next
		for _, act := range d.book().Acts {
			if act.Result == "" {
				t.Errorf("nobody noticed that %+v was cut off", act)
			}
		}
	}
	t.Logf("left by %d cuts, a flash takes %v: %v; %s", cuts, took, left, d.results())
	if left["half"] == 0 {
		t.Error("no cut fell into a flash")
	}
	if !strings.Contains(d.results(), Interrupted) {
		t.Error("no act is known to have been cut off")
	}
}

// TestKilledUpdater: without the updater its hook goes, too.
func TestKilledUpdater(t *testing.T) {
	d := newDevice(t, "A1")
	mark := filepath.Join(d.dir, "still-there")
	d.hook(2, `case $1 in probe) echo '{"state":"running","version":"1.0"}';; apply) sleep 2; touch `+mark+`;; esac`)
	d.killed(2, func() bool { return len(d.book().Acts) > 0 }, 0)
	time.Sleep(3 * time.Second)
	if _, err := os.Stat(mark); err == nil {
		t.Error("the hook outlived the updater")
	}
	d.on()
	d.must(1)
	if acts := d.results(); acts != "1.0→2.0 interrupted" {
		t.Errorf("acts: %s", acts)
	}
}

// TestAFirmwareThatIsNotTaken makes a trial bad, is tried a few times and then
// left alone until a person or another release says otherwise.
func TestAFirmwareThatIsNotTaken(t *testing.T) {
	d := newDevice(t, "B2")
	d.must(1)
	broken := `case $1 in probe) echo '{"state":"running","version":"1.0"}';; *) echo ` + "applied >>" + filepath.Join(d.dir, "applied") + `; echo no answer from page 7 >&2; exit 1;; esac`
	d.hook(2, broken)
	_, err := d.converge(2, trial)
	if err == nil || !strings.Contains(err.Error(), "cannot bring mcu to firmware 2.0: no answer from page 7") {
		t.Errorf("%v", err)
	}
	d.has("1.0", "2.0", "no answer from page 7")
	applied := func() int {
		text, err := os.ReadFile(filepath.Join(d.dir, "applied"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
	if applied() != maxFailed {
		t.Errorf("applied %d times", applied())
	}
	// Again and again, in the same deployment: it is left alone.
	for _, s := range []func(*Situation){trial, func(*Situation) {}} {
		if _, err := d.converge(2, s); err == nil || !strings.Contains(err.Error(), "it failed 3 times: no answer from page 7") {
			t.Errorf("%v", err)
		}
	}
	if applied() != maxFailed {
		t.Errorf("applied %d times", applied())
	}
	d.has("1.0", "2.0", "`device-updater firmware apply` tries again")
	if _, err := d.converge(2, person); err == nil || applied() != 2*maxFailed {
		t.Errorf("%v, applied %d times", err, applied())
	}
	// It was in trouble before this update: that is not held against it.
	d.release(3, "3.0")
	d.hook(3, broken)
	d.must(3, trial)
	d.has("1.0", "3.0", "no answer from page 7")
	d.release(4, "4.0")
	d.must(4, trial)
	d.has("4.0", "4.0", "")
	d.must(4)
	if d.entry().Trouble {
		t.Error("it is still in trouble")
	}
	log, err := os.ReadFile(filepath.Join(d.dir, "updater/logs/firmware-mcu"))
	if err != nil || !strings.Contains(string(log), "no answer from page 7") || !strings.Contains(string(log), "apply ") {
		t.Errorf("the log has %q, %v", log, err)
	}
}

// TestADeafComponent cannot be asked: a trial is bad, unless it was deaf before.
func TestADeafComponent(t *testing.T) {
	d := newDevice(t, "B2")
	d.must(1)
	d.hook(2, "echo it does not answer >&2; exit 1")
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "it cannot be asked how it is: it does not answer") {
		t.Errorf("%v", err)
	}
	if _, err := d.converge(2); err == nil {
		t.Error("a committed release does not say so")
	}
	d.must(2, trial)
	d.has("1.0", "2.0", "cannot be asked")
}

// TestNotNow: a hook that puts it off is asked again: by a trial for as long as
// that lasts, by a committed release after growing pauses, and not for ever.
func TestNotNow(t *testing.T) {
	d := newDevice(t, "B2")
	d.must(1)
	if err := d.Busy(true); err != nil {
		t.Fatal(err)
	}
	d.must(2)
	d.has("1.0", "2.0", "not now: the pump is running")
	due := func(s *Situation) { s.Due = true }
	d.must(2, due)
	if acts := d.results(); acts != "1.0→2.0 later" {
		t.Errorf("it did not wait: %s", acts)
	}
	pauses := 0
	for d.entry().Attempts.Later < maxLater {
		before := d.entry().Attempts.NotBefore
		d.now = before.Add(-time.Second)
		d.must(2, due)
		if d.entry().Attempts.NotBefore != before {
			t.Fatal("it was asked too early")
		}
		d.now = before
		if _, err := d.converge(2, due); err != nil {
			t.Fatal(err)
		}
		if pauses++; pauses > maxLater {
			t.Fatal("it is asked for ever")
		}
	}
	d.now = d.now.Add(lastPause)
	if _, err := d.converge(2, due); err == nil || !strings.Contains(err.Error(), "it was put off 20 times: not now: the pump is running") {
		t.Errorf("%v", err)
	}
	if err := d.Busy(false); err != nil {
		t.Fatal(err)
	}
	d.must(2, person)
	d.has("2.0", "2.0", "")

	// In a trial it is asked again at once.
	if err := d.Busy(true); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { d.Busy(false) })
	d.must(1, trial)
	d.has("1.0", "1.0", "")
}

// TestAHookThatHangs is killed with its children.
func TestAHookThatHangs(t *testing.T) {
	d := newDevice(t, "B2")
	d.release(2, "2.0", "timeout: 20s", "timeout: 300ms")
	d.hook(2, `test $1 = probe && exec echo '{"state":"boot-rom"}'; sleep 60`)
	began := time.Now()
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "it took more than 300ms") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestATrialThatIsTooShort does not begin what it may not end.
func TestATrialThatIsTooShort(t *testing.T) {
	d := newDevice(t, "B2")
	d.release(2, "2.0", "timeout: 20s", "timeout: 59m")
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "too short for it: it may take 59m") {
		t.Errorf("%v", err)
	}
	d.has("1.0", "2.0", "too short")
	d.must(2) // without a time limit it is done
	d.has("2.0", "2.0", "")
}

// TestADamagedImage is not put anywhere.
func TestADamagedImage(t *testing.T) {
	d := newDevice(t, "B2")
	d.release(2, "2.0", `version: "2.0"`, "version: \"2.0\"\n    sha256: "+strings.Repeat("0", 64))
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(d.root(1), "usr/lib/board/B2")); err != nil {
		t.Fatal(err)
	}
	d.must(1) // it has that already
	d.has("1.0", "1.0", "")
}

// TestABrokenDescriptor is the fault of its release.
func TestABrokenDescriptor(t *testing.T) {
	d := newDevice(t, "B2")
	d.must(1)
	d.release(2, "2.0", "hook:", "hock:")
	if _, err := d.converge(2, trial); err == nil || !strings.Contains(err.Error(), "mcu.yaml") {
		t.Errorf("%v", err)
	}
	if b := d.book(); !strings.Contains(b.Problem, "hock") || len(b.Report()) != 2 {
		t.Errorf("%+v", b)
	}
	d.must(1)
	if b := d.book(); b.Problem != "" {
		t.Errorf("%+v", b)
	}
}

// TestOther situations.
func TestOther(t *testing.T) {
	d := newDevice(t, "B2")
	dry := func(s *Situation) { s.DryRun, s.Person = true, true }
	if changes, err := d.converge(2, dry); err != nil || fmt.Sprint(changes) != "[{mcu 1.0 2.0}]" {
		t.Errorf("%v, %v", changes, err)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "updater", bookFile)); err == nil {
		t.Error("a dry run wrote something down")
	}
	if _, err := d.converge(2, func(s *Situation) { s.Component = "modem" }); err == nil || !strings.Contains(err.Error(), `cannot find component "modem"`) {
		t.Errorf("%v", err)
	}
	d.hook(2, `echo '{"state":"absent"}'`)
	d.must(2, trial)
	d.has("1.0", "2.0", "it is not fitted")
	// A release without firmware wants nothing.
	if err := os.RemoveAll(filepath.Join(d.root(1), Dir)); err != nil {
		t.Fatal(err)
	}
	d.must(1)
	d.has("1.0", "", "")
	// A device that never had any keeps no book.
	e := newDevice(t, "A1")
	if err := os.RemoveAll(filepath.Join(e.root(1), Dir)); err != nil {
		t.Fatal(err)
	}
	e.must(1)
	if _, err := os.Stat(filepath.Join(e.dir, "updater", bookFile)); err == nil {
		t.Error("a book of nothing")
	}
}
