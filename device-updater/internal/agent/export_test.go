package agent

import "time"

// Pause is what Run waits after a check-in that ended so.
func (a *Agent) Pause(err error) time.Duration { return a.pause(err) }
