package uplink

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// patience is how long answers are waited for.
type patience struct {
	knock time.Duration // a server's consent: TCP asks again after one second, and after three
	ask   time.Duration // a neighbour's answer, each of asks times
}

var usual = patience{knock: 4 * time.Second, ask: time.Second}

// Look describes the way that an answered request took; nil if it cannot be
// told, or if it was not traced. A next hop that answers costs no time, a silent
// one three seconds.
func Look(r *Request) *Path {
	at := r.address(netip.AddrPort{})
	if !at.IsValid() {
		return nil
	}
	p := look(at)
	if p == nil {
		return nil
	}
	if card, err := net.InterfaceByName(p.Interface); err == nil {
		p.Spoke = ask(card, p.NextHop, usual.ask) == Answers
	}
	return p
}

// Explain finds out why a traced request failed, where one that took the path
// before was answered; before may be nil. It takes up to ten seconds. There is no
// finding if ctx ends meanwhile, or if things changed: it came to a connection
// that the request did not.
func Explain(ctx context.Context, before *Path, r *Request, cause error) (f Finding, ok bool) {
	return usual.explain(ctx, before, r, cause)
}

func (wait patience) explain(ctx context.Context, before *Path, r *Request, cause error) (Finding, bool) {
	var was Path
	if before != nil {
		was = *before
	}
	at := r.address(was.Server)
	if !at.IsValid() {
		at = was.Server // its name is not resolved
	}
	facts, connected := r.facts(cause)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if facts.Answer == "" && facts.Distrust == "" {
			wait.find(ctx, &facts, was, at)
		}
	}()
	// Waits on sockets are bounded, and need nobody who waits for them.
	select {
	case <-ctx.Done():
		return Finding{}, false
	case <-done:
	}
	if facts.Knock.Connected && !connected && facts.Unnamed == "" {
		return Finding{}, false
	}
	return Judge(was, facts), true
}

// find finds facts out on the network. The next hops are asked last: an answer
// makes the kernel find them, too.
func (wait patience) find(ctx context.Context, f *Facts, before Path, at netip.AddrPort) {
	f.Wires = stand(before.Wires)
	var now, was *net.Interface
	if at.IsValid() {
		f.Now = look(at)
	}
	// An interface that cannot be found is gone: nil.
	if f.Now != nil {
		now, _ = net.InterfaceByName(f.Now.Interface)
	}
	if now != nil && ctx.Err() == nil {
		f.Knock = knock(now, at, wait.knock)
	}
	if was, _ = net.InterfaceByName(before.Interface); was != nil {
		f.Known = was.HardwareAddr.String() == before.Hardware
	}
	if f.Knock.Left || ctx.Err() != nil {
		return // a next hop answered, or nothing would have left
	}
	if f.Known {
		f.Before = ask(was, before.NextHop, wait.ask)
	}
	switch {
	case now == nil:
	case f.Known && f.Now.NextHop == before.NextHop && f.Now.Interface == before.Interface:
		f.NowHop = f.Before
	default:
		f.NowHop = ask(now, f.Now.NextHop, wait.ask)
	}
}
