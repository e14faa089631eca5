package apt

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// However many publications happen while apt reads, what it gets fits
// together.
func TestUpdatesDuringPublicationsAlwaysSucceed(t *testing.T) {
	const uploaders, each, atLeast = 6, 5, 20
	s := newServer(t)
	s.upload("demo-app", "1.0")
	var machines []*machine
	for _, suite := range suites {
		machines = append(machines, newMachine(t, suite, s, "demo/dev"))
	}
	var uploading, updating sync.WaitGroup
	done := make(chan struct{})
	var updates atomic.Int64
	for _, m := range machines {
		updating.Go(func() {
			for {
				if out, code := m.run(t.Context(), "apt-get", "update"); code != 0 {
					t.Errorf("%s: update %d exits %d:\n%s", m.suite, updates.Load(), code, out)
					return
				}
				updates.Add(1)
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range uploaders {
		uploading.Go(func() {
			for n := range each {
				name, version := fmt.Sprintf("demo-%d", i), fmt.Sprintf("1.%d", n)
				if _, err := s.tryUpload(t.Context(), name, version); err != nil {
					t.Errorf("%s %s: %v", name, version, err)
				}
			}
		})
	}
	uploading.Wait()
	// Busy machines get few updates done meanwhile; give them more to collide with.
	for n := 0; updates.Load() < atLeast && !t.Failed(); n++ {
		s.upload("demo-more", fmt.Sprintf("1.%d", n))
	}
	close(done)
	updating.Wait()
	t.Logf("%d updates during %d uploads and more", updates.Load(), uploaders*each)
	for _, m := range machines {
		m.update()
		for i := range uploaders {
			m.wantCandidate(fmt.Sprintf("demo-%d", i), fmt.Sprintf("1.%d", each-1))
		}
	}
}

// Publications that follow each other faster than the clock's seconds carry the
// same Date. apt sees each of them all the same.
func TestPublicationsWithinASecond(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	onEach(t, func(t *testing.T, suite string) {
		m := newMachine(t, suite, s, "demo/dev")
		m.update()
		for n := range 4 {
			name := "demo-" + suite
			version := fmt.Sprintf("1.%d", n)
			for range 3 { // time of modification and clock part by more and more
				s.upload("filler-"+suite, fmt.Sprintf("1.%d", time.Now().UnixNano()))
			}
			s.upload(name, version)
			m.update()
			m.wantCandidate(name, version)
		}
	})
}
