package update

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/journal"
)

// document is where the tables are that this file holds the machine against.
const document = "../../../docs/device-transaction.md"

// moment is a state of the tables: the last thing that is durable when the
// updater is cut off.
type moment struct {
	state    string
	scenario string // that leads there
	call     string // behind which it is
	nth      int    // of the calls of that name
}

var moments = []moment{
	{"CHECK", "good update", "Journal.Append CHECK", 1},
	{"PREFLIGHT", "good update", "Journal.Append PREFLIGHT", 1},
	{"DOWNLOAD", "good update", "Journal.Append DOWNLOAD", 1},
	{"SNAPSHOT", "good update", "Journal.Append SNAPSHOT", 1},
	{"SNAPSHOT, base made", "good update", "Roots.Snapshot base/2", 1},
	{"INSTALL", "good update", "Journal.Append INSTALL", 1},
	{"INSTALL, half done", "does not install", "Releases.Install", 1},
	{"VERIFY", "good update", "Journal.Append VERIFY", 1},
	{"VERIFY, pristine root made", "good update", "Roots.Sync", 1},
	{"STAGED", "good update", "Journal.Append STAGED", 1},
	{"FINALISE", "good update", "Journal.Append FINALISE", 1},
	{"FINALISE, /etc merged", "good update", "Merge", 1},
	{"FINALISE, SetTry done", "good update", "Boot.SetTry", 1},
	{"REBOOT", "good update", "Journal.Append REBOOT", 1},
	{"TRIAL", "good update", "Journal.Append TRIAL", 1},
	{"HEALTH", "good update", "Journal.Append HEALTH", 1},
	{"HEALTH, bad", "bad trial", "Journal.Append HEALTH", 2},
	{"HEALTH, bad, MarkBad done", "bad trial", "Boot.MarkBad", 1},
	{"COMMIT", "good update", "Journal.Append COMMIT", 1},
	{"COMMIT, committed.env written", "good update", "Blocks.WriteBlock committed.env", 1},
	{"COMMIT, grubenv written", "good update", "Boot.Commit", 1},
	{"IDLE", "good update", "Journal.Append IDLE", 1},
	{"ROLLED_BACK", "bad trial", "Journal.Append ROLLED_BACK", 1},
	{"ROLLED_BACK, remembered", "bad trial", "Records write failed.json", 1},
	{"FAILED", "bad trial", "Journal.Append FAILED", 1},
	{"rollback: FINALISE", "rollback", "Journal.Append FINALISE", 1},
	{"rollback: SetTry done", "rollback", "Boot.SetTry", 1},
	{"rollback: REBOOT", "rollback", "Journal.Append REBOOT", 1},
	{"rollback: HEALTH", "rollback", "Journal.Append HEALTH", 1},
	{"rollback: HEALTH, bad", "bad rollback", "Journal.Append HEALTH", 2},
	{"rollback: COMMIT", "rollback", "Journal.Append COMMIT", 1},
	{"rollback: committed.env written", "rollback", "Blocks.WriteBlock committed.env", 1},
	{"rollback: ROLLED_BACK", "bad rollback", "Journal.Append ROLLED_BACK", 1},
}

// columns of the tables, in their order.
var columns = []interruption{killed, powerAll, powerNone, usedUp}

// TestDocumentedRecovery holds the tables of docs/device-transaction.md against
// the machine: a row for each state, a column for each interruption, and in each
// cell the records that the next starts write until the device rests, and what
// it runs then. With APTFLEET_WRITE=1 it prints the rows as the machine has them.
func TestDocumentedRecovery(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 1+len(columns)+1 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "`", ""))
		}
		documented[cells[0]] = cells[1:]
	}
	all := map[string]scenario{}
	for _, s := range scenarios(t) {
		all[s.name] = s
	}
	for _, m := range moments {
		row := documented[m.state]
		delete(documented, m.state)
		var have []string
		for i, how := range columns {
			cell := recoveryCell(t, all[m.scenario], m.call, m.nth, how)
			have = append(have, cell)
			if row != nil && row[i] != cell {
				t.Errorf("%s × %s: the document says %q, the machine does %q", m.state, how, row[i], cell)
			}
		}
		if row == nil {
			t.Errorf("the document has no row for %s", m.state)
		}
		if os.Getenv("APTFLEET_WRITE") != "" {
			fmt.Printf("| %s | %s | |\n", m.state, strings.Join(have, " | "))
		}
	}
	for state := range documented {
		if state != "State" && !strings.HasPrefix(state, "---") {
			t.Errorf("the document has a row for %s, which is never tried", state)
		}
	}
	for _, p := range journal.Phases() {
		if !slices.ContainsFunc(moments, func(m moment) bool { return m.state == string(p) }) {
			t.Errorf("no moment is of phase %s", p)
		}
	}
}

// recoveryCell interrupts a scenario behind a call and returns what follows from
// recovery alone, without another check.
func recoveryCell(t *testing.T, s scenario, call string, nth int, how interruption) string {
	t.Helper()
	w, c := s.prepare(t), &calls{}
	names := s.numbered(t)
	at := 0
	for n := 0; n < nth; n++ {
		next := slices.Index(names[at:], call)
		if next < 0 {
			t.Fatalf("%s has no call %s: %v", s.name, call, names)
		}
		at += next + 1
	}
	c.again(at, false)
	w.wrap = c.wrap(w)
	if wasCut, err := w.work(); !wasCut {
		t.Fatalf("never came to %s: %v", call, err)
	}
	if how == usedUp {
		if trial, ok := boot.New(blocks{w}).Trial(); !ok || trial.Tries == 0 {
			return "–"
		}
	}
	w.wrap = nil
	before := len(mustRead(w))
	w.suffer(how, 1)
	for range 5 {
		if _, err := w.session(false); err != nil {
			t.Errorf("%s after %s: %v", how, call, err)
		}
		if !w.rebooting {
			break
		}
		w.disk = cloneTrees(w.trees)
		w.powerOn()
	}
	var wrote []string
	for _, r := range mustRead(w)[before:] {
		wrote = append(wrote, string(r.Phase))
	}
	state, committed := w.release()
	if !committed {
		t.Errorf("%s after %s: %s runs and is not committed", how, call, state)
	}
	if len(wrote) == 0 {
		wrote = []string{"nothing"}
	}
	return strings.Join(wrote, " ") + ": " + state
}
