package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/test/order"
)

// uplink is a network between a device and its server: a bridge that the
// device's card is plugged into, and a front of the server that may be stopped.
type uplink struct {
	t       *testing.T
	bridge  string
	address string // of the front
	front   *http.Server
}

// networks counts the uplinks.
var networks atomic.Int32

// behindUplink makes a device that has a network card of its own, and follows
// its stage through a front of the server.
func behindUplink(u *uplink) func(*fielded) {
	return func(d *fielded) {
		plain(d)
		n := networks.Add(1)
		*u = uplink{t: d.t, bridge: fmt.Sprintf("uplink%d", n), address: fmt.Sprintf("10.77.%d.1", n)}
		u.run("link add %s type bridge", u.bridge)
		u.run("addr add %s/24 dev %s", u.address, u.bridge)
		u.run("link set %s up", u.bridge)
		d.t.Cleanup(func() { u.run("link del %s", u.bridge) })
		d.bridge, d.archive = u.bridge, "http://"+u.address+":8080"
		d.trial = trial{Tries: 2, Timeout: "45s", Observe: "3s"}
		u.serve()
	}
}

func (u *uplink) run(format string, args ...any) string {
	u.t.Helper()
	out, err := exec.Command("ip", strings.Fields(fmt.Sprintf(format, args...))...).CombinedOutput()
	if err != nil {
		u.t.Errorf("ip "+format+": %v: %s", append(args, err, out)...)
	}
	return string(out)
}

// serve starts the front.
func (u *uplink) serve() {
	u.t.Helper()
	server, err := url.Parse(world.site.plain)
	if err != nil {
		u.t.Fatal(err)
	}
	l, err := net.Listen("tcp", u.address+":8080")
	if err != nil {
		u.t.Fatal(err)
	}
	front := &http.Server{Handler: httputil.NewSingleHostReverseProxy(server)}
	u.front = front
	go func() {
		if err := front.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			u.t.Error(err)
		}
	}()
	u.t.Cleanup(func() { front.Close() })
}

// cable plugs the card of the running device in or pulls it out.
func (u *uplink) cable(state string) {
	u.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		// "7: vb-device-03@if2: <BROADCAST,…", or nothing
		if words := strings.Fields(u.run("-o link show master %s", u.bridge)); len(words) > 1 {
			port, _, _ := strings.Cut(words[1], "@")
			u.run("link set %s %s", port, state)
			return
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("no card is plugged into %s", u.bridge)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// newWired makes a device with a network card, which is on.
func newWired(t *testing.T) (*fielded, *uplink) {
	t.Helper()
	var u uplink
	d := newDevice(t, behindUplink(&u))
	etc := filepath.Join(d.Top(), "deployments/1/etc/systemd")
	for _, dir := range []string{"network", "system/multi-user.target.wants"} {
		if err := os.MkdirAll(filepath.Join(etc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf("[Match]\nName=host0\n[Network]\nAddress=%s2/24\nGateway=%s\nIPv6AcceptRA=no\n", strings.TrimSuffix(u.address, "1"), u.address)
	if err := errors.Join(
		os.WriteFile(filepath.Join(etc, "network/10-uplink.network"), []byte(config), 0o644),
		os.Symlink("/usr/lib/systemd/system/systemd-networkd.service", filepath.Join(etc, "system/multi-user.target.wants/systemd-networkd.service")),
	); err != nil {
		t.Fatal(err)
	}
	d.on()
	return d, &u
}

// tries promotes a release and waits until its trial boots.
func (d *fielded) tries(release string) {
	d.t.Helper()
	d.promote(release)
	d.awaitEvery(2*time.Millisecond, "a trial", func() bool { return d.lastBoot().Trial })
}

// awaitCommitBecause waits until release is committed, and checks what the record
// of that says.
func (d *fielded) awaitCommitBecause(release, reason string) {
	d.t.Helper()
	d.awaitCommit(release)
	all := d.journal()
	if why := all[len(all)-1].Reason; why != reason {
		d.t.Errorf("it was committed, and says %q, want %q", why, reason)
	}
}

func TestAFirewallThatCutsTheUplinkGoesBack(t *testing.T) {
	t.Parallel()
	d, _ := newWired(t)
	d.promote("firewall")
	if reason := d.awaitRollback("firewall"); !strings.Contains(reason, "does not leave it") {
		t.Errorf("it went back because %q", reason)
	}
	d.runs("1", "demo-app")
	failed := d.status().Failed
	if len(failed) != 1 || len(failed[0].Evidence) != 1 || !strings.Contains(failed[0].Evidence[0].Text, "does not leave it") {
		t.Errorf("evidence: %+v", failed)
	}
	// It is reached again, and takes another release.
	d.promote("2")
	d.awaitCommit("2")
}

// TestADeadUplinkDoesNotGoBack: the cable is out from the trial's boot to its
// end.
func TestADeadUplinkDoesNotGoBack(t *testing.T) {
	t.Parallel()
	d, u := newWired(t)
	d.tries("2")
	u.cable("down")
	d.awaitCommitBecause("2", "committed without a word from the server: host0 has no carrier")
	u.cable("up")
	d.promote("3")
	d.awaitCommitBecause("3", "")
}

// TestASilentRouterDoesNotGoBack: the cable is in, and nothing is alive at its
// other end.
func TestASilentRouterDoesNotGoBack(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package uplink plays every rule in network namespaces")
	}
	t.Parallel()
	d, u := newWired(t)
	d.tries("2")
	u.run("addr del %s/24 dev %s", u.address, u.bridge)
	d.awaitCommitBecause("2", "committed without a word from the server: "+u.address+" does not answer on host0")
}

// TestAnUplinkThatIsSlowToCome: it takes four times as long as health must hold,
// and the release is committed then, not when the time is up.
func TestAnUplinkThatIsSlowToCome(t *testing.T) {
	t.Parallel()
	d, u := newWired(t)
	d.tries("2")
	u.cable("down")
	time.Sleep(15 * time.Second)
	if d.committed() != 1 {
		t.Error("it did not wait for its server")
	}
	u.cable("up")
	d.awaitCommitBecause("2", "")
}

// TestAServerThatIsDown sends no device back: neither one that comes back in
// time, nor one that does not.
func TestAServerThatIsDown(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package uplink plays every rule in network namespaces")
	}
	t.Parallel()
	d, u := newWired(t)
	d.tries("2")
	if err := u.front.Close(); err != nil {
		t.Fatal(err)
	}
	d.awaitCommitBecause("2", "committed without a word from the server: the server refuses connections")
	u.serve()
	d.tries("3")
	if err := u.front.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(15 * time.Second)
	u.serve()
	d.awaitCommitBecause("3", "")
}

// TestACheckOfABootCounts: a unit that is required by boot-complete.target.
func TestACheckOfABootCounts(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package health tries the target, and other releases break in other ways")
	}
	t.Parallel()
	d, reason := shipBroken(t, "boot-check")
	if !strings.Contains(reason, "demo-check.service failed") {
		t.Errorf("it went back because %q", reason)
	}
	d.awaitKnownEvidence("the valve is stuck")
}

// awaitKnownEvidence waits until the server knows why the release failed.
func (d *fielded) awaitKnownEvidence(words string) {
	d.t.Helper()
	d.await("the server know the evidence "+words, func() bool {
		known := d.known()
		if known.Report == nil || len(known.Report.Failed) == 0 {
			return false
		}
		said := fmt.Sprint(known.Report.Failed[0].Evidence)
		return strings.Contains(said, words)
	})
}
