package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// uploadPhases are the moments of an upload, in order.
var uploadPhases = []string{
	"upload:received", "upload:in-pool", "upload:chunks-written", "upload:synced", "upload:committed",
	"publish:indices-written", "publish:inrelease-renamed", "upload:published", "upload:answered",
}

// TestKilledUploads kills the server at each moment of an upload, while
// several clients upload, and looks at what is there after a restart.
func TestKilledUploads(t *testing.T) {
	t.Parallel()
	const clients, each = 3, 2
	// Every client waits for its first answer, so there are at least two
	// batches: a third passage may never come.
	passages := []int{1, 2}
	if order.Long() {
		passages = slices.Repeat(passages, 3)
	}
	data := newData(t)
	s := start(t, data, "")
	kills := make(map[string]int)
	answered, total := 0, 0
	for _, phase := range uploadPhases {
		for _, passage := range passages {
			pipeline := fmt.Sprintf("p%d", total)
			total++
			s.pipeline(pipeline)
			fault := s.fault(phase, passage)
			s.stop()

			s = start(t, data, fault)
			sent := make(map[string][]byte)
			var mu sync.Mutex
			accepted := make(map[string]bool)
			var wait sync.WaitGroup
			for c := range clients {
				for n := range each {
					name := fmt.Sprintf("pkg%d%d", c, n)
					sent[name+" 1.0"] = makeDeb(t, name, "1.0", "amd64", 3000)
				}
				wait.Go(func() {
					for n := range each {
						name := fmt.Sprintf("pkg%d%d", c, n)
						got, err := s.upload(pipeline, name+".deb", sent[name+" 1.0"])
						if err != nil {
							return // the server is gone
						}
						if got.status != http.StatusCreated {
							t.Errorf("%s: upload of %s: %d %s", phase, name, got.status, got.body)
							return
						}
						mu.Lock()
						accepted[name+" 1.0"] = true
						mu.Unlock()
					}
				})
			}
			wait.Wait()
			if !s.died() {
				t.Fatalf("the server did not die at %s:\n%s", fault, s.Log())
			}
			kills[phase]++
			answered += len(accepted)

			s = start(t, data, "")
			there := s.offered(pipeline, "dev")
			for name := range accepted {
				if there[name] != hexSum(sent[name]) {
					t.Errorf("killed at %s:%d: %s was answered with 201 and is not published", phase, passage, name)
				}
			}
			for name, sum := range there {
				if content, ok := sent[name]; ok && hexSum(content) != sum {
					t.Errorf("killed at %s:%d: %s is published with other bytes", phase, passage, name)
				}
			}
			s.mustBeClean()
			// Whoever got no answer sends it again.
			for name, content := range sent {
				wait.Go(func() {
					if got, err := s.upload(pipeline, name, content); err != nil || got.status != http.StatusCreated && got.status != http.StatusOK {
						t.Errorf("killed at %s:%d: %s again: %v %v", phase, passage, name, got, err)
					}
				})
			}
			wait.Wait()
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	s.mustBeClean()
	s.stop()
	report(t, "an upload", uploadPhases, kills)
	t.Logf("kill -9: %d uploads were answered with 201 before one; none was lost", answered)
}

// movePhases are the moments of a promotion and of an undo.
var movePhases = []struct {
	verb   string
	phases []string
}{
	{"promote", []string{
		"promote:decided", "promote:chunks-written", "promote:synced", "promote:committed",
		"publish:indices-written", "publish:inrelease-renamed", "promote:published", "promote:answered",
	}},
	{"undo", []string{"undo:chunks-written", "undo:synced", "undo:committed", "publish:indices-written", "publish:inrelease-renamed", "undo:published"}},
}

// TestKilledMoves kills the server at each moment of a promotion and an undo.
// A stage then offers what it offered before or what it was to offer, the
// database and the published tree agree on which, and an answer is kept.
func TestKilledMoves(t *testing.T) {
	t.Parallel()
	data := newData(t)
	s := start(t, data, "")
	for _, move := range movePhases {
		kills := make(map[string]int)
		for n, phase := range move.phases {
			pipeline := fmt.Sprintf("%s%d", move.verb, n)
			s.pipeline(pipeline)
			first := s.promote(pipeline)
			s.mustUpload(pipeline, "app", "1.0", 100)
			before, after := first, s.head(pipeline)
			if move.verb == "undo" {
				before, after = s.promote(pipeline), first
			}
			fault := s.fault(phase, 1)
			s.stop()

			s = start(t, data, fault)
			var answered bool
			if move.verb == "undo" {
				_, err := s.API.Undo(t.Context(), pipeline, "canary", protocol.Promote{Reason: "test"})
				answered = err == nil
			} else {
				_, err := s.API.Promote(t.Context(), pipeline, "canary", protocol.Promote{Snapshot: "dev", Reason: "test"})
				answered = err == nil
			}
			if !s.died() {
				t.Fatalf("the server did not die at %s:\n%s", fault, s.Log())
			}
			kills[phase]++

			s = start(t, data, "")
			stage, err := s.API.Stage(t.Context(), pipeline, "canary")
			if err != nil {
				t.Fatal(err)
			}
			if stage.State != before && stage.State != after {
				t.Errorf("killed at %s: the stage offers %s, neither the old nor the new state", phase, stage.State)
			}
			if answered && stage.State != after {
				t.Errorf("killed at %s: the %s was answered and is undone", phase, move.verb)
			}
			s.mustBeClean()
			s.offered(pipeline, "canary")
			if t.Failed() {
				t.FailNow()
			}
		}
		report(t, move.verb, move.phases, kills)
	}
	s.stop()
}

// creations are acts that make something, and the moments of each.
var creations = []struct {
	what   string
	phases []string
	act    func(ctx context.Context, s *server, pipeline string) error
}{
	{"pipeline", []string{"create:chunks-written", "create:synced", "create:committed", "create:published"},
		func(ctx context.Context, s *server, pipeline string) error {
			_, err := s.API.CreatePipeline(ctx, protocol.Pipeline{Name: "new-" + pipeline, Distribution: "trixie", Architectures: []string{"amd64"}})
			return err
		}},
	{"repository", []string{"create:chunks-written", "create:committed", "create:published", "upload:in-pool", "upload:committed"},
		func(ctx context.Context, s *server, pipeline string) error {
			_, err := s.API.CreateRepository(ctx, pipeline, "apps", 1)
			return err
		}},
	{"snapshot", []string{"snapshot:chunks-written", "snapshot:synced", "snapshot:committed", "snapshot:published"},
		func(ctx context.Context, s *server, pipeline string) error {
			_, err := s.API.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: "test"})
			return err
		}},
}

