package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// gcPhases are the moments of a gc, in order.
var gcPhases = []string{
	"gc:marked", "gc:states-dropped", "gc:files-dropped", "gc:base-removed", "gc:index-removed", "gc:blob-removed", "gc:file-removed", "gc:done",
}

// impatient makes everything go that was replaced more than a second ago, and
// lets no gc begin by itself.
var impatient = []string{"keep_superseded: 1s", "gc_every: -1s"}

// retain makes a pipeline keep so many states.
func (s *server) retain(pipeline string, states int) {
	s.t.Helper()
	days := 0
	if _, err := s.API.SetPipeline(s.t.Context(), pipeline, protocol.SetPipeline{KeepStates: &states, KeepDays: &days}); err != nil {
		s.t.Fatal(err)
	}
}

// gc runs a gc to its end.
func (s *server) gc() protocol.GC {
	s.t.Helper()
	change, err := s.startGC()
	if err != nil || change.Status != "done" {
		s.t.Fatalf("gc: %v, %s %s", err, change.Status, change.Error)
	}
	var result protocol.GC
	if err := json.Unmarshal(change.Result, &result); err != nil {
		s.t.Fatal(err)
	}
	return result
}

func (s *server) startGC() (protocol.Change, error) {
	change, err := s.API.StartGC(s.t.Context(), protocol.StartGC{})
	if err != nil {
		return change, err
	}
	return s.API.Wait(s.t.Context(), change.ID, func(protocol.Change) {})
}

// versions uploads versions of a package one after the other.
func (s *server) versions(pipeline, name string, from, to int) {
	s.t.Helper()
	for n := from; n < to; n++ {
		s.mustUpload(pipeline, name, fmt.Sprintf("%d.0", n), 3000+n)
	}
}

// tree is every file below a published directory, e.g. that of a pipeline, with
// its content.
func (s *server) tree(dir string) map[string]string {
	s.t.Helper()
	files := make(map[string]string)
	root := filepath.Join(s.Data, "public", dir)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = string(content)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return files
}

// TestKilledGC kills the server at each moment of a gc, while clients upload.
// What is kept is served byte for byte as before, no upload that was answered
// is lost, and the next gc finishes the work.
func TestKilledGC(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	passages := []int{1, 2}
	if order.Long() {
		passages = []int{1, 2, 3, 5}
	}
	data := newData(t)
	s := start(t, data, "", impatient...)
	kills := make(map[string]int)
	total := 0
	for _, phase := range gcPhases {
		for _, passage := range passages {
			if passage > 1 && slices.Contains([]string{"gc:marked", "gc:states-dropped", "gc:files-dropped", "gc:done"}, phase) {
				continue // a gc of this size passes it once
			}
			pipeline := fmt.Sprintf("p%d", total)
			total++
			s.pipeline(pipeline)
			s.versions(pipeline, "app", 0, 2)
			kept, err := s.API.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: "kept"})
			if err != nil {
				t.Fatal(err)
			}
			first := s.promote(pipeline)
			s.versions(pipeline, "app", 2, 3+slices.Max(passages)) // all of these but the last go
			s.retain(pipeline, 1)
			time.Sleep(1200 * time.Millisecond) // nothing is recent
			before := s.tree(pipeline)
			s.stop()

			s = start(t, data, fmt.Sprintf("%s:%d", phase, passage), impatient...)
			other := fmt.Sprintf("q%d", total) // receives uploads meanwhile
			s.pipeline(other)
			accepted := make(map[string]string)
			var mu sync.Mutex
			var wait sync.WaitGroup
			for c := range 2 {
				wait.Go(func() {
					for n := 0; ; n++ {
						name := fmt.Sprintf("pkg%d%d", c, n)
						body := makeDeb(t, name, "1.0", "amd64", 1000)
						got, err := s.upload(other, name+".deb", body)
						if err != nil {
							return // the server is gone
						}
						if got.status != http.StatusCreated {
							t.Errorf("%s: upload of %s: %v", phase, name, got)
							return
						}
						mu.Lock()
						accepted[name+" 1.0"] = hexSum(body)
						mu.Unlock()
					}
				})
			}
			var refused *client.Error
			if _, err := s.API.StartGC(ctx, protocol.StartGC{}); errors.As(err, &refused) {
				t.Fatal(err)
			}
			if !s.died() {
				t.Fatalf("the server did not die at %s:%d:\n%s", phase, passage, s.Log())
			}
			wait.Wait()
			kills[phase]++

			s = start(t, data, "", impatient...)
			there := s.offered(other, "dev")
			for name, sum := range accepted {
				if there[name] != sum {
					t.Errorf("killed at %s:%d: %s was answered with 201 and is not published", phase, passage, name)
				}
			}
			s.mustKeep(pipeline, before, first, kept.ID, fmt.Sprintf("killed at %s:%d", phase, passage))
			s.gc()
			s.mustBeClean()
			s.mustKeep(pipeline, before, first, kept.ID, fmt.Sprintf("killed at %s:%d, after another gc", phase, passage))
			if got := len(s.states(pipeline)); got != 2 {
				t.Errorf("killed at %s:%d: after another gc %d states are published, want that of canary and the newest", phase, passage, got)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	s.stop()
	report(t, "a gc", gcPhases, kills)
}

// states lists the states of a pipeline that are published.
func (s *server) states(pipeline string) []string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Data, "public", pipeline, "states"))
	if err != nil {
		s.t.Fatal(err)
	}
	var states []string
	for _, e := range entries {
		states = append(states, e.Name())
	}
	return states
}

