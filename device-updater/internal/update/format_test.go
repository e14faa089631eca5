package update

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/protocol"
)

// newerJournal is that of an updater of a later format: it has phases of other
// names, more of them, and more fields. Only the classes are those of today.
type newerJournal struct {
	*journal.Journal
	w *world
}

var newerPhases = map[journal.Phase]string{
	journal.Staged: "READY", journal.Finalise: "MERGE", journal.Reboot: "SWITCH", journal.Trial: "PROBATION", journal.Health: "SOAK", journal.Commit: "SETTLE",
	journal.RolledBack: "RETURNED", journal.Idle: "DONE", journal.Install: "UNPACK",
}

func (j *newerJournal) Append(r journal.Record) (journal.Record, error) {
	r.Seq, r.Format, r.Class = j.Last().Seq+1, 2, r.Recovery()
	r.At = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	phases := []string{string(r.Phase)}
	if name := newerPhases[r.Phase]; name != "" {
		phases = []string{name}
	}
	if r.Phase == journal.Snapshot {
		phases = []string{"MEASURE", "SNAPSHOT"} // one more
	}
	j.w.step("journal", func() {})
	for _, phase := range phases {
		raw, err := json.Marshal(r)
		if err != nil {
			return r, err
		}
		raw = bytes.Replace(raw, []byte(`"phase":"`+string(r.Phase)+`"`), []byte(`"phase":"`+phase+`","seals":["a","b"],"power":{"source":"ups"}`), 1)
		f, err := os.OpenFile(filepath.Join(j.w.dir, "journal"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return r, err
		}
		if _, err := f.Write(append(raw, '\n')); err != nil {
			return r, err
		}
		if err := f.Close(); err != nil {
			return r, err
		}
	}
	opened, err := journal.Open(filepath.Join(j.w.dir, "journal"), func() time.Time { return r.At })
	if err != nil {
		return r, err
	}
	old := j.Journal
	j.Journal = opened
	return r, old.Close()
}

// TestBackFromANewerUpdater: an old updater installs a release with a newer one,
// which tries itself, commits, updates, and goes back. The old one goes on, and
// what the newer one wrote is still there.
func TestBackFromANewerUpdater(t *testing.T) {
	w := newWorld(t)
	w.offered, w.newer = "new", map[string]bool{"new": true, "newer": true}
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, committed := w.release(); state != "new" || !committed {
		t.Fatalf("it runs %s, committed: %v", state, committed)
	}
	written := newerLines(t, w)
	for _, phase := range []string{"PROBATION", "SETTLE", "DONE"} {
		if !strings.Contains(written, `"phase":"`+phase+`"`) {
			t.Errorf("the newer updater has not written %s:\n%s", phase, written)
		}
	}
	// Its records have fields that nobody knows yet.
	add := func(path, from, to string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(w.dir, path))
		if err != nil || !bytes.Contains(text, []byte(from)) {
			t.Fatalf("%s: %s, %v", path, text, err)
		}
		if err := os.WriteFile(filepath.Join(w.dir, path), bytes.Replace(text, []byte(from), []byte(to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add("deployments/1.json", `"format": 1`, `"format": 2, "seal": {"by": "tpm"}`)
	if err := w.records().Fail(protocol.Failure{State: "bad", Reason: "no"}); err != nil {
		t.Fatal(err)
	}
	add("failed.json", `"reason": "no"`, `"reason": "no", "weather": "boot 7"`)
	w.asked = func(m *Machine) error { return m.Rollback(t.Context()) }
	if err := w.settle(); err == nil || !strings.Contains(err.Error(), "a person rolled it back") {
		t.Errorf("the check after it says %v", err)
	}
	if state, committed := w.release(); state != "old" || !committed {
		t.Fatalf("it runs %s, committed: %v", state, committed)
	}
	// The old updater works on, and records that the booted deployment is another
	// release of the same packages.
	w.offered, w.same = "same", true
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	d, err := w.records().Deployment(1)
	if err != nil || d.State != "same" {
		t.Errorf("%+v, %v", d, err)
	}
	for path, want := range map[string]string{"deployments/1.json": `"by": "tpm"`, "failed.json": `"weather": "boot 7"`} {
		if text, err := os.ReadFile(filepath.Join(w.dir, path)); err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s has lost %s: %s, %v", path, want, text, err)
		}
	}
	if text := newerLines(t, w); !strings.HasPrefix(text, written) {
		t.Errorf("the journal has lost what the newer updater wrote:\n%s", text)
	}
	w.offered, w.same = "newer", false
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.offered = "next"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, committed := w.release(); state != "next" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
}

// newerLines are the lines of format 2, as they are.
func newerLines(t *testing.T, w *world) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(line string) bool { return !strings.Contains(line, `"format":2`) })
	return strings.Join(lines, "")
}
