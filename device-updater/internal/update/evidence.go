package update

import (
	"fmt"
	"slices"

	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/protocol"
)

// testimony is the evidence of one transaction, from the moment it is taken
// until the release is remembered, which another deployment may have to do.
type testimony struct {
	Transaction int64              `json:"tx"`
	Evidence    []protocol.Excerpt `json:"evidence"`
}

// keepEvidence keeps what is known of why a transaction fails. What cannot be
// kept costs an explanation, nothing else.
func (m *Machine) keepEvidence(tx journal.Record, found []protocol.Excerpt) {
	if len(found) == 0 {
		return
	}
	if m.Secrets != nil {
		found = evidence.Hide(found, m.Secrets())
	}
	if err := m.Records.putTestimony(testimony{tx.Transaction, evidence.Bound(found)}); err != nil {
		m.say(func(s *Status) { s.LastError = err.Error() })
	}
}

// evidenceOf returns what was kept for a transaction.
func (m *Machine) evidenceOf(tx journal.Record) []protocol.Excerpt {
	kept, err := m.Records.testimony()
	if err != nil || tx.Transaction == 0 || kept.Transaction != tx.Transaction {
		return nil
	}
	return kept.Evidence
}

// triesOf says how many boots of a trial the loader had left when it went back.
func (m *Machine) triesOf(tx journal.Record) []protocol.Excerpt {
	t, ok := m.Boot.Trial()
	if !ok || t.Deployment != tx.Deployment {
		return nil
	}
	return evidence.Take("the boot loader", fmt.Sprintf("%d of %d tries were left", t.Tries, m.Settings.Tries))
}

func (r Records) testimony() (t testimony, err error) {
	err = r.read("evidence.json", &t)
	return t, err
}

func (r Records) putTestimony(t testimony) error { return r.write("evidence.json", t) }

// Reported are the failures as the server is told of them: with the evidence of
// the newest alone, because a report has a limit and most of them were told
// before.
func Reported(all []protocol.Failure) []protocol.Failure {
	all = slices.Clone(all)
	for i := range all[:max(0, len(all)-1)] {
		all[i].Evidence = nil
	}
	return all
}
