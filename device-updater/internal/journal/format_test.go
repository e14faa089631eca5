package journal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
)

// TestNewerRecords: by its class a record of a newer format is understood, and it
// stays in the file as it is.
func TestNewerRecords(t *testing.T) {
	for _, c := range []struct {
		line string
		want journal.Phase
	}{
		{`"phase":"PROBATION","class":"trial","format":2`, journal.Health},
		{`"phase":"MEASURE","class":"unfinished","format":2`, journal.Verify},
		{`"phase":"READY","class":"staged","format":2`, journal.Staged},
		{`"phase":"MERGE","class":"finalise","format":2`, journal.Finalise},
		{`"phase":"SWITCH","class":"reboot","format":2`, journal.Reboot},
		{`"phase":"SETTLE","class":"commit","format":2`, journal.Commit},
		{`"phase":"RETURNED","class":"back","format":2`, journal.RolledBack},
		{`"phase":"DONE","class":"over","format":2`, journal.Idle},
		{`"phase":"STAGED","class":"unfinished","format":2`, journal.Verify}, // staged is something else there
		{`"phase":"HEALTH","class":"trial","format":2`, journal.Health},
		{`"phase":"ORDEAL","format":2`, journal.Finalise}, // against the promise: only facts count
		{`"phase":"TRIAL"`, journal.Trial},                // of before there were classes
	} {
		path := filepath.Join(t.TempDir(), "journal")
		raw := `{"seq":7,"at":"2026-11-20T12:00:00Z","tx":3,` + c.line + `,"deployment":4,"from":3,"seals":["a"],"reason":"r"}` + "\n"
		if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, path)
		last := j.Last()
		if last.Phase != c.want || last.Deployment != 4 || last.Reason != "r" {
			t.Errorf("%s is taken for %+v, want %s", c.line, last, c.want)
		}
		add(t, j, journal.Commit)
		if text, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(text), raw) {
			t.Errorf("it was changed: %s, %v", text, err)
		}
	}
}

// TestEachPhaseHasAClass, which is written with it.
func TestEachPhaseHasAClass(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	for _, p := range journal.Phases() {
		add(t, j, p)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r journal.Record
		if err := json.Unmarshal(line, &r); err != nil || r.Class == "" || r.Class != r.Recovery() || r.Format != journal.Format {
			t.Errorf("%s: %v", line, err)
		}
		if over := r.Class == journal.Over; over == r.Open() {
			t.Errorf("%s is open: %v", r.Phase, r.Open())
		}
	}
}

// TestShorteningKeepsTransactionsWhole, the newest records, what newer updaters
// wrote, and of attempts that came to nothing the last.
func TestShorteningKeepsTransactionsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	var raw bytes.Buffer
	seq := 0
	put := func(tx int, format string) {
		seq++
		fmt.Fprintf(&raw, `{"seq":%d,"at":"2026-11-20T12:00:00Z","tx":%d,%s,"deployment":1,"from":0}`+"\n", seq, tx, format)
	}
	for tx := 1; tx <= 150; tx++ {
		put(tx, `"phase":"CHECK","class":"unfinished"`)
		put(tx, `"phase":"HEALTH","class":"trial"`)
		put(tx, `"phase":"SETTLE","class":"commit","format":2,"seals":["a"]`)
		put(tx, `"phase":"IDLE","class":"over"`)
	}
	for tx := 151; tx <= 650; tx++ {
		put(tx, `"phase":"CHECK","state":"s"`)
		put(tx, `"phase":"PREFLIGHT","state":"s"`)
		put(tx, fmt.Sprintf(`"phase":"IDLE","state":"s","reason":"%d MB are free"`, tx))
	}
	put(651, `"phase":"CHECK","state":"t"`)
	if err := os.WriteFile(path, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	past := journal.Transactions(open(t, path).Records())
	if len(past) < 100 || len(past) > 127 {
		t.Fatalf("%d transactions are left", len(past))
	}
	if got := past[len(past)-2]; got.ID != 650 || got.Reason != "650 MB are free" || past[len(past)-3].ID != 150 {
		t.Errorf("%+v", past[len(past)-3:])
	}
	for _, p := range past[:len(past)-2] {
		if len(p.Phases) != 4 || p.Result != journal.Committed {
			t.Fatalf("%+v", p)
		}
	}
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), `"phase":"SETTLE","class":"commit","format":2,"seals":["a"]`) != len(past)-2 {
		t.Errorf("newer records were changed: %v", err)
	}
}

// TestLongReasons are cut, between characters.
func TestLongReasons(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal"))
	r, err := j.Append(journal.Record{Phase: journal.Failed, Reason: "x" + strings.Repeat("ü", 5000)})
	if err != nil || len(r.Reason) > 2010 || !strings.HasSuffix(r.Reason, "ü…") {
		t.Errorf("%d bytes, %v", len(r.Reason), err)
	}
}

// TestTransactions: what history says of each.
func TestTransactions(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	later := func(seconds int) time.Time { return at.Add(time.Duration(seconds) * time.Second) }
	past := journal.Transactions([]journal.Record{
		{Transaction: 7, Phase: journal.Health, At: later(0)}, // its beginning was dropped
		{Transaction: 7, Phase: journal.Health, At: later(5), Bad: true, Reason: "no"},
		{Transaction: 7, Phase: journal.RolledBack, At: later(60), Reason: "no"},
		{Transaction: 7, Phase: journal.Failed, At: later(61), Reason: "no", Reboots: 2},
		{Transaction: 8, Phase: journal.Check, At: later(100)},
		{Transaction: 8, Phase: journal.Idle, At: later(99), Reason: "the clock was set back"},
		{Transaction: 9, Phase: journal.Commit, At: later(200)},
		{Transaction: 9, Phase: journal.Idle, At: later(201)},
		{Transaction: 10, Phase: journal.Staged, At: later(300)},
	})
	var got []string
	for _, p := range past {
		line := fmt.Sprintf("%d %s %gs %q:", p.ID, p.Result, p.Seconds, p.Reason)
		for _, s := range p.Phases {
			line += fmt.Sprintf(" %s %g", s.Phase, s.Seconds)
		}
		got = append(got, line)
	}
	want := []string{
		`7 failed 61s "no": HEALTH 60 ROLLED_BACK 1 FAILED 0`,
		`8 ended 0s "the clock was set back": CHECK 0 IDLE 0`,
		`9 committed 1s "": COMMIT 1 IDLE 0`,
		`10 open 0s "": STAGED 0`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if past[0].Reboots != 2 || len(journal.Transactions(nil)) != 0 {
		t.Errorf("%+v", past[0])
	}
}
