package update

import "time"

// pause is how long a release is left alone that could not be staged for
// reasons that may pass. It ends with the process.
type pause struct {
	state    string
	attempts int
	until    time.Time
	reason   string
}

// The first pause, which doubles up to the last.
const (
	firstPause = 2 * time.Second
	lastPause  = 5 * time.Minute
)

// troubled makes the next patient attempt at the release wait.
func (m *Machine) troubled(state string, reason error) {
	if m.pause.state != state {
		m.pause = pause{state: state}
	}
	wait := min(firstPause<<min(m.pause.attempts, 16), lastPause)
	m.pause.attempts++
	m.pause.until, m.pause.reason = m.Clock().Add(wait), reason.Error()
}

// rests returns why a release is left alone for now: a person did not want it,
// or it pauses. "" if it is not. A clock that was set back ends a pause.
func (m *Machine) rests(state string) string {
	if m.isCancelled(state) {
		return m.cancelled.Reason
	}
	if left := m.pause.until.Sub(m.Clock()); m.pause.state == state && left > 0 && left <= lastPause {
		return m.pause.reason
	}
	return ""
}
