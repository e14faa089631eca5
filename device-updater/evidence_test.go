package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func TestPrintEvidence(t *testing.T) {
	failed := []protocol.Failure{
		{State: "old", Evidence: []protocol.Excerpt{{From: "the journal of old.service", Text: "old"}}},
		{State: "new", Evidence: []protocol.Excerpt{{From: "the journal of app.service", Text: "first\n\x1b[2Jsecond"}, {From: "the boot loader", Text: "0 of 3 tries were left"}}},
	}
	var out bytes.Buffer
	const want = `
the journal of app.service:
  first
  \x1b[2Jsecond

the boot loader:
  0 of 3 tries were left
`
	if err := printEvidence(&out, failed); err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	if err := printEvidence(&out, nil); err != nil || out.String() != "\nThere is no evidence of a failure.\n" {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestHistoryHasEvidence: with the record of the failure that is remembered, and
// with no earlier one of the same release.
func TestHistoryHasEvidence(t *testing.T) {
	dir := t.TempDir()
	store, err := update.OpenRecords(filepath.Join(dir, "updater"))
	if err != nil {
		t.Fatal(err)
	}
	p := &program{sysroot: dir}
	log, err := journal.Open(p.journalPath(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i, state := range []string{"a", "b", "a", ""} {
		if _, err := log.Append(journal.Record{Transaction: int64(i + 1), Phase: journal.Failed, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Fail(protocol.Failure{State: "a", Reason: "r", Evidence: []protocol.Excerpt{{From: "f", Text: "no pump"}}}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p.io = &term.IO{Out: &out, Err: os.Stderr, JSON: true, Now: time.Now}
	records, err := journal.Read(p.journalPath())
	if err == nil {
		err = p.historyJSON(journal.Transactions(records))
	}
	if err != nil {
		t.Fatal(err)
	}
	var got []struct {
		Transaction int64 `json:"tx"`
		Evidence    []protocol.Excerpt
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		if want := r.Transaction == 3; (len(r.Evidence) > 0) != want {
			t.Errorf("record %d has the evidence %v", r.Transaction, r.Evidence)
		}
	}
	if len(got) != 4 || strings.Count(out.String(), "no pump") != 1 {
		t.Errorf("%s", &out)
	}
}
