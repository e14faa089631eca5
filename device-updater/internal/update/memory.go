package update

import (
	"errors"
	"fmt"

	"aptfleet/device-updater/internal/sandbox"
)

// starvedOften is how often in a row a release may be interrupted for want of
// memory before that is held against it: its own scripts may be what needs so
// much, and each attempt takes it from the application.
const starvedOften = 3

// starved is how often that happened to a release.
type starved struct {
	state string
	times int
}

// judge reports whether a failure for want of memory is to be held against the
// release, and counts it. reason says so then.
func (s *starved) judge(state string, reason error) (forGood bool, _ error) {
	if !errors.Is(reason, sandbox.ErrKilled) {
		return false, reason
	}
	if s.state != state {
		*s = starved{state: state}
	}
	s.times++
	if s.times < starvedOften {
		return false, reason
	}
	*s = starved{}
	return true, fmt.Errorf("%w; it was the %drd time", reason, starvedOften)
}
