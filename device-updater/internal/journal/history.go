package journal

import "time"

// Result is how a transaction ended.
type Result string

// The results.
const (
	Going     Result = "open"      // it goes on, or waits
	Committed Result = "committed" // the device runs what it was for
	Ended     Result = "ended"     // nothing was changed, for Reason
	Remains   Result = "failed"    // the device stayed where it was, and the release is not tried again
)

// Transaction is what the journal knows of one transaction.
type Transaction struct {
	ID         int64     `json:"tx"`
	State      string    `json:"state,omitempty"`
	Snapshot   string    `json:"snapshot,omitempty"`
	Local      string    `json:"local,omitempty"` // the overlay on top of the release: its id
	Deployment int       `json:"deployment"`
	From       int       `json:"from"`
	Manual     bool      `json:"manual,omitempty"` // a person asked to go back
	Result     Result    `json:"result"`
	Reason     string    `json:"reason,omitempty"`
	Began      time.Time `json:"began"`
	Last       time.Time `json:"last"`          // its newest record: the end, if it has ended
	Seconds    float64   `json:"seconds"`       // from the one to the other
	Cut        bool      `json:"cut,omitempty"` // the updater was cut off while it installed
	Reboots    int       `json:"reboots,omitempty"`
	Phases     []Spell   `json:"phases"`
}

// Spell is one stay of a transaction in a phase.
type Spell struct {
	Phase   Phase     `json:"phase"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"` // 0 for the last one
}

// Transactions returns what records say of each transaction, oldest first. The
// first one may lack its beginning, which was dropped. Times are those of the
// clock as it was: one that was set back in between makes a duration of 0.
func Transactions(records []Record) []Transaction {
	var all []Transaction
	var before Record
	for _, r := range records {
		if len(all) == 0 || before.Transaction != r.Transaction {
			all = append(all, Transaction{ID: r.Transaction, Began: r.At})
			before = Record{}
		}
		t := &all[len(all)-1]
		t.State, t.Snapshot, t.Local, t.Deployment, t.From, t.Manual = r.State, r.Snapshot, r.Local, r.Deployment, r.From, r.Manual
		t.Reason, t.Last, t.Cut, t.Reboots, t.Seconds = r.Reason, r.At, r.Cut, r.Reboots, seconds(t.Began, r.At)
		switch {
		case r.Open():
			t.Result = Going
		case r.Phase == Failed:
			t.Result = Remains
		case before.Phase == Commit:
			t.Result = Committed
		default:
			t.Result = Ended
		}
		if n := len(t.Phases); n > 0 {
			t.Phases[n-1].Seconds = seconds(t.Phases[n-1].At, r.At)
		}
		if before.Phase != r.Phase {
			t.Phases = append(t.Phases, Spell{Phase: r.Phase, At: r.At})
		}
		before = r
	}
	return all
}

func seconds(from, to time.Time) float64 { return max(0, to.Sub(from).Seconds()) }
