package reading

import (
	"net/netip"
	"sync"
	"time"
)

// The brake on wrong guesses: an address has so many free, and gets one back
// after each brakeLeak. A brake knows at most brakeAddresses addresses, some
// 100 bytes each.
//
// Secrets have 256 random bits and are not found by guessing. What the brake
// saves is the database and the log. So it never holds up who was known before,
// nor devices: behind one address there may be a whole fleet, one machine of
// which has a wrong password.
const (
	brakeFree      = 30
	brakeLeak      = 2 * time.Second
	brakeAddresses = 10_000
)

type brake struct {
	mu    sync.Mutex
	clock func() time.Time
	wrong map[netip.Prefix]guesses
}

// guesses are the wrong ones of an address, fewer as time passes.
type guesses struct {
	count float64
	at    time.Time
}

func (g guesses) now(now time.Time) float64 {
	return max(0, g.count-float64(now.Sub(g.at))/float64(brakeLeak))
}

// prefixOf is what counts as one address: of IPv6, the network that a single
// customer has at least.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all of those are one
	}
	return p
}

// wait returns how long an address has to wait before its next guess is looked
// at; 0: not at all.
func (b *brake) wait(a netip.Addr) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	over := b.wrong[prefixOf(a)].now(b.clock()) - (brakeFree - 1)
	return max(0, time.Duration(over*float64(brakeLeak)))
}

// note counts a wrong guess.
func (b *brake) note(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, now := prefixOf(a), b.clock()
	if _, known := b.wrong[p]; !known && len(b.wrong) >= brakeAddresses {
		b.makeRoom(now)
	}
	b.wrong[p] = guesses{min(b.wrong[p].now(now)+1, brakeFree), now}
}

// makeRoom forgets addresses that have all their guesses back, and any one if
// there is none: whoever has that many addresses is not held up by a list.
func (b *brake) makeRoom(now time.Time) {
	for p, g := range b.wrong {
		if g.now(now) == 0 {
			delete(b.wrong, p)
		}
	}
	for p := range b.wrong {
		if len(b.wrong) < brakeAddresses {
			return
		}
		delete(b.wrong, p)
	}
}
