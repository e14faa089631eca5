package fleet_test

import (
	"encoding/json"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
)

// TestEvidenceOfFailuresIsBounded: what a device says is kept in memory.
func TestEvidenceOfFailuresIsBounded(t *testing.T) {
	excerpt := protocol.Excerpt{From: "the journal of app.service", Text: strings.Repeat("x", protocol.MaxEvidence/4)}
	report := protocol.Report{Failed: []protocol.Failure{
		{State: "a", Evidence: []protocol.Excerpt{excerpt, excerpt, excerpt, excerpt}},
		{State: "b", Evidence: []protocol.Excerpt{excerpt, {From: strings.Repeat("y", protocol.MaxEvidence)}, excerpt}},
		{State: "c", Evidence: []protocol.Excerpt{{Text: strings.Repeat("z", 20*protocol.MaxEvidence)}}},
	}}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fleet.ParseReport(text)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{4, 1, 0} {
		if n := len(got.Failed[i].Evidence); n != want {
			t.Errorf("failure %s: %d excerpts are kept, want %d", got.Failed[i].State, n, want)
		}
	}
}
