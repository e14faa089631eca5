package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	worldNS  = "/run/netns/world"
	deviceIP = "10.77.0.2"
	routerIP = "10.77.0.1"
	serverIP = "10.88.0.1" // behind the router, which is the world's kernel
)

// network is the device's uplink, eth0, and the world that it leads to.
type network struct{ t *testing.T }

// newNetwork lays the wire: the device has an address and a way to the server.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t}
	n.run("ip netns add world")
	t.Cleanup(func() {
		n.world("ip link del w0") // the wire goes with its other end, a namespace when it likes
		n.run("ip netns del world")
		n.run("nft flush ruleset")
	})
	n.run("ip link set lo up")
	n.run("ip link add eth0 type veth peer name w0 netns world")
	n.run("ip addr add " + deviceIP + "/24 dev eth0")
	n.run("ip -6 addr add fd77::2/64 dev eth0 nodad")
	n.world("ip link set lo up")
	n.world("ip addr add " + routerIP + "/24 dev w0")
	n.world("ip -6 addr add fd77::1/64 dev w0 nodad")
	n.world("ip addr add " + serverIP + "/32 dev lo")
	n.world("ip -6 addr add fd88::1/128 dev lo nodad")
	n.world("ip link set w0 up")
	n.run("ip link set eth0 up")
	n.run("ip route add default via " + routerIP)
	n.run("ip -6 route add default via fd77::1")
	return n
}

// run runs a command in the device.
func (n *network) run(command string) {
	n.t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// route sets a route that no interface takes with it.
func (n *network) route(what string) {
	n.t.Helper()
	n.run("ip route add " + what)
	n.t.Cleanup(func() { n.run("ip route del " + what) })
}

// world runs a command in the world.
func (n *network) world(command string) {
	n.t.Helper()
	n.run("ip netns exec world " + command)
}

// filter sets a rule of a packet filter of the device.
func (n *network) filter(family, chain, rule string) {
	n.t.Helper()
	n.rules("nft", family, chain, rule)
}

// worldFilter sets one of the world.
func (n *network) worldFilter(chain, rule string) {
	n.t.Helper()
	n.rules("ip netns exec world nft", "inet", chain, rule)
}

func (n *network) rules(nft, family, chain, rule string) {
	n.t.Helper()
	n.run(nft + " add table " + family + " t")
	n.run(nft + " add chain " + family + " t c { type filter hook " + chain + " priority 0 ; }")
	n.run(nft + " add rule " + family + " t c " + rule)
}

// listen opens a port in the world.
func (n *network) listen(address string) net.Listener {
	n.t.Helper()
	type opened struct {
		net.Listener
		error
	}
	done := make(chan opened)
	go func() {
		// The thread is not used again: it is in another namespace.
		runtime.LockOSThread()
		fd, err := unix.Open(worldNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err != nil {
			done <- opened{nil, err}
			return
		}
		l, err := net.Listen("tcp", address)
		done <- opened{l, err}
	}()
	got := <-done
	if got.error != nil {
		n.t.Fatal(got.error)
	}
	n.t.Cleanup(func() { got.Close() })
	return got.Listener
}

// serve answers at an address of the world with a status.
func (n *network) serve(address string, status int) *http.Server {
	n.t.Helper()
	l := n.listen(address)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.t.Error(err)
		}
	}()
	n.t.Cleanup(func() { s.Close() })
	return s
}

