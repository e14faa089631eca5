package update

import (
	"errors"
	"fmt"
	"time"

	"aptfleet/device-updater/internal/sandbox"
)

// starvedOften and starvedLong are how often in a row, and over which time, a
// release may be interrupted for want of memory before that is held against it:
// its own scripts may be what needs so much, and each attempt takes it from the
// application. An application that takes all there is does so for minutes, until
// it is ended.
const (
	starvedOften = 3
	starvedLong  = time.Hour
)

// starved is how often that happened to a release, and since when.
type starved struct {
	state string
	times int
	since time.Time
}

// judge reports whether a failure for want of memory is to be held against the
// release, and counts it. reason says so then.
func (s *starved) judge(state string, reason error, now time.Time) (forGood bool, _ error) {
	if !errors.Is(reason, sandbox.ErrKilled) {
		return false, reason
	}
	if s.state != state || now.Before(s.since) { // or the clock was set back
		*s = starved{state: state, since: now}
	}
	s.times++
	if s.times < starvedOften || now.Sub(s.since) < starvedLong {
		return false, reason
	}
	times, since := s.times, s.since
	*s = starved{}
	return true, fmt.Errorf("%w; so it was %d times since %s", reason, times, stamp(since))
}
