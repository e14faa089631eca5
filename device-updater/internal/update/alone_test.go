package update

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/protocol"
)

// TestADeviceLeftAlone for 300 releases: good ones, bad ones, ones that do not
// install, with hooks, edits of /etc, and state that migrates. What the updater
// keeps does not grow with them.
func TestADeviceLeftAlone(t *testing.T) {
	const releases = 300
	w := newWorld(t)
	w.evidence = []protocol.Excerpt{{From: "the journal of app.service", Text: strings.Repeat("it went wrong\n", 500)}}
	w.hooks = map[hook.Point]error{}
	w.declared = map[string]string{"old": "unit app 1 /var/lib/app\n"}
	random := rand.New(rand.NewPCG(1, 2))
	w.wrap = func(m *Machine) {
		m.Hooks = w
		m.Merge = func(_, _, target string) (merge.Result, error) {
			var taken []string
			for i := range 1000 {
				taken = append(taken, fmt.Sprintf("/app.d/%d", i))
			}
			return merge.Result{Taken: taken, Manifest: []byte(strings.Repeat("f 0644 0:0 - - \"/app.conf\"\n", 1000))}, w.conflict
		}
	}
	w.powerOn()
	size := func() (files int, bytes int64) {
		t.Helper()
		err := filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
			// The journal has its own bound; state and declarations are no records.
			if err != nil || !e.Type().IsRegular() || e.Name() == "journal" || strings.HasPrefix(path, filepath.Join(w.dir, "top/state")) || strings.HasPrefix(path, filepath.Join(w.dir, "declared")) {
				return err
			}
			info, err := e.Info()
			files, bytes = files+1, bytes+info.Size()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files, bytes
	}
	var filesThen int
	var bytesThen int64
	last := "old"
	for i := range releases {
		name := fmt.Sprintf("r%03d", i)
		w.offered = name
		w.declared[name] = fmt.Sprintf("unit app %d /var/lib/app\n", 1+i/10)
		good := false
		switch random.IntN(6) {
		case 0:
			w.bad[name] = "app.service failed: " + strings.Repeat("no ", 2000)
		case 1:
			w.install[name] = errors.New("app (--configure): " + strings.Repeat("no ", 2000))
		case 2:
			w.install[name] = fmt.Errorf("cannot install: %w", sandbox.ErrKilled)
		case 3:
			w.hooks[hook.BeforeDownload] = errors.New("hook 10-app: no")
		default:
			good = true
		}
		_ = w.settle()
		w.hooks = map[hook.Point]error{}
		if good {
			last = name
		}
		if state, committed := w.release(); state != last || !committed {
			t.Fatalf("after %s it runs %s, want %s", name, state, last)
		}
		if i == releases*2/3 {
			filesThen, bytesThen = size()
		}
	}
	files, bytes := size()
	t.Logf("%d files of %d bytes after %d releases, %d of %d after %d", filesThen, bytesThen, releases*2/3, files, bytes, releases)
	if files > filesThen+15 {
		t.Errorf("the files grow: %d, then %d", filesThen, files)
		_ = filepath.WalkDir(w.dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && !strings.Contains(path, "/declared/") {
				t.Log(strings.TrimPrefix(path, w.dir))
			}
			return nil
		})
	}
	if bytes > 4<<20 || bytes > bytesThen*5/4 {
		t.Errorf("the bytes grow: %d, then %d", bytesThen, bytes)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	began := time.Now()
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it takes %s to start", took)
	}
	if info, err := os.Stat(filepath.Join(w.dir, "journal")); err != nil || info.Size() > 2<<20 {
		t.Errorf("the journal: %v, %v", info.Size(), err)
	}
}