// get is what a device asks its server with: a new connection each time.
func get(ctx context.Context, url string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// path asks once and returns the way.
func path(t *testing.T, url string) *Path {
	t.Helper()
	ctx, request := Trace(t.Context())
	if err := get(ctx, url); err != nil {
		t.Fatalf("it does not answer before: %v", err)
	}
	p := Look(request)
	if p == nil {
		t.Fatal("the way of an answered request cannot be told")
	}
	return p
}

// explain asks, expects no answer, and returns why.
func explain(t *testing.T, before *Path, url string) Finding {
	t.Helper()
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	ctx, request := Trace(short)
	err := get(ctx, url)
	if err == nil {
		t.Fatal("it answers")
	}
	start := time.Now()
	f, ok := patience{knock: time.Second, ask: 200 * time.Millisecond}.explain(t.Context(), before, request, err)
	t.Logf("%v after %v: %+v", err, time.Since(start).Round(10*time.Millisecond), f)
	if !ok {
		t.Fatal("no finding")
	}
	return f
}

func TestLook(t *testing.T) {
	n := newNetwork(t)
	n.serve(serverIP+":8080", http.StatusOK)
	p := path(t, "http://"+serverIP+":8080/")
	want := Path{
		Server: netip.MustParseAddrPort(serverIP + ":8080"), Interface: "eth0", Hardware: p.Hardware, Wires: []string{"eth0"},
		NextHop: netip.MustParseAddr(routerIP), Spoke: true, Source: netip.MustParseAddr(deviceIP),
	}
	if fmt.Sprint(*p) != fmt.Sprint(want) || len(p.Hardware) != 17 {
		t.Errorf("%+v, want %+v", *p, want)
	}
	// On the device itself there is no wire.
	local := httptest.NewServer(http.NotFoundHandler())
	defer local.Close()
	ctx, request := Trace(t.Context())
	_ = get(ctx, local.URL)
	if p := Look(request); p == nil || p.Interface != "lo" || p.NextHop.IsValid() || len(p.Wires) > 0 {
		t.Errorf("%+v", p)
	}
	// An address that is given for some time.
	n.run("ip addr add 10.77.0.9/24 dev eth0 valid_lft 100 preferred_lft 100")
	if !given(netip.MustParseAddr("10.77.0.9")) || given(netip.MustParseAddr(deviceIP)) {
		t.Error("addresses of DHCP are not told from others")
	}
}

// TestWires: a bridge has the wires of its ports.
func TestWires(t *testing.T) {
	n := newNetwork(t)
	n.run("ip link add br0 type bridge")
	t.Cleanup(func() { n.run("ip link del br0") })
	n.run("ip link set eth0 master br0")
	if got := fmt.Sprint(wiresBelow("br0")); got != "[eth0]" {
		t.Errorf("wires below br0: %s", got)
	}
	if got := fmt.Sprint(wiresBelow("lo"), wiresBelow("none")); got != "[] []" {
		t.Errorf("wires: %s", got)
	}
}

// TestExplain cuts the uplink in each way, with real packets and filters.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		change     func(n *network, s *http.Server)
	}{
		{"server is stopped", "refused", func(_ *network, s *http.Server) { s.Close() }},
		{"output is dropped", "dropped-out", func(n *network, _ *http.Server) { n.filter("inet", "output", "drop") }},
		{"output is dropped for the server alone", "dropped-out", func(n *network, _ *http.Server) { n.filter("ip", "output", "ip daddr "+serverIP+" drop") }},
		{"output is rejected as a server that is stopped would", "dropped-out", func(n *network, _ *http.Server) { n.filter("inet", "output", "meta l4proto tcp reject with tcp reset") }},
		{"output is rejected by ICMP", "dropped-out", func(n *network, _ *http.Server) { n.filter("inet", "output", "reject") }},
		{"input is dropped", "dropped-in", func(n *network, _ *http.Server) { n.filter("inet", "input", "drop") }},
		{"input is rejected", "dropped-in", func(n *network, _ *http.Server) { n.filter("inet", "input", "reject") }},
		{"cable is pulled", "no-carrier", func(n *network, _ *http.Server) { n.world("ip link set w0 down") }},
		{"interface is switched off", "wire-off", func(n *network, _ *http.Server) { n.run("ip link set eth0 down") }},
		{"interface has another name", "wire-off", func(n *network, _ *http.Server) {
			n.run("ip link set eth0 down")
			n.run("ip link set eth0 name uplink0")
		}},
		{"router is off", "router-silent", func(n *network, _ *http.Server) {
			n.world("ip addr flush dev w0")
			n.run("ip neigh flush all")
		}},
		{"router is off, no address either", "router-silent", func(n *network, _ *http.Server) {
			n.world("ip addr flush dev w0")
			n.run("ip addr flush dev eth0")
		}},
		{"router is off, another hardware address", "unknown", func(n *network, _ *http.Server) {
			n.world("ip addr flush dev w0")
			n.run("ip link set eth0 address 02:00:00:00:00:77")
			n.run("ip neigh flush all")
		}},
		{"no address", "no-route", func(n *network, _ *http.Server) { n.run("ip addr flush dev eth0") }},
		{"no route", "no-route", func(n *network, _ *http.Server) { n.run("ip route del default") }},
		{"prohibited", "no-route", func(n *network, _ *http.Server) { n.route("prohibit " + serverIP) }},
		{"black hole", "no-route", func(n *network, _ *http.Server) { n.route("blackhole " + serverIP) }},
		{"server's machine is off", "silence", func(n *network, _ *http.Server) { n.worldFilter("input", "tcp dport 8080 drop") }},
		{"server's machine is off, another address of our own", "other-way", func(n *network, _ *http.Server) {
			n.worldFilter("input", "tcp dport 8080 drop")
			n.run("ip addr flush dev eth0")
			n.run("ip addr add 10.77.0.66/24 dev eth0")
			n.run("ip route add default via " + routerIP)
		}},
		{"the router's line is dead", "unreachable", func(n *network, _ *http.Server) {
			n.world("ip addr del " + serverIP + "/32 dev lo")
			n.world("sysctl -qw net.ipv4.ip_forward=1")
			n.world("ip route add unreachable " + serverIP)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			s := n.serve(serverIP+":8080", http.StatusOK)
			before := path(t, "http://"+serverIP+":8080/")
			c.change(n, s)
			if got := explain(t, before, "http://"+serverIP+":8080/"); got.Rule != c.rule {
				t.Errorf("%+v, want %s", got, c.rule)
			}
		})
	}
}

