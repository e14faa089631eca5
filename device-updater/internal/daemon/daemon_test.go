package daemon_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/update"
)

// machine is a state machine that does what a test says.
type machine struct {
	mu        sync.Mutex
	did       []string
	status    update.Status
	rebooting bool
	half      bool // an act stopped half-way
	waits     bool // what is staged waits, until it was looked at
	readyAt   int  // so many times
	looks     int
	recover   []error // of the first calls
	act       func(ctx context.Context, what string) error
	cancelled chan struct{}
}

func (m *machine) do(ctx context.Context, what string) error {
	m.mu.Lock()
	m.did = append(m.did, what)
	act := m.act
	m.mu.Unlock()
	if act != nil {
		return act(ctx, what)
	}
	return nil
}

func (m *machine) Recover(ctx context.Context) error {
	m.mu.Lock()
	var err error
	if len(m.recover) > 0 {
		err, m.recover = m.recover[0], m.recover[1:]
	}
	m.mu.Unlock()
	return errors.Join(err, m.do(ctx, "recover"))
}
func (m *machine) Check(ctx context.Context) (update.Offer, error) {
	return update.Offer{}, m.do(ctx, "check")
}
func (m *machine) Preview(ctx context.Context) ([]apt.Change, error) {
	return []apt.Change{{Name: "app", New: "2"}}, m.do(ctx, "preview")
}
func (m *machine) Update(ctx context.Context, o update.Options) error {
	what := "update"
	if o.Reboot {
		what += " reboot"
	}
	if o.Retry {
		what += " retry"
	}
	return m.do(ctx, what)
}
func (m *machine) Rollback(ctx context.Context) error { return m.do(ctx, "rollback") }
func (m *machine) RollbackState(ctx context.Context) error {
	return m.do(ctx, "rollback with its state")
}
func (m *machine) Try(ctx context.Context, files []string, by string, o update.Options) error {
	return m.do(ctx, fmt.Sprintf("try %v of %s, reboot %v", files, by, o.Reboot))
}
func (m *machine) PreviewTry(ctx context.Context, files []string) ([]apt.Change, error) {
	return []apt.Change{{Name: "app", New: "2~local"}}, m.do(ctx, fmt.Sprintf("preview of %v", files))
}
func (m *machine) Rejoin(ctx context.Context, o update.Options) error {
	return m.do(ctx, fmt.Sprintf("rejoin, reboot %v", o.Reboot))
}
func (m *machine) PreviewRejoin(ctx context.Context) ([]apt.Change, error) {
	return []apt.Change{{Name: "app", Old: "2~local"}}, m.do(ctx, "preview of rejoin")
}
func (m *machine) ApplyFirmware(ctx context.Context, component string, dryRun bool) ([]apt.Change, error) {
	return []apt.Change{{Name: component, New: "2"}}, m.do(ctx, fmt.Sprint("firmware ", dryRun))
}
func (m *machine) Withdraw(ctx context.Context) error { return m.do(ctx, "withdraw") }
func (m *machine) Pin(n int, by, reason string) error {
	return m.do(context.Background(), fmt.Sprintf("pin %d of %s: %s", n, by, reason))
}
func (m *machine) Unpin(n int) error { return m.do(context.Background(), fmt.Sprintf("unpin %d", n)) }
func (m *machine) Waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.waits
}
func (m *machine) Ready(context.Context) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	m.waits = m.looks < m.readyAt
	return !m.waits
}
func (m *machine) Retry() error { return m.do(context.Background(), "retry") }
func (m *machine) Rebooting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rebooting
}
func (m *machine) Unfinished() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.half
}
func (m *machine) Cancel() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancelled == nil {
		return false
	}
	close(m.cancelled)
	m.cancelled = nil
	return true
}
func (m *machine) Status() update.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// start runs a daemon on a socket until the test ends.
func start(t *testing.T, m *machine, poll time.Duration) (*daemon.Daemon, daemon.Client) {
	t.Helper()
	d := daemon.New(m, poll, func() {}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, stop := context.WithCancel(t.Context())
	// The limit of a socket's path is 108 bytes: a test's directory may be longer.
	dir, err := os.MkdirTemp("", "updater")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	var all sync.WaitGroup
	all.Go(func() { d.Run(ctx) })
	all.Go(func() {
		if err := d.Serve(ctx, path); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		all.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	listens(t, path)
	return d, daemon.NewClient(path)
}

// listens waits until somebody does: the socket's file is there a moment
// earlier.
func listens(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the daemon does not listen: %v", err)
		}
	}
}

func TestActs(t *testing.T) {
	m := &machine{}
	_, client := start(t, m, 0)
	for _, r := range []daemon.Request{
		{Act: daemon.Check}, {Act: daemon.Update}, {Act: daemon.Update, Reboot: true, Retry: true}, {Act: daemon.Rollback}, {Act: daemon.Retry},
	} {
		if _, err := client.Ask(t.Context(), r, func(update.Status) {}); err != nil {
			t.Error(err)
		}
	}
	changes, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Preview}, func(update.Status) {})
	if err != nil || len(changes) != 1 || changes[0] != (apt.Change{Name: "app", New: "2"}) {
		t.Errorf("%v, %v", changes, err)
	}
	for _, c := range []struct {
		r    daemon.Request
		want string
	}{
		{daemon.Request{Act: daemon.Try, Files: []string{"/a.deb", "/b.deb"}, By: "ann", Reboot: true}, ""},
		{daemon.Request{Act: daemon.Try, Files: []string{"/a.deb"}, DryRun: true}, "2~local"},
		{daemon.Request{Act: daemon.Rejoin, Reboot: true}, ""},
		{daemon.Request{Act: daemon.Rejoin, DryRun: true}, "2~local"},
	} {
		changes, err := client.Ask(t.Context(), c.r, func(update.Status) {})
		if err != nil || (c.want == "") != (len(changes) == 0) {
			t.Errorf("%+v: %v, %v", c.r, changes, err)
		}
	}
	for _, r := range []daemon.Request{{Act: daemon.Pin, Deployment: 3, By: "ann", Reason: "acceptance"}, {Act: daemon.Unpin, Deployment: 3}} {
		if r.AsksServer() {
			t.Errorf("%s needs the server", r.Act)
		}
		if _, err := client.Ask(t.Context(), r, func(update.Status) {}); err != nil {
			t.Error(err)
		}
	}
	if got := strings.Join(m.did, ", "); got != "recover, check, update, update reboot retry, rollback, retry, update, preview, "+
		"try [/a.deb /b.deb] of ann, reboot true, preview of [/a.deb], rejoin, reboot true, preview of rejoin, pin 3 of ann: acceptance, unpin 3" {
		t.Errorf("it did %s", got)
	}
	if _, err := client.Ask(t.Context(), daemon.Request{Act: "fly"}, func(update.Status) {}); err == nil {
		t.Error("an unknown act was done")
	}
}

