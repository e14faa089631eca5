package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoRoute says that the kernel has no way to an address.
var errNoRoute = errors.New("no route")

// route asks the kernel which way a packet to an address takes: rtnetlink(7),
// RTM_GETROUTE.
func route(to netip.Addr) (index int, hop, source netip.Addr, err error) {
	family, bits := byte(unix.AF_INET), byte(32)
	if to.Is6() {
		family, bits = unix.AF_INET6, 128
	}
	dst := to.AsSlice()
	// A message header, an rtmsg, and the one attribute RTA_DST.
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtMsg+unix.SizeofRtAttr+len(dst))
	order := binary.NativeEndian
	order.PutUint32(request[0:], uint32(len(request)))
	order.PutUint16(request[4:], unix.RTM_GETROUTE)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST)
	order.PutUint32(request[8:], 1)
	body := request[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, bits
	attr := body[unix.SizeofRtMsg:]
	order.PutUint16(attr[0:], uint16(unix.SizeofRtAttr+len(dst)))
	order.PutUint16(attr[2:], unix.RTA_DST)
	copy(attr[unix.SizeofRtAttr:], dst)

	answer, err := netlink(request)
	if err != nil {
		return 0, hop, source, err
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return 0, hop, source, fmt.Errorf("cannot read the kernel's route: %w", err)
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				return 0, hop, source, fmt.Errorf("%w: %w", errNoRoute, syscall.Errno(-int32(order.Uint32(m.Data))))
			}
		case unix.RTM_NEWROUTE:
			attrs, err := syscall.ParseNetlinkRouteAttr(&m)
			if err != nil {
				return 0, hop, source, fmt.Errorf("cannot read the kernel's route: %w", err)
			}
			if kind := m.Data[7]; kind != unix.RTN_UNICAST && kind != unix.RTN_LOCAL {
				return 0, hop, source, errNoRoute // blackhole, prohibit, …
			}
			for _, a := range attrs {
				// An address of an odd length is none: it stays invalid.
				switch a.Attr.Type {
				case unix.RTA_OIF:
					index = int(order.Uint32(a.Value))
				case unix.RTA_GATEWAY:
					hop, _ = netip.AddrFromSlice(a.Value)
				case unix.RTA_VIA: // a router of the other family: which one, and its address
					if len(a.Value) > 2 {
						hop, _ = netip.AddrFromSlice(a.Value[2:])
					}
				case unix.RTA_PREFSRC:
					source, _ = netip.AddrFromSlice(a.Value)
				}
			}
			return index, hop, source, nil
		}
	}
	return 0, hop, source, errNoRoute
}

// netlink sends a request to the kernel and returns its first answer.
func netlink(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for a route: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for a route: %w", err)
	}
	answer := make([]byte, 16<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the kernel for a route: %w", err)
	}
	return answer[:n], nil
}

// given reports whether one of our addresses is ours for some time only:
// DHCP's, or from a router's advertisement.
func given(address netip.Addr) bool {
	all, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return false
	}
	messages, err := syscall.ParseNetlinkMessage(all)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return false
		}
		for _, a := range attrs {
			if a.Attr.Type != unix.IFA_ADDRESS && a.Attr.Type != unix.IFA_LOCAL {
				continue
			}
			if have, ok := netip.AddrFromSlice(a.Value); ok && have == address {
				return m.Data[2]&unix.IFA_F_PERMANENT == 0
			}
		}
	}
	return false
}

// look describes the way that a packet to the server takes now; nil if there
// is none.
func look(server netip.AddrPort) *Path {
	index, hop, source, err := route(server.Addr())
	if err != nil {
		return nil
	}
	card, err := net.InterfaceByIndex(index)
	if err != nil {
		return nil
	}
	p := &Path{Server: server, Interface: card.Name, Hardware: card.HardwareAddr.String(), Wires: wiresBelow(card.Name), NextHop: hop, Source: source}
	if !hop.IsValid() && speaksARP(card) {
		p.NextHop = server.Addr() // on the same network
	}
	p.Given = source.IsValid() && given(source)
	return p
}

// speaksARP reports whether an interface leads to a network where neighbours
// find each other by hardware addresses: not loopback, not a link with two ends.
func speaksARP(card *net.Interface) bool {
	return len(card.HardwareAddr) == 6 && card.Flags&(net.FlagLoopback|net.FlagPointToPoint) == 0
}
