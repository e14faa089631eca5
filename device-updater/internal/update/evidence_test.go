package update

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

// LastWords implements System.
func (w *world) LastWords(context.Context, time.Time, string) []protocol.Excerpt {
	return []protocol.Excerpt{{From: "the journal of its last boot", Text: "out of memory"}}
}

// evidenceAfter lets a device meet a bad release and returns what is kept.
func evidenceAfter(t *testing.T, w *world) protocol.Failure {
	t.Helper()
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	m, done := w.machine()
	defer done()
	failed, err := m.Records.Failed()
	if err != nil || len(failed) != 1 {
		t.Fatalf("%+v, %v", failed, err)
	}
	return failed[0]
}

func TestEvidenceOfATrial(t *testing.T) {
	w := newWorld(t)
	w.bad["new"] = "app.service failed"
	w.evidence = []protocol.Excerpt{{From: "the journal of app.service", Text: "cannot open the pump with correct horse"}}
	w.secrets = []string{"correct horse"}
	f := evidenceAfter(t, w)
	if len(f.Evidence) != 1 || f.Evidence[0] != (protocol.Excerpt{From: "the journal of app.service", Text: "cannot open the pump with [secret]"}) {
		t.Errorf("%+v", f.Evidence)
	}
}

func TestEvidenceOfAnInstallation(t *testing.T) {
	w := newWorld(t)
	w.install["new"] = errors.New("apt-get: exit status 100")
	f := evidenceAfter(t, w)
	if len(f.Evidence) != 1 || f.Evidence[0].From != "the installation's log" || !strings.Contains(f.Evidence[0].Text, "dpkg: error processing package app") {
		t.Errorf("%+v", f.Evidence)
	}
}

// TestEvidenceOfATrialThatNeverCameUp: the loader went back by itself.
func TestEvidenceOfATrialThatNeverCameUp(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil || !w.rebooting {
		t.Fatalf("%v", err)
	}
	for range 3 { // each boot of it panics
		w.powerCut()
		w.powerOn()
	}
	if err := w.settle(); err == nil {
		t.Fatal("the release was taken")
	}
	m, done := w.machine()
	defer done()
	failed, err := m.Records.Failed()
	if err != nil || len(failed) != 1 || len(failed[0].Evidence) != 2 {
		t.Fatalf("%+v, %v", failed, err)
	}
	if got := failed[0].Evidence; got[0].Text != "0 of 2 tries were left" || got[1].Text != "out of memory" {
		t.Errorf("%+v", got)
	}
}

// TestEvidenceIsOfItsOwnTransaction: that of an earlier one is not taken for it.
func TestEvidenceIsOfItsOwnTransaction(t *testing.T) {
	w := newWorld(t)
	w.bad["new"] = "app.service failed"
	w.evidence = []protocol.Excerpt{{From: "the journal of app.service", Text: "no pump"}}
	evidenceAfter(t, w)
	w.evidence, w.bad["newer"], w.offered = nil, "other.service failed", "newer"
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	m, done := w.machine()
	defer done()
	failed, err := m.Records.Failed()
	if err != nil || len(failed) != 2 || len(failed[0].Evidence) != 1 || len(failed[1].Evidence) != 0 {
		t.Fatalf("%+v, %v", failed, err)
	}
	// A report has that of the newest alone.
	if told := Reported(failed); told[0].Evidence != nil || failed[0].Evidence == nil {
		t.Errorf("%+v", told)
	}
}

// TestEvidenceThatCannotBeKept costs nothing else.
func TestEvidenceThatCannotBeKept(t *testing.T) {
	w := newWorld(t)
	w.bad["new"] = "app.service failed"
	w.evidence = []protocol.Excerpt{{From: "the journal of app.service", Text: "no pump"}}
	put(t, w.dir+"/evidence.json/in-the-way", "")
	if f := evidenceAfter(t, w); f.Reason != "app.service failed" || f.Evidence != nil {
		t.Errorf("%+v", f)
	}
}