// TestExplainV6 does the same for what differs with IPv6.
func TestExplainV6(t *testing.T) {
	const url = "http://[fd88::1]:8080/"
	for _, c := range []struct {
		name, rule string
		change     func(n *network, s *http.Server)
	}{
		{"server is stopped", "refused", func(_ *network, s *http.Server) { s.Close() }},
		{"output is dropped", "dropped-out", func(n *network, _ *http.Server) { n.filter("inet", "output", "drop") }},
		{"input is dropped", "dropped-in", func(n *network, _ *http.Server) { n.filter("inet", "input", "meta l4proto tcp drop") }},
		{"router is off", "router-silent", func(n *network, _ *http.Server) {
			n.world("ip -6 addr flush dev w0")
			n.run("ip -6 neigh flush all")
		}},
		{"server's machine is off", "silence", func(n *network, _ *http.Server) { n.worldFilter("input", "tcp dport 8080 drop") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t)
			s := n.serve("[fd88::1]:8080", http.StatusOK)
			var before *Path
			for range 50 { // the link-local addresses are looked for twins first
				if before = path(t, url); before.Spoke {
					break
				}
			}
			c.change(n, s)
			if got := explain(t, before, url); got.Rule != c.rule {
				t.Errorf("%+v, want %s", got, c.rule)
			}
		})
	}
}

// TestExplainAnswers: what a server says, or does not.
func TestExplainAnswers(t *testing.T) {
	n := newNetwork(t)
	n.serve(serverIP+":8080", http.StatusOK)
	n.serve(serverIP+":8081", http.StatusServiceUnavailable)
	before := path(t, "http://"+serverIP+":8080/")
	if got := explain(t, before, "http://"+serverIP+":8081/"); got.Rule != "status" {
		t.Errorf("503: %+v", got)
	}
	if got := explain(t, before, "http://server.invalid:8080/"); got.Rule != "name" {
		t.Errorf("no name: %+v", got)
	}

	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Listener.Close()
	secure.Listener = n.listen(serverIP + ":8443")
	secure.StartTLS()
	defer secure.Close()
	if got := explain(t, before, "https://"+serverIP+":8443/"); got.Rule != "distrust" {
		t.Errorf("unknown authority: %+v", got)
	}
	for name, treat := range map[string]func(net.Conn){
		"closes":       func(c net.Conn) { c.Close() },
		"says nothing": func(c net.Conn) { io.Copy(io.Discard, c) },
	} {
		l := n.listen(serverIP + ":0")
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go treat(c)
			}
		}()
		for _, scheme := range []string{"http", "https"} {
			if got := explain(t, before, scheme+"://"+l.Addr().String()+"/"); got.Rule != "mute" {
				t.Errorf("a server that %s over %s: %+v", name, scheme, got)
			}
		}
	}
}

// TestExplainEnds: it takes no longer than it may.
func TestExplainEnds(t *testing.T) {
	n := newNetwork(t)
	n.serve(serverIP+":8080", http.StatusOK)
	before := path(t, "http://"+serverIP+":8080/")
	n.filter("inet", "output", "drop")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, request := Trace(t.Context())
	start := time.Now()
	if f, ok := Explain(ctx, before, request, errors.New("late")); ok || time.Since(start) > 2*time.Second {
		t.Errorf("%+v after %v", f, time.Since(start))
	}
	// Without a baseline nothing can be silent as before.
	if f, ok := Explain(t.Context(), nil, request, errors.New("late")); !ok || f.Outside {
		t.Errorf("%+v", f)
	}
}

// TestFell: what is no sign of distrust.
func TestFell(t *testing.T) {
	if !fell(io.EOF) || !fell(context.DeadlineExceeded) || !fell(fmt.Errorf("read: %w", unix.ECONNRESET)) {
		t.Error("a connection that was cut off is taken for distrust")
	}
	if fell(tls.AlertError(70)) || fell(errors.New("x509: certificate signed by unknown authority")) {
		t.Error("distrust is taken for a connection that was cut off")
	}
}

// FuzzParse: packets are foreign bytes.
func FuzzParse(f *testing.F) {
	f.Add(uint16(unix.ETH_P_IP), []byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 88, 0, 1, 10, 77, 0, 2, 0x1f, 0x90, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x14, 0, 0})
	f.Add(uint16(unix.ETH_P_IP), []byte{0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 2, 10, 88, 0, 1, 0, 9, 0x1f, 0x90})
	f.Add(uint16(unix.ETH_P_IPV6), make([]byte, 60))
	server, neighbour := netip.MustParseAddrPort(serverIP+":8080"), netip.MustParseAddr(routerIP)
	f.Fuzz(func(t *testing.T, protocol uint16, data []byte) {
		for _, outgoing := range []bool{false, true} {
			p := packet{protocol, outgoing, data}
			var k Knock
			k.see(p, server, 9)
			if outgoing && (k.Answered || k.Refused || k.Unreachable) || !outgoing && k.Left {
				t.Errorf("%+v of a packet whose outgoing is %v", k, outgoing)
			}
			isARPAnswer(p, neighbour)
			isAdvertisement(p, netip.MustParseAddr("fd77::1"))
		}
	})
}