func TestFollow(t *testing.T) {
	m := &machine{}
	d, client := start(t, m, 0)
	seen := make(chan string, 10)
	m.mu.Lock()
	m.act = func(ctx context.Context, what string) error {
		if what != "update" {
			return nil
		}
		m.mu.Lock()
		m.status.Phase = "INSTALL"
		m.mu.Unlock()
		d.Notify(m.Status())
		for phase := range seen {
			if phase == "INSTALL" {
				return &update.Refused{Reason: "it failed before", Hint: "retry"}
			}
		}
		return nil
	}
	m.mu.Unlock()
	_, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(s update.Status) { seen <- s.Phase })
	var refused *update.Refused
	if !errors.As(err, &refused) || refused.Reason != "it failed before" || refused.Hint != "retry" {
		t.Errorf("the answer is %v", err)
	}
	m.mu.Lock()
	m.act = func(context.Context, string) error { return errors.New("cannot do it") }
	m.mu.Unlock()
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err == nil || err.Error() != "cannot do it" {
		t.Errorf("the answer is %v", err)
	}
}

// TestRebootTakesTheDaemon: it may be gone before it can say that all is done.
func TestRebootTakesTheDaemon(t *testing.T) {
	for phase, good := range map[string]bool{"REBOOT": true, "INSTALL": false} {
		dir, err := os.MkdirTemp("", "updater")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		listener, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "{\"status\":{\"phase\":%q}}\n", phase)
		})}
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}()
		_, err = daemon.NewClient(filepath.Join(dir, "s")).Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {})
		if (err == nil) != good {
			t.Errorf("gone in phase %s: %v", phase, err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNotWaiting(t *testing.T) {
	done := make(chan struct{})
	m := &machine{act: func(_ context.Context, what string) error {
		if what == "update" {
			close(done)
		}
		return nil
	}}
	_, client := start(t, m, 0)
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, nil); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestCancel(t *testing.T) {
	m := &machine{}
	_, client := start(t, m, 0)
	m.mu.Lock()
	m.act = func(context.Context, string) error { return update.ErrNothingUnderWay }
	m.mu.Unlock()
	if did, err := client.Cancel(t.Context()); err != nil || did {
		t.Errorf("nothing runs: %v, %v", did, err)
	}
	m.mu.Lock()
	m.act = func(context.Context, string) error { return errors.New("the disk is broken") }
	m.mu.Unlock()
	if did, err := client.Cancel(t.Context()); err == nil || err.Error() != "cannot cancel: the disk is broken" || did {
		t.Errorf("%v, %v", did, err)
	}
	m.mu.Lock()
	m.act = nil
	m.mu.Unlock()
	if did, err := client.Cancel(t.Context()); err != nil || !did {
		t.Errorf("something is staged: %v, %v", did, err)
	}
	if got := strings.Join(m.did, ", "); got != "recover, withdraw, withdraw, withdraw" {
		t.Errorf("it did %s", got)
	}
}

// TestCancelWhileItWorks: what is under way is stopped, also if that is a check
// and what a person does not want is staged.
func TestCancelWhileItWorks(t *testing.T) {
	for _, staged := range []bool{false, true} {
		cancelled, working := make(chan struct{}), make(chan struct{})
		m := &machine{cancelled: cancelled}
		m.act = func(_ context.Context, what string) error {
			switch {
			case what == "update":
				close(working)
				<-cancelled
				return errors.New("cancelled")
			case what == "withdraw" && !staged:
				return update.ErrNothingUnderWay
			}
			return nil
		}
		_, client := start(t, m, 0)
		if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, nil); err != nil {
			t.Fatal(err)
		}
		<-working
		if did, err := client.Cancel(t.Context()); err != nil || !did {
			t.Errorf("staged %v: %v, %v", staged, did, err)
		}
		m.mu.Lock()
		if got := strings.Join(m.did, ", "); got != "recover, update, withdraw" {
			t.Errorf("staged %v: it did %s", staged, got)
		}
		m.mu.Unlock()
	}
}

// TestPolls: the first check follows the start, and errors do not end it.
func TestPolls(t *testing.T) {
	third := make(chan struct{})
	n := 0
	m := &machine{act: func(_ context.Context, what string) error {
		if what == "update" {
			if n++; n == 3 {
				close(third)
			}
			return errors.New("server unreachable")
		}
		return nil
	}}
	start(t, m, time.Millisecond)
	<-third
}

// TestNothingBeforeRecovery: what was interrupted is ended first, however often
// that must be tried.
func TestNothingBeforeRecovery(t *testing.T) {
	m := &machine{recover: []error{errors.New("boot control cannot be read"), errors.New("still not")}}
	_, client := start(t, m, 0)
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err == nil {
		t.Error("an update began before recovery was done")
	}
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err != nil {
		t.Error(err)
	}
	if got := strings.Join(m.did, ", "); got != "recover, recover, recover, update" {
		t.Errorf("it did %s", got)
	}
}

// TestWhatFailsHalfWayIsBroughtToAnEnd: a full disk or a reboot that was refused
// must not need a restart of the daemon.
func TestWhatFailsHalfWayIsBroughtToAnEnd(t *testing.T) {
	m := &machine{}
	m.act = func(_ context.Context, what string) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if what == "update" && m.half {
			return errors.New("cannot write journal: no space left on device")
		}
		m.half = false
		return nil
	}
	_, client := start(t, m, 0)
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Check}, func(update.Status) {}); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.half = true
	m.mu.Unlock()
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err == nil {
		t.Fatal("want the reason")
	}
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err != nil {
		t.Error(err)
	}
	if got := strings.Join(m.did, ", "); got != "recover, check, update, recover, update" {
		t.Errorf("it did %s", got)
	}
}

