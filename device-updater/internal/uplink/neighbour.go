package uplink

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// asks is how often a neighbour is asked.
const asks = 3

// ask finds out whether a neighbour answers on a network, by a question of our
// own: neither addresses and routes nor a filter of IP packets matter. It waits
// for each answer.
func ask(card *net.Interface, neighbour netip.Addr, wait time.Duration) Hop {
	if !neighbour.IsValid() || !speaksARP(card) || card.Flags&net.FlagUp == 0 {
		return Unknown
	}
	filter, question, answers := onlyARP(), arpQuestion(card, neighbour), isARPAnswer
	to := unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ARP), Ifindex: card.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if neighbour.Is6() {
		source, ok := linkLocal(card)
		if !ok {
			return Unknown
		}
		target := neighbour.WithZone("").As16()
		filter, question, answers = onlyICMPv6(), solicitation(card, source, target), isAdvertisement
		// RFC 2464, 7: multicast to the solicited node.
		to.Protocol, to.Addr = swap(unix.ETH_P_IPV6), [8]byte{0x33, 0x33, 0xff, target[13], target[14], target[15]}
	}
	t, err := openTap(card, filter)
	if err != nil {
		return Unknown
	}
	defer t.close()
	sent := false
	for range asks {
		sent = unix.Sendto(t.fd, question, 0, &to) == nil || sent
		for until := time.Now().Add(wait); ; {
			p, ok := t.next(time.Until(until))
			if !ok {
				break
			}
			if !p.outgoing && answers(p, neighbour) {
				return Answers
			}
		}
	}
	if !sent {
		return Unknown
	}
	return Silent
}

// arpQuestion is an ARP request (RFC 826). Without an address of ours it is a
// probe (RFC 5227).
func arpQuestion(card *net.Interface, neighbour netip.Addr) []byte {
	q := make([]byte, 28)
	copy(q, []byte{0, 1, 8, 0, 6, 4, 0, 1}) // Ethernet, IPv4, lengths, request
	copy(q[8:], card.HardwareAddr)
	if source, ok := sourceFor(card, neighbour); ok {
		copy(q[14:], source.AsSlice())
	}
	copy(q[24:], neighbour.AsSlice())
	return q
}

// isARPAnswer tells whether a packet is from the neighbour: a reply, or a
// question of its own.
func isARPAnswer(p packet, neighbour netip.Addr) bool {
	if p.protocol != unix.ETH_P_ARP || len(p.data) < 28 {
		return false
	}
	return netip.AddrFrom4([4]byte(p.data[14:18])) == neighbour
}

// solicitation is a neighbour solicitation (RFC 4861, 4.3) in its IPv6 packet.
func solicitation(card *net.Interface, source netip.Addr, target [16]byte) []byte {
	const length = 32 // of the ICMPv6 message: header, target, one option
	q := make([]byte, 40+length)
	q[0], q[5], q[6], q[7] = 6<<4, length, protoICMPv6, 255
	copy(q[8:], source.AsSlice())
	copy(q[24:], []byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]})
	message := q[40:]
	message[0] = 135
	copy(message[8:], target[:])
	message[24], message[25] = 1, 1 // source link-layer address
	copy(message[26:], card.HardwareAddr)
	// RFC 8200, 8.1: the checksum covers addresses, length and protocol too.
	sum := uint32(length) + protoICMPv6
	for i := 8; i < len(q); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(q[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	return q
}

// isAdvertisement tells whether a packet is the neighbour's advertisement.
func isAdvertisement(p packet, neighbour netip.Addr) bool {
	if p.protocol != unix.ETH_P_IPV6 || len(p.data) < 64 || p.data[6] != protoICMPv6 || p.data[40] != 136 {
		return false
	}
	target := neighbour.WithZone("").As16()
	return string(p.data[48:64]) == string(target[:])
}

// sourceFor is our address on the neighbour's network.
func sourceFor(card *net.Interface, neighbour netip.Addr) (netip.Addr, bool) {
	for _, own := range prefixes(card) {
		if own.Masked().Contains(neighbour) {
			return own.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// linkLocal is our address on the link, which IPv6 always has.
func linkLocal(card *net.Interface) (netip.Addr, bool) {
	for _, own := range prefixes(card) {
		if own.Addr().Is6() && own.Addr().IsLinkLocalUnicast() {
			return own.Addr(), true
		}
	}
	return netip.Addr{}, false
}

func prefixes(card *net.Interface) []netip.Prefix {
	addresses, err := card.Addrs()
	if err != nil {
		return nil
	}
	var all []netip.Prefix
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
		}
	}
	return all
}