// mustKeep holds a pipeline after a gc against its tree before.
func (s *server) mustKeep(pipeline string, before map[string]string, state, snapshot, when string) {
	s.t.Helper()
	after := s.tree(pipeline)
	n := 0
	for name, content := range before {
		fixed := strings.HasPrefix(name, "states/"+state+"/") || strings.HasPrefix(name, "snapshots/"+snapshot+"/")
		stage := strings.HasPrefix(name, "canary/") || strings.HasPrefix(name, "dev/") && !strings.Contains(name, "by-hash") && !strings.Contains(name, ".superseded")
		if !fixed && !stage {
			continue
		}
		n++
		if after[name] != content {
			s.t.Errorf("%s: %s is not what it was", when, name)
		}
	}
	if n < 20 {
		s.t.Errorf("%s: only %d files were compared", when, n)
	}
	for _, stage := range []string{"canary", "dev"} {
		s.offered(pipeline, stage)
	}
	if packages, err := s.API.Packages(s.t.Context(), pipeline, client.PackageQuery{Ref: snapshot}); err != nil || len(packages) == 0 {
		s.t.Errorf("%s: snapshot %s lists %d packages: %v", when, snapshot, len(packages), err)
	}
}

// TestGCAmongUploaders runs one gc after the other while eight clients upload
// new versions without a pause, until gcs have removed some. Nothing that was
// answered is lost, and the disk does not fill up.
func TestGCAmongUploaders(t *testing.T) {
	t.Parallel()
	s := start(t, newData(t), "", impatient...)
	s.pipeline("demo")
	s.retain("demo", 2)
	const clients, atLeast, atMost, size = 8, 12, 2000, 20_000
	var enough atomic.Bool
	var uploads atomic.Int64
	var longest time.Duration
	var mu sync.Mutex
	var wait sync.WaitGroup
	last := make(map[string]string)
	for c := range clients {
		wait.Go(func() {
			name := fmt.Sprintf("pkg%d", c)
			for n := 0; n < atLeast || n < atMost && !enough.Load(); n++ {
				version := fmt.Sprintf("%d.0", n)
				body := makeDeb(t, name, version, "amd64", size)
				began := time.Now()
				got, err := s.upload("demo", name+".deb", body)
				took := time.Since(began)
				if err != nil || got.status != http.StatusCreated {
					t.Errorf("upload of %s %s: %v %v", name, version, got, err)
					return
				}
				uploads.Add(1)
				mu.Lock()
				longest = max(longest, took)
				last[name] = version + " " + hexSum(body)
				mu.Unlock()
			}
		})
	}
	finished := make(chan struct{})
	go func() { wait.Wait(); close(finished) }()
	gone, runs := 0, 0
	for going := true; going; runs++ {
		gone += s.gc().Gone.Files
		enough.Store(gone > 0 && runs > 1)
		select {
		case <-finished:
			going = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	there := s.offered("demo", "dev")
	for name, want := range last {
		version, sum, _ := strings.Cut(want, " ")
		if there[name+" "+version] != sum {
			t.Errorf("%s %s was answered with 201 and is not published", name, version)
		}
	}
	time.Sleep(1200 * time.Millisecond)
	s.gc()
	s.mustBeClean()
	if gone == 0 {
		t.Error("no gc removed anything")
	}
	left := 0
	for path := range s.tree("pool") {
		if strings.HasSuffix(path, ".deb") {
			left++
		}
	}
	if left > 2*clients+1 {
		t.Errorf("%d packages are left in the pool", left)
	}
	t.Logf("%d gcs removed %d packages while %d were uploaded; the longest upload took %s", runs, gone, uploads.Load(), longest)
	s.stop()
}

// A disk that is full does not keep a gc from making room, or the gc says so;
// either way nothing is lost.
func TestGCOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := start(t, smallDisk(t, 64), "", append([]string{"reserve: 1"}, impatient...)...)
	s.pipeline("demo")
	s.retain("demo", 1)
	for n := range 4 {
		s.mustUpload("demo", "app", fmt.Sprint(n), 4<<20)
	}
	time.Sleep(1200 * time.Millisecond)
	before := s.tree("demo")
	free := freeBytes(t, s.Data)
	release := fillBut(t, filepath.Dir(s.Data), 0)
	change, err := s.startGC()
	if err != nil && !strings.Contains(err.Error(), "no space left") || err == nil && change.Status == "failed" && !strings.Contains(change.Error, "no space left") {
		t.Errorf("a gc on a full disk: %v, %s %s", err, change.Status, change.Error)
	}
	t.Logf("a gc on a full disk: %v %s %s", err, change.Status, change.Error)
	release()
	for name, content := range s.tree("demo") {
		if strings.HasPrefix(name, "dev/") && !strings.HasSuffix(name, ".superseded") && before[name] != content {
			t.Errorf("%s is not what it was", name)
		}
	}
	s.gc()
	s.mustBeClean()
	if now := freeBytes(t, s.Data); now < free+12<<20 {
		t.Errorf("%d bytes are free, before the gc it were %d", now, free)
	}
	s.stop()
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	return int64(stat.Bavail) * stat.Bsize
}
