package uplink

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// knock tries to connect for at most wait, and watches the interface that the
// packets must pass.
func knock(card *net.Interface, server netip.AddrPort, wait time.Duration) (k Knock) {
	t, err := openTap(card, onlyServer(server.Addr()))
	if err != nil {
		return k
	}
	defer t.close()
	connected, own, err := connect(card, server, wait)
	if err != nil {
		return k
	}
	k.Tried, k.Connected = true, connected
	for {
		p, ok := t.next(0)
		if !ok {
			return k
		}
		k.see(p, server, own)
	}
}

// connect opens a connection and closes it again. It returns our port, which
// tells its packets from those of others.
func connect(card *net.Interface, server netip.AddrPort, wait time.Duration) (connected bool, own uint16, err error) {
	family, free := unix.AF_INET, unix.Sockaddr(new(unix.SockaddrInet4))
	if server.Addr().Is6() {
		family, free = unix.AF_INET6, new(unix.SockaddrInet6)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, free); err != nil {
		return false, 0, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return false, 0, err
	}
	var to unix.Sockaddr
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		own, to = uint16(b.Port), &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}
	case *unix.SockaddrInet6:
		at := &unix.SockaddrInet6{Port: int(server.Port()), Addr: server.Addr().As16()}
		if server.Addr().IsLinkLocalUnicast() {
			at.ZoneId = uint32(card.Index)
		}
		own, to = uint16(b.Port), at
	}
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		return false, own, nil
	}
	for until := time.Now().Add(wait); ; {
		left := time.Until(until)
		if left <= 0 {
			return false, own, nil
		}
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(polled, int(left.Milliseconds())+1); err == unix.EINTR || err == nil && n == 0 {
			continue
		} else if err != nil {
			return false, own, err
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err == nil && code == 0, own, err
	}
}

// Bits of TCP's header (RFC 9293, 3.1).
const (
	tcpSYN = 1 << 1
	tcpRST = 1 << 2
	tcpACK = 1 << 4
)

// see takes one packet into account.
func (k *Knock) see(p packet, server netip.AddrPort, own uint16) {
	h, ok := parse(p)
	if !ok {
		return
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(h.body[at:]) }
	switch h.proto {
	case protoTCP:
		if len(h.body) < 14 {
			return
		}
		flags := h.body[13]
		switch {
		case p.outgoing && h.to == server.Addr() && port(0) == own && port(2) == server.Port():
			k.Left = k.Left || flags&tcpSYN != 0
		case !p.outgoing && h.from == server.Addr() && port(0) == server.Port() && port(2) == own:
			k.Answered = k.Answered || flags&(tcpSYN|tcpACK|tcpRST) == tcpSYN|tcpACK
			k.Refused = k.Refused || flags&tcpRST != 0
		}
	case protoICMP, protoICMPv6:
		if p.outgoing || len(h.body) < 8 || !undeliverable(h.proto, h.body[0]) {
			return
		}
		// Behind eight bytes it quotes what it is about.
		about, ok := parse(packet{protocol: p.protocol, data: h.body[8:]})
		if ok && about.proto == protoTCP && about.to == server.Addr() && len(about.body) >= 4 && binary.BigEndian.Uint16(about.body) == own {
			k.Unreachable = true
		}
	}
}

// undeliverable tells the types of ICMP that end an attempt to connect:
// destination unreachable, time exceeded.
func undeliverable(proto, kind byte) bool {
	if proto == protoICMP {
		return kind == 3 || kind == 11
	}
	return kind == 1 || kind == 3
}

// header is what counts of an IP header.
type header struct {
	from, to netip.Addr
	proto    byte
	body     []byte
}

// parse reads an IPv4 or IPv6 packet, which may be cut off. Extension headers
// of IPv6 are not looked into: what we send has none.
func parse(p packet) (h header, ok bool) {
	b := p.data
	switch p.protocol {
	case unix.ETH_P_IP:
		if len(b) < 20 || b[0]>>4 != 4 {
			return h, false
		}
		length := int(b[0]&15) * 4
		if length < 20 || len(b) < length {
			return h, false
		}
		h.from, h.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		h.proto, h.body = b[9], b[length:]
	case unix.ETH_P_IPV6:
		if len(b) < 40 || b[0]>>4 != 6 {
			return h, false
		}
		h.from, h.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		h.proto, h.body = b[6], b[40:]
	default:
		return h, false
	}
	return h, true
}
