// Package uplink finds out why the server cannot be reached by a deployment on
// trial that could be reached before: because of the release, or because of
// what lies outside of the device. Only what the device can show to be outside
// of it speaks for the release; whatever cannot be told speaks against it, for
// a device that nobody reaches any more is lost.
//
// The evidence is taken below what a release usually breaks: the carrier of the
// wire, an ARP request or a neighbour solicitation of our own to the router, and
// the packets of one attempt to connect as they pass the interface, behind the
// packet filter on their way out and before it on their way in. It needs
// CAP_NET_RAW.
package uplink

import (
	"fmt"
	"net/netip"
	"strings"
)

// Path is the way to the server as it was when the server answered.
type Path struct {
	Server    netip.AddrPort `json:"server"`              // that was connected to: the server's, or a proxy's
	Interface string         `json:"interface,omitempty"` // that it leaves by
	Hardware  string         `json:"hardware,omitempty"`  // address of that interface; "": it has none
	Wires     []string       `json:"wires,omitempty"`     // Ethernet interfaces below it, or it itself; none: radio, or not known
	NextHop   netip.Addr     `json:"next_hop,omitzero"`   // the router, or the server on the same network; invalid: the link has two ends
	Spoke     bool           `json:"spoke,omitempty"`     // the next hop answered when it was asked
	Source    netip.Addr     `json:"source,omitzero"`     // our address
	Given     bool           `json:"given,omitempty"`     // the network gave us that address, for some time
}

// Wire is how an Ethernet interface stands.
type Wire struct {
	Name    string
	There   bool
	On      bool // it is switched on, which software does
	Carrier bool // something is plugged in, and alive
}

// Hop says whether a neighbour on the network answers.
type Hop int

// What a neighbour may do.
const (
	Unknown Hop = iota // it was not asked, or could not be
	Silent
	Answers
)

// Knock is what one attempt to connect looked like on the wire.
type Knock struct {
	Tried       bool // and watched
	Connected   bool
	Left        bool // our packet passed the interface
	Answered    bool // the server's consent came in
	Refused     bool // its refusal came in
	Unreachable bool // a router, or the server, says that it cannot be delivered
}

// Facts are what is found when the server cannot be reached.
type Facts struct {
	Answer   string // the server answered, but not as it should: how; "": it did not
	Distrust string // it answered, and is not believed: why
	Unnamed  string // its name could not be resolved: why
	Wires    []Wire // those of the path as it was
	Known    bool   // the interface of that path is there with the same hardware address
	Before   Hop    // the next hop of that path, asked on that interface
	Now      *Path  // the way that a packet would take; nil: there is none
	NowHop   Hop    // its next hop
	Knock    Knock
}

// Finding says whose doing it is that the server cannot be reached.
type Finding struct {
	Rule    string // of the table in docs/device-health.md, "The server during a trial"
	Outside bool   // it is shown to be outside of the device
	What    string // what was found, a clause
}

// Judge decides on the facts alone.
func Judge(before Path, f Facts) Finding {
	here := func(rule, format string, args ...any) Finding {
		return Finding{Rule: rule, What: fmt.Sprintf(format, args...)}
	}
	outside := func(rule, format string, args ...any) Finding {
		return Finding{Rule: rule, Outside: true, What: fmt.Sprintf(format, args...)}
	}
	wires, dead := wired(f.Wires)
	knock := f.Knock
	switch {
	case f.Answer != "":
		return outside("status", "the server answers, but not as it should")
	case f.Distrust != "":
		return here("distrust", "the server answers and is not believed: %s", f.Distrust)
	case dead:
		return outside("no-carrier", "%s", wires)
	case f.Unnamed != "" && (knock.Connected || knock.Answered || knock.Refused):
		return here("name", "the server's name is not resolved (%s), and the address that it had answers", f.Unnamed)
	case knock.Connected:
		return outside("mute", "the server takes connections and says nothing")
	case knock.Answered:
		return here("dropped-in", "the server's answer comes in and is dropped on this device")
	case knock.Refused:
		return outside("refused", "the server refuses connections")
	case knock.Unreachable:
		return outside("unreachable", "a router says that the server cannot be reached")
	case knock.Left && sameWay(before, f):
		return outside("silence", "nothing comes back from the server, by the way that it was reached before")
	case knock.Left && before.Interface == "":
		return here("other-way", "nothing comes back from the server, and nobody knows the way that it was reached before")
	case knock.Left:
		return here("other-way", "nothing comes back from the server %s, which was reached %s", way(*f.Now), way(before))
	case f.Now != nil && f.NowHop == Answers && knock.Tried:
		return here("dropped-out", "what this device sends to the server does not leave it, and %s answers", f.Now.NextHop)
	case f.Before == Silent && before.Spoke && f.Known:
		return outside("router-silent", "%s does not answer on %s", before.NextHop, before.Interface)
	case f.Before == Answers && f.Now == nil:
		return here("no-route", "%s answers on %s, and no way leads to the server", before.NextHop, before.Interface)
	case wires != "":
		return here("wire-off", "%s", wires)
	case f.Now == nil:
		return here("unknown", "no way leads to the server")
	}
	return here("unknown", "it cannot be told why")
}

// wired says what is wrong with the wires. They are dead if each of them is
// there, switched on, and has no carrier.
func wired(all []Wire) (wrong string, dead bool) {
	var say []string
	dead = len(all) > 0
	for _, w := range all {
		switch {
		case !w.There:
			say = append(say, w.Name+" is gone")
		case !w.On:
			say = append(say, w.Name+" is switched off")
		case !w.Carrier:
			say = append(say, w.Name+" has no carrier")
			continue
		}
		dead = false
	}
	return strings.Join(say, ", "), dead
}

// sameWay reports whether packets take the way on which the server answered
// before. An address that the network gives may be another one each time.
func sameWay(before Path, f Facts) bool {
	now := f.Now
	return now != nil && f.Known && now.Interface == before.Interface && now.NextHop == before.NextHop &&
		(now.Source == before.Source || now.Given && before.Given)
}

// way words a path.
func way(p Path) string {
	text := fmt.Sprintf("from %s by %s", p.Source, p.Interface)
	if p.NextHop.IsValid() {
		text += " over " + p.NextHop.String()
	}
	return text
}
