package uplink

import (
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tap sees packets of an interface from the network header on: packet(7).
// What leaves is seen behind the packet filter, what comes in before it.
type tap struct {
	fd    int
	index int // of the interface
}

// packet is one that was seen.
type packet struct {
	protocol uint16 // EtherType
	outgoing bool
	data     []byte
}

// openTap sees what a filter lets through: classic BPF, as the kernel runs it
// on each packet. Without one a busy network would push out what is waited for.
func openTap(card *net.Interface, filter []unix.SockFilter) (*tap, error) {
	// No protocol yet: nothing may be queued before the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot watch %s: %w", card.Name, err)
	}
	t := &tap{fd, card.Index}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		t.close()
		return nil, fmt.Errorf("cannot watch %s: %w", card.Name, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ALL), Ifindex: card.Index}); err != nil {
		t.close()
		return nil, fmt.Errorf("cannot watch %s: %w", card.Name, err)
	}
	return t, nil
}

// close forgets what was queued; the descriptor is gone whatever close(2) says.
func (t *tap) close() { _ = unix.Close(t.fd) }

// swap turns a number into network byte order.
func swap(n uint16) uint16 { return n<<8 | n>>8 }

// next returns a packet that was seen, or waits for one until wait has passed;
// ok is false if none came.
func (t *tap) next(wait time.Duration) (p packet, ok bool) {
	for until := time.Now().Add(wait); ; {
		buffer := make([]byte, 512)
		n, from, err := unix.Recvfrom(t.fd, buffer, 0)
		if err == nil {
			if link, isLink := from.(*unix.SockaddrLinklayer); isLink {
				return packet{swap(link.Protocol), link.Pkttype == unix.PACKET_OUTGOING, buffer[:n]}, true
			}
			continue
		}
		left := time.Until(until)
		if err != unix.EAGAIN && err != unix.EINTR || left <= 0 {
			return packet{}, false
		}
		polled := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return packet{}, false
		}
	}
}

// Parts of filters: linux/bpf_common.h, linux/filter.h.
const (
	loadProtocol = 0xfffff000 // SKF_AD_OFF + SKF_AD_PROTOCOL

	loadByte = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
	loadHalf = unix.BPF_LD | unix.BPF_H | unix.BPF_ABS
	loadWord = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	ifEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	verdict  = unix.BPF_RET | unix.BPF_K
)

// Numbers of protocols in IP headers.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoICMPv6 = 58
)

// onlyARP lets ARP through.
func onlyARP() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadHalf, K: loadProtocol},
		{Code: ifEqual, Jf: 1, K: unix.ETH_P_ARP},
		{Code: verdict, K: 512},
		{Code: verdict, K: 0},
	}
}

// onlyICMPv6 lets neighbour discovery through, and other ICMPv6.
func onlyICMPv6() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: loadHalf, K: loadProtocol},
		{Code: ifEqual, Jf: 3, K: unix.ETH_P_IPV6},
		{Code: loadByte, K: 6},
		{Code: ifEqual, Jf: 1, K: protoICMPv6},
		{Code: verdict, K: 512},
		{Code: verdict, K: 0},
	}
}

// onlyServer lets TCP from and to an address through, and ICMP. Of an IPv6
// address it looks at the last four bytes; the reader looks at all.
func onlyServer(server netip.Addr) []unix.SockFilter {
	kind, next, icmp, from, to := uint32(unix.ETH_P_IP), uint32(9), uint32(protoICMP), uint32(12), uint32(16)
	raw := server.AsSlice()
	if server.Is6() {
		kind, next, icmp, from, to = unix.ETH_P_IPV6, 6, protoICMPv6, 20, 36
	}
	tail := raw[len(raw)-4:]
	address := uint32(tail[0])<<24 | uint32(tail[1])<<16 | uint32(tail[2])<<8 | uint32(tail[3])
	return []unix.SockFilter{
		{Code: loadHalf, K: loadProtocol},
		{Code: ifEqual, Jf: 8, K: kind},
		{Code: loadByte, K: next},
		{Code: ifEqual, Jt: 5, K: icmp},
		{Code: ifEqual, Jf: 5, K: protoTCP},
		{Code: loadWord, K: from},
		{Code: ifEqual, Jt: 2, K: address},
		{Code: loadWord, K: to},
		{Code: ifEqual, Jf: 1, K: address},
		{Code: verdict, K: 512},
		{Code: verdict, K: 0},
	}
}
