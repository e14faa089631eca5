package fleet

import "aptfleet/internal/protocol"

// AddPending is what Enrol does with a stranger whose signature is good.
func AddPending(s *Service, id string, e protocol.Enrolment, address string) {
	s.wait(id, e, address, "a stranger")
}
