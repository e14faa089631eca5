package daemon_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/update"
)

// TestTheServerIsAskedFirst by people, not by the clock, and not before going
// back: that must work without a server.
func TestTheServerIsAskedFirst(t *testing.T) {
	m := &machine{}
	d := daemon.New(m, time.Hour, func() {}, slog.New(slog.DiscardHandler))
	var askErr error
	d.Ask = func(ctx context.Context) error {
		if err := m.do(ctx, "ask"); err != nil {
			return err
		}
		return askErr
	}
	path := filepath.Join(t.TempDir(), "s")
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { d.Run(ctx) })
	all.Go(func() {
		if err := d.Serve(ctx, path); err != nil {
			t.Error(err)
		}
	})
	defer func() { stop(); all.Wait() }()
	client := daemon.NewClient(path)
	seen := func(want ...string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			m.mu.Lock()
			did := slices.Clone(m.did)
			m.mu.Unlock()
			if slices.Equal(did, want) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("it did %q, want %q", did, want)
			}
		}
		m.mu.Lock()
		m.did = nil
		m.mu.Unlock()
	}
	ask := func(act daemon.Act) error {
		_, err := client.Ask(t.Context(), daemon.Request{Act: act}, func(update.Status) {})
		return err
	}
	seen("recover", "update")
	listens(t, path)
	for act, want := range map[daemon.Act][]string{daemon.Check: {"ask", "check"}, daemon.Update: {"ask", "update"}, daemon.Rollback: {"rollback"}} {
		if err := ask(act); err != nil {
			t.Error(err)
		}
		seen(want...)
	}
	d.Wake() // the server said something new
	seen("update")
	askErr = errors.New("cannot check in: no route to host")
	if err := ask(daemon.Update); err == nil || err.Error() != askErr.Error() {
		t.Errorf("%v", err)
	}
	seen("ask")
}

// TestReload ends Run between two acts.
func TestReload(t *testing.T) {
	m := &machine{}
	began, release := make(chan struct{}), make(chan struct{})
	m.act = func(_ context.Context, what string) error {
		if what == "update" {
			close(began)
			<-release
		}
		return nil
	}
	d := daemon.New(m, time.Hour, func() {}, slog.New(slog.DiscardHandler))
	ended := make(chan struct{})
	go func() { d.Run(t.Context()); close(ended) }()
	<-began
	d.Reload()
	select {
	case <-ended:
		t.Fatal("it ended in the middle of an act")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	<-ended
}