// TestKilledCreations kills the server while it makes a pipeline, a
// repository or a snapshot. Afterwards it is there as a whole, with what
// belongs to it, or it can be made.
func TestKilledCreations(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	data := newData(t)
	s := start(t, data, "")
	for _, c := range creations {
		kills := make(map[string]int)
		for n, phase := range c.phases {
			pipeline := fmt.Sprintf("%s%d", c.what, n)
			if _, err := s.API.CreatePipeline(ctx, protocol.Pipeline{Name: pipeline, Distribution: "trixie", Architectures: []string{"amd64"}}); err != nil {
				t.Fatal(err)
			}
			s.stop()
			s = start(t, data, phase)
			if err := c.act(ctx, s, pipeline); err == nil {
				t.Errorf("%s of a %s: it was answered although the server died before", phase, c.what)
			}
			if !s.died() {
				t.Fatalf("the server did not die at %s:\n%s", phase, s.Log())
			}
			kills[phase]++
			s = start(t, data, "")
			s.mustBeClean()
			var refused *client.Error
			if err := c.act(ctx, s, pipeline); err != nil && !(errors.As(err, &refused) && refused.Code == "conflict") {
				t.Errorf("killed at %s: the %s can be made neither then nor now: %v", phase, c.what, err)
			}
			if c.what == "repository" {
				packages, err := s.API.Packages(ctx, pipeline, client.PackageQuery{})
				if err != nil || len(packages) != 1 {
					t.Errorf("killed at %s: the repository holds %v (%v), want the keyring package", phase, packages, err)
				}
			}
			s.mustBeClean()
			if t.Failed() {
				t.FailNow()
			}
		}
		report(t, "the creation of a "+c.what, c.phases, kills)
	}
	s.stop()
}

// fault is the value of APTFLEET_FAULT that kills the next server at the nth
// passage of a phase. A start publishes every stage once more, which passes
// the points of publications; those are not meant.
func (s *server) fault(phase string, nth int) string {
	s.t.Helper()
	if strings.HasPrefix(phase, "publish:") {
		pipelines, err := s.API.Pipelines(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		for _, p := range pipelines {
			stages, err := s.API.Stages(s.t.Context(), p.Name)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, stage := range stages {
				if stage.State != "" {
					nth++
				}
			}
		}
	}
	return fmt.Sprintf("%s:%d", phase, nth)
}

// promote moves canary to what dev offers and returns that state.
func (s *server) promote(pipeline string) string {
	s.t.Helper()
	move, err := s.API.Promote(s.t.Context(), pipeline, "canary", protocol.Promote{Snapshot: "dev", Reason: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return move.ToState
}

// report prints how often the server died at each phase; never is a failure.
// test/run.sh shows these lines although the test passes.
func report(t *testing.T, what string, phases []string, kills map[string]int) {
	t.Helper()
	for _, phase := range phases {
		t.Logf("kill -9 during %-28s at %-28s %d", what, phase, kills[phase])
		if kills[phase] == 0 {
			t.Errorf("the server was never killed at %s", phase)
		}
	}
}