// TestRecoveryIsTriedAgainByItself: also where nobody asks and nothing is
// checked from time to time.
func TestRecoveryIsTriedAgainByItself(t *testing.T) {
	t.Parallel()
	for _, poll := range []time.Duration{0, time.Hour} {
		second := make(chan struct{})
		n := 0
		m := &machine{recover: []error{errors.New("boot control cannot be read")}, act: func(_ context.Context, what string) error {
			if what == "recover" {
				if n++; n == 2 {
					close(second)
				}
			}
			return nil
		}}
		start(t, m, poll)
		<-second
	}
}

func TestNothingBeginsBeforeAReboot(t *testing.T) {
	m := &machine{rebooting: true}
	_, client := start(t, m, 0)
	var refused *update.Refused
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}

// TestWhatIsStagedGoesOn when it need not wait any more, also where nothing is
// checked from time to time: a person asked for it.
func TestWhatIsStagedGoesOn(t *testing.T) {
	t.Parallel()
	second := make(chan struct{})
	n := 0
	m := &machine{readyAt: 2}
	m.act = func(_ context.Context, what string) error {
		if what != "update" {
			return nil
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if n++; n == 2 {
			close(second)
		}
		m.waits = n < 2
		return nil
	}
	_, client := start(t, m, 0)
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, func(update.Status) {}); err != nil {
		t.Fatal(err)
	}
	<-second
	if m.looks != 2 {
		t.Errorf("looked %d times", m.looks)
	}
}

// TestARebootThatDoesNotCome is asked for again, whether or not the daemon checks
// by itself.
func TestARebootThatDoesNotCome(t *testing.T) {
	for _, poll := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{rebooting: true}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go daemon.New(m, poll, func() {}, slog.New(slog.DiscardHandler)).Run(ctx)
			time.Sleep(16 * time.Minute)
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			if got := strings.Join(m.did, " "); got != "recover recover recover recover" {
				t.Errorf("poll %s: in 16 minutes it did: %s", poll, got)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	client := daemon.NewClient(filepath.Join(t.TempDir(), "none"))
	if _, err := client.Ask(t.Context(), daemon.Request{Act: daemon.Update}, nil); !errors.Is(err, daemon.ErrNoDaemon) {
		t.Errorf("%v", err)
	}
	if _, err := client.Cancel(t.Context()); !errors.Is(err, daemon.ErrNoDaemon) {
		t.Errorf("%v", err)
	}
}
