package update

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/journal"
)

// leaveNewer adds a record to the open transaction as a later version of the
// updater may write it: of a phase, and with fields, that this one does not
// know. It reports whether a transaction was open.
func leaveNewer(t *testing.T, w *world) bool {
	t.Helper()
	path := filepath.Join(w.dir, "journal")
	records, err := journal.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) == 0 || !records[len(records)-1].Open() {
		return false
	}
	last := records[len(records)-1]
	last.Seq++
	last.Phase, last.Bad, last.Reason = "SETTLE", false, ""
	text, err := json.Marshal(last)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(string(text), "}") + `,"settled":{"by":"2.0","parts":["a","b"]},"format":2}` + "\n"
	if err := os.WriteFile(path, append(whole, line...), 0o600); err != nil {
		t.Fatal(err)
	}
	return true
}

// TestAPhaseThatANewerUpdaterLeft: wherever the power fails, and whatever a
// newer updater wrote last, the older one ends it in the old release or in the
// new one, and is not stuck.
func TestAPhaseThatANewerUpdaterLeft(t *testing.T) {
	left := 0
	for _, bad := range []string{"", "app.service failed"} {
		steps := stepsOf(t, bad)
		for at := 1; at <= len(steps); at++ {
			t.Run(fmt.Sprintf("%q/%02d after %s", bad, at, steps[at-1]), func(t *testing.T) {
				w := newWorld(t)
				w.offered, w.bad["new"], w.cutAt = "new", bad, at
				w.powerOn()
				runToCut(w, false)
				if !w.cutDid {
					t.Fatal("never came to this step")
				}
				if leaveNewer(t, w) {
					left++
				}
				checkEnd(t, w, bad != "", w.settle())
			})
		}
	}
	if left < 20 {
		t.Errorf("only %d transactions were left in a newer phase", left)
	}
}

// TestANewerUpdaterWasGoingBack: a person asked for the old deployment, and what
// is left of that is a phase that its updater does not know.
func TestANewerUpdaterWasGoingBack(t *testing.T) {
	back := func(m *Machine) error { return m.Rollback(t.Context()) }
	prepared := func() *world {
		w := newWorld(t)
		w.offered = "new"
		w.powerOn()
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		w.asked = back
		return w
	}
	whole := prepared()
	first := len(whole.steps)
	if err := whole.settle(); err == nil {
		t.Fatal("the release that a person left is not refused")
	}
	for at := first + 1; at <= len(whole.steps); at++ {
		w := prepared()
		w.cutAt = at
		runToCut(w, false)
		leaveNewer(t, w)
		// It ends in one of the two, and nothing stays open.
		_ = w.settle()
		state, committed := w.release()
		records, err := journal.Read(filepath.Join(w.dir, "journal"))
		if err != nil || !committed || len(records) == 0 || records[len(records)-1].Open() {
			t.Errorf("cut after %s: it runs %s, committed: %v, %v", w.steps[at-1], state, committed, err)
		}
		if _, there := w.trees["deployments/1"]; !there {
			t.Errorf("cut after %s: what a person wanted to go back to is deleted", w.steps[at-1])
		}
	}
}
