package faults

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/client"
)

// TestCrowd lets many uploaders at the repository at once, one bad package
// among them. None is lost, the bad one fails alone, and they share
// publications.
func TestCrowd(t *testing.T) {
	t.Parallel()
	const uploaders, each = 20, 3
	s := start(t, newData(t), "")
	s.pipeline("demo")
	sent := make(map[string]string)
	bodies := make(map[string][]byte)
	for u := range uploaders {
		for n := range each {
			name := fmt.Sprintf("pkg%d-%d", u, n)
			bodies[name] = makeDeb(t, name, "1.0", "amd64", 2000)
			sent[name+" 1.0"] = hexSum(bodies[name])
		}
	}
	var wait sync.WaitGroup
	waits := make([]time.Duration, uploaders) // the longest of each
	for u := range uploaders {
		wait.Go(func() {
			for n := range each {
				name := fmt.Sprintf("pkg%d-%d", u, n)
				begin := time.Now()
				if got, err := s.upload("demo", name+".deb", bodies[name]); err != nil || got.status != http.StatusCreated {
					t.Errorf("%s: %v %v", name, got, err)
				}
				waits[u] = max(waits[u], time.Since(begin))
				if got, err := s.upload("demo", "bad.deb", []byte("bad")); err != nil || got.status != http.StatusBadRequest {
					t.Errorf("a bad package: %v %v", got, err)
				}
			}
		})
	}
	wait.Wait()
	there := s.offered("demo", "dev")
	for name, sum := range sent {
		if there[name] != sum {
			t.Errorf("%s was answered with 201 and is not published", name)
		}
	}
	listed, err := s.API.Packages(t.Context(), "demo", client.PackageQuery{Ref: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	if want := uploaders*each + 1; len(listed) != want { // and the keyring package
		t.Errorf("%d packages are listed, want %d", len(listed), want)
	}
	moves, err := s.API.History(t.Context(), "demo", "dev")
	if err != nil {
		t.Fatal(err)
	}
	if len(moves) >= uploaders*each {
		t.Errorf("%d uploads made %d states: they shared none", uploaders*each, len(moves))
	}
	t.Logf("%d uploads by %d uploaders made %d states; nobody waited longer than %v", uploaders*each, uploaders, len(moves)-3, slices.Max(waits))
	s.mustBeClean()
	s.stop()
}

// Two servers on one data directory would each believe to be the only writer.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	data := newData(t)
	first := start(t, data, "")
	second := launch(t, data, "")
	<-second.Exited()
	if code := second.State().ExitCode(); code != 11 {
		t.Errorf("the second server ended with %d, want 11:\n%s", code, second.Log())
	}
	first.stop()
}
