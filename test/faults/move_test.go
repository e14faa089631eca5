package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

// published are all signed files that a stage was seen to offer, by the text
// of InRelease.
type published struct {
	mu   sync.Mutex
	seen map[string]bool
}

// watch reads a file again and again until done is closed.
func (p *published) watch(path string, done <-chan struct{}) {
	for {
		if text, err := os.ReadFile(path); err == nil {
			p.mu.Lock()
			p.seen[string(text)] = true
			p.mu.Unlock()
		}
		select {
		case <-done:
			return
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// TestServerNPlusOne backs a server up again and again while packages arrive
// and a stage moves to and fro. Each backup becomes a server of its own, with
// other listeners: it offers exactly what the first one offered at one moment,
// nothing that was answered before the backup began is missing, and it goes on
// from there.
func TestServerNPlusOne(t *testing.T) {
	t.Parallel()
	const uploaders, backups = 3, 8
	dir := filepath.Join(t.TempDir(), "backup")
	s := start(t, newData(t), "")
	s.pipeline("demo")
	// Dates run ahead of the clock for the first few publications; after that
	// each stage is published once a second at most, so that none is missed.
	for n := range 8 {
		if got, err := s.upload("demo", "warm.deb", makeDeb(t, "warm", fmt.Sprintf("1.%d", n), "amd64", 100)); err != nil || got.status != http.StatusCreated {
			t.Fatalf("upload: %v %v", got, err)
		}
	}
	s.promote("demo")
	done := make(chan struct{})
	var load, watching sync.WaitGroup
	seen := published{seen: make(map[string]bool)}
	for _, stage := range []string{"dev", "canary"} {
		watching.Go(func() {
			seen.watch(filepath.Join(s.Data, "public/demo", stage, "dists/trixie/InRelease"), done)
		})
	}
	var stop atomic.Bool
	var mu sync.Mutex
	accepted := make(map[string]string)
	for u := range uploaders {
		load.Go(func() {
			for n := 0; !stop.Load(); n++ {
				name := fmt.Sprintf("pkg%d-%d", u, n)
				body := makeDeb(t, name, "1.0", "amd64", 5000)
				if got, err := s.upload("demo", name+".deb", body); err != nil || got.status != http.StatusCreated {
					t.Errorf("%s: %v %v", name, got, err)
					return
				}
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
		}
	})
	var before [backups]map[string]string
	for b := range backups {
		mu.Lock()
		before[b] = make(map[string]string)
		for name, sum := range accepted {
			before[b][name] = sum
		}
		mu.Unlock()
		s.mustBackUp(dir)
	}
	stop.Store(true)
	load.Wait()
	close(done)
	watching.Wait()
	if t.Failed() {
		t.FailNow()
	}
	ids := listBackups(t, dir)
	if len(ids) != backups {
		t.Fatalf("there are the backups %v", ids)
	}
	mustTool(t, "backup", "verify", dir)
	for b := range backups {
		s.mustBecome(dir, ids[backups-1-b], &seen, before[b])
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
func (s *server) mustBecome(dir, id string, seen *published, before map[string]string) {
	s.t.Helper()
	t := s.t
	moved := newData(t)
	mustTool(t, "restore", dir, "--data", moved, "--backup", id)
	next := start(t, moved, "")
	defer next.stop()
	next.mustBeClean()
	for _, stage := range []string{"dev", "canary"} {
		text := next.read(filepath.Join(moved, "public/demo", stage, "dists/trixie/InRelease"))
		if !seen.seen[string(text)] {
			t.Errorf("backup %s: %s offers what the first server never did:\n%s", id, stage, text)
		}
	}
	offered := next.offered("demo", "dev")
	for name, sum := range before {
		if offered[name] != sum {
			t.Errorf("backup %s: %s was answered before it began and is not there", id, name)
		}
	}
	// What never changes is still there on the first server, with the same bytes.
	sameFiles(t, moved, s.Data, func(name string) bool {
		return !strings.HasPrefix(name, "demo/dev/") && !strings.HasPrefix(name, "demo/canary/")
	})
	if got, err := next.upload("demo", "later.deb", makeDeb(t, "later", "1.0", "amd64", 100)); err != nil || got.status != http.StatusCreated {
		t.Errorf("backup %s: an upload to the restored server: %v %v", id, got, err)
	}
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
