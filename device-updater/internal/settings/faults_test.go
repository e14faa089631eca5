package settings

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/internal/protocol"
)

// powerCut is what ends an Apply in its midst.
type powerCut struct{}

// cutAfter applies a configuration and lets the power fail after the nth step.
// It returns the steps that were done, and whether it was cut.
func (w *world) cutAfter(n int, c *protocol.AssignedConfig) (steps []string, wasCut bool) {
	w.step = func(done string) {
		steps = append(steps, done)
		if len(steps) == n {
			panic(powerCut{})
		}
	}
	defer func() {
		if cause := recover(); cause != nil {
			if _, ok := cause.(powerCut); !ok {
				panic(cause)
			}
			wasCut = true
		}
	}()
	if _, err := w.Apply(w.t.Context(), device, c); err != nil {
		w.t.Fatal(err)
	}
	return steps, false
}

// TestFullDisk: a configuration that has no room is not taken, and the next one
// that has is.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	if err := os.Mkdir(w.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", w.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("a small file system: %v (the tests of devices run as root)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(w.Dir, 0); err != nil {
			t.Error(err)
		}
	})
	w.mustApply(w.config("a", "x=1"))
	before := w.shown()
	large := strings.Repeat("x", protocol.MaxConfigValue)
	got, err := w.Apply(t.Context(), device, w.config("b", "k1="+large, "k2="+large, "k3="+large))
	if !errors.Is(err, syscall.ENOSPC) || got != rev("a") || w.shown() != before {
		t.Errorf("%q, %v; shown is %s", got, err, w.shown()[:40])
	}
	w.start()
	if got, err := w.Resume(t.Context()); got != rev("a") || err != nil || w.shown() != before {
		t.Errorf("the start after that: %q, %v", got, err)
	}
	w.mustApply(w.config("c", "x=2"))
	if got := w.left(); got != "[aaaaaaaa cccccccc current status.json]" {
		t.Errorf("left are %s", got)
	}
}

// TestPowerCuts: the power fails after each step of a change; the next start,
// with the assignment, without it, or with another one, finishes it. Hooks run
// for every key after its new value can be seen.
func TestPowerCuts(t *testing.T) {
	from := []string{"x=1", "gone=1", "equal=1", "secret=old"}
	to := []string{"x=2", "new=1", "equal=1", "secret=young"}
	w := newWorld(t)
	w.mustApply(w.config("a", from...))
	steps, _ := w.cutAfter(0, w.config("b", to...))
	if len(steps) < 6 {
		t.Fatalf("only the steps %q", steps)
	}
	for at := 1; at <= len(steps); at++ {
		for _, how := range []string{"assignment", "resume", "another", "back"} {
			t.Run(fmt.Sprintf("%d after %s/%s", at, steps[at-1], how), func(t *testing.T) {
				w := newWorld(t)
				w.mustApply(w.config("a", from...))
				w.noted()
				if _, wasCut := w.cutAfter(at, w.config("b", to...)); !wasCut {
					t.Fatal("it was not cut")
				}
				before := w.shown()
				if before != "aaaaaaaa map[equal:1 gone:1 secret:old x:1] [secret]" && before != "bbbbbbbb map[equal:1 new:1 secret:young x:2] [secret]" {
					t.Fatalf("while the power is off: %s", before)
				}
				w.start()
				want, changed := "bbbbbbbb map[equal:1 new:1 secret:young x:2] [secret]", "gone new secret x"
				switch how {
				case "assignment":
					w.mustApply(w.config("b", to...))
				case "resume":
					if got, err := w.Resume(t.Context()); err != nil || got != rev("a") && got != rev("b") {
						t.Fatalf("%q, %v", got, err)
					} else if got == rev("a") {
						want, changed = "aaaaaaaa map[equal:1 gone:1 secret:old x:1] [secret]", ""
					}
				case "another":
					w.mustApply(w.config("c", "x=3", "equal=1"))
					want, changed = "cccccccc map[equal:1 x:3] []", "secret x"
				case "back":
					w.mustApply(w.config("a", from...))
					want, changed = "aaaaaaaa map[equal:1 gone:1 secret:old x:1] [secret]", ""
					if before[:8] == rev("b") {
						changed = "gone new secret x" // programs may have read the other one
					}
				}
				if w.shown() != want {
					t.Errorf("shown is %s", w.shown())
				}
				seen := w.noted()
				last := seen[strings.LastIndex(seen, "\n")+1:]
				for key := range strings.FieldsSeq(changed) {
					if fields := strings.Fields(last); len(fields) < 2 || fields[0] != want[:8] || !slices.Contains(fields[2:], key) {
						t.Errorf("no hook was told of %s in %s: %q", key, want[:8], seen)
					}
				}
				if how != "resume" && changed != "" && !strings.Contains(seen, " gone") {
					t.Errorf("no hook was told that a key is gone: %q", seen)
				}
				w.start()
				if got, err := w.Resume(t.Context()); got != want[:8] || err != nil || w.noted() != "" {
					t.Errorf("the start after that: %q, %v", got, err)
				}
				w.mustApply(w.config("d", "x=4"))
				if got := w.left(); strings.Count(got, " ") != 3 {
					t.Errorf("left are %s", got)
				}
			})
		}
	}
}
