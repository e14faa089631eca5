package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// site is a server that devices know by its addresses: it may be killed,
// started again, and replaced by what a backup holds of it.
type site struct {
	*rig.Server
	config rig.Config
	plain  string // URL of the archive without TLS
}

// openSite starts a server at addresses that it keeps. Devices reach it by TLS
// with an authority of its own; whoever follows a stage without an enrolment
// has no use for that.
func openSite(ctx context.Context, program, data string) (*site, error) {
	listen, err := rig.FreeAddress()
	if err != nil {
		return nil, err
	}
	plain, err := rig.FreeAddress()
	if err != nil {
		return nil, err
	}
	s := &site{
		config: rig.Config{Program: program, Data: data, Settings: []string{"tls: self", "listen_http: " + plain}, Args: []string{"--listen", listen}},
		plain:  "http://" + plain,
	}
	s.Server, err = rig.Start(ctx, s.config)
	return s, err
}

// again starts the server of this site once more, after its end.
func (s *site) again(ctx context.Context) error {
	now, err := rig.Start(ctx, s.config)
	if err == nil {
		s.Server = now
	}
	return err
}

// backup makes a backup in dir.
func (s *site) backup(ctx context.Context, dir string) error {
	change, err := s.API.CreateBackup(ctx, protocol.NewBackup{Dir: dir})
	if err == nil {
		change, err = s.API.Wait(ctx, change.ID, nil)
	}
	if err == nil && change.Status != "done" {
		err = fmt.Errorf("%s: %s", change.Status, change.Error)
	}
	if err != nil {
		return fmt.Errorf("cannot back up %s: %w", s.Data, err)
	}
	return nil
}

// restore fills a data directory from the newest backup in dir.
func restore(ctx context.Context, dir, data string, args ...string) error {
	cmd := exec.CommandContext(ctx, program(world.dir, "repo-manager"), append([]string{"restore", dir, "--data", data}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot restore %s: %w: %s", dir, err, out)
	}
	return nil
}

// copies are servers that tests have for themselves, each with all that the
// world's has.
type copies struct {
	mu     sync.Mutex
	backup string // of the world's server; "": none yet
	made   int
}

// newSite returns a server of the test's own.
func newSite(t *testing.T) *site {
	t.Helper()
	c := &world.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.backup == "" {
		dir := filepath.Join(world.dir, "backup")
		if err := world.site.backup(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		c.backup = dir
	}
	c.made++
	data := filepath.Join(world.dir, fmt.Sprintf("site-%d", c.made))
	if err := restore(t.Context(), c.backup, data); err != nil {
		t.Fatal(err)
	}
	s, err := openSite(t.Context(), program(world.dir, "repo-manager"), data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := s.Log()
			t.Logf("the server says:\n%s", log[max(0, len(log)-4000):])
		}
		if err := errors.Join(s.Stop(), os.RemoveAll(data)); err != nil {
			t.Error(err)
		}
	})
	return s
}
