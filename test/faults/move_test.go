package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"aptfleet/internal/protocol"
)

// published are all signed files that stages were seen to offer, by the text of
// InRelease.
type published struct {
	mu   sync.Mutex
	seen map[string]bool
}

// note reads what a stage offers.
func (p *published) note(s *server, pipeline, stage string) {
	text, err := os.ReadFile(filepath.Join(s.Data, "public", pipeline, stage, "dists/trixie/InRelease"))
	if err != nil {
		s.t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[string(text)] = true
}

// TestServerNPlusOne backs a server up again and again while packages arrive
// and a stage moves to and fro. Each backup becomes a server of its own, with
// other listeners: it offers exactly what the first one offered at one moment,
// nothing that was answered before the backup began is missing, and it goes on
// from there.
func TestServerNPlusOne(t *testing.T) {
	t.Parallel()
	const backups = 8
	// Everybody has a stage that nobody else moves, and looks at it after every
	// answer: no publication is missed, however slow the machine is.
	pipelines := []string{"demo", "second", "third"}
	dir := filepath.Join(t.TempDir(), "backup")
	s := start(t, newData(t), "")
	seen := published{seen: make(map[string]bool)}
	for _, pipeline := range pipelines {
		s.pipeline(pipeline)
		seen.note(s, pipeline, "dev")
	}
	s.promote("demo")
	seen.note(s, "demo", "canary")
	var load sync.WaitGroup
	var stop atomic.Bool
	var mu sync.Mutex
	accepted := make(map[string]string)
	for _, pipeline := range pipelines {
		load.Go(func() {
			for n := 0; !stop.Load(); n++ {
				name := fmt.Sprintf("%s-%d", pipeline, n)
				body := makeDeb(t, name, "1.0", "amd64", 5000)
				if got, err := s.upload(pipeline, name+".deb", body); err != nil || got.status != http.StatusCreated {
					t.Errorf("%s: %v %v", name, got, err)
					return
				}
				seen.note(s, pipeline, "dev")
				mu.Lock()
				accepted[name+" 1.0"] = hexSum(body)
				mu.Unlock()
			}
		})
	}
	load.Go(func() {
		for n := 0; !stop.Load(); n++ {
			var err error
			if n%3 == 2 {
				_, err = s.API.Undo(t.Context(), "demo", "canary", protocol.Promote{Reason: "load"})
			} else {
				_, err = s.API.Promote(t.Context(), "demo", "canary", protocol.Promote{Snapshot: "dev", Reason: "load"})
			}
			// A promotion to what is offered already leaves nothing to undo.
			if err != nil && !strings.Contains(err.Error(), "offered nothing before") {
				t.Errorf("a move: %v", err)
				return
			}
			seen.note(s, "demo", "canary")
		}
	})
	var before [backups]map[string]string
	for b := range backups {
		mu.Lock()
		before[b] = maps.Clone(accepted)
		mu.Unlock()
		s.mustBackUp(dir)
	}
	stop.Store(true)
	load.Wait()
	if t.Failed() {
		t.FailNow()
	}
	ids := listBackups(t, dir)
	if len(ids) != backups {
		t.Fatalf("there are the backups %v", ids)
	}
	mustTool(t, "backup", "verify", dir)
	for b := range backups {
		s.mustBecome(dir, ids[backups-1-b], pipelines, &seen, before[b])
	}
	t.Logf("%d backups under %d uploads and the moves of a stage; %d publications were seen", backups, len(accepted), len(seen.seen))

	// With nothing under way, the whole tree is the same.
	s.mustBackUp(dir)
	s.stop()
	moved := newData(t)
	mustTool(t, "restore", dir, "--data", moved)
	next := start(t, moved, "")
	for _, pair := range [][2]string{{s.Data, moved}, {moved, s.Data}} {
		sameFiles(t, pair[0], pair[1], func(name string) bool {
			return !strings.Contains(name, "/by-hash/") && filepath.Base(name) != ".superseded"
		})
	}
	next.stop()
}

// mustBecome restores one backup and looks at what its server offers.
func (s *server) mustBecome(dir, id string, pipelines []string, seen *published, before map[string]string) {
	s.t.Helper()
	t := s.t
	moved := newData(t)
	mustTool(t, "restore", dir, "--data", moved, "--backup", id)
	next := start(t, moved, "")
	defer next.stop()
	next.mustBeClean()
	offered := make(map[string]string)
	stages := []string{"demo/canary"}
	for _, pipeline := range pipelines {
		stages = append(stages, pipeline+"/dev")
		maps.Copy(offered, next.offered(pipeline, "dev"))
	}
	for _, stage := range stages {
		text := next.read(filepath.Join(moved, "public", stage, "dists/trixie/InRelease"))
		if !seen.seen[string(text)] {
			t.Errorf("backup %s: %s offers what the first server never did:\n%s", id, stage, text)
		}
	}
	for name, sum := range before {
		if offered[name] != sum {
			t.Errorf("backup %s: %s was answered before it began and is not there", id, name)
		}
	}
	// What never changes is still there on the first server, with the same bytes.
	sameFiles(t, moved, s.Data, func(name string) bool {
		return !slices.ContainsFunc(stages, func(stage string) bool { return strings.HasPrefix(name, stage+"/") })
	})
	next.mustUpload("demo", "later", "1.0", 100)
	next.promote("demo")
	next.mustBeClean()
}

// sameFiles fails unless every published file of one data directory that is
// chosen is in the other with the same bytes and time.
func sameFiles(t *testing.T, data, other string, chosen func(name string) bool) {
	t.Helper()
	root := filepath.Join(data, "public")
	count := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || !chosen(name) {
			return err
		}
		count++
		here, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		there, err := os.ReadFile(filepath.Join(other, "public", name))
		if err != nil || !bytes.Equal(here, there) {
			t.Errorf("%s differs: %v", name, err)
		}
		return nil
	})
	if err != nil || count < 10 {
		t.Errorf("%d files were compared, %v", count, err)
	}
}
