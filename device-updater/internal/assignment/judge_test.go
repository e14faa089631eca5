package assignment

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

var (
	serverKey = newKey(1)
	me        = Me{Device: "dev-1", Key: protocol.KeyID(public(newKey(2))), Pipeline: "demo", Product: "gateway", Pinned: public(serverKey)}
	right     = Clock{Now: now, Synchronised: true}
)

// good is an assignment with the counter 5.
func good(change func(*protocol.Assignment)) protocol.Assignment {
	a := protocol.Assignment{
		Version: 1, Device: me.Device, Key: me.Key, Pipeline: me.Pipeline, Product: me.Product, Stage: "production", Counter: 5,
		Issued: now.Add(-time.Hour), Expires: now.Add(7 * 24 * time.Hour),
		Release: &protocol.AssignedRelease{
			State: strings.Repeat("a", 64), Snapshot: "20261120T101500Z", Base: "demo/snapshots/20261120T101500Z", Distribution: "trixie", Components: []string{"main"},
			Release: strings.Repeat("b", 64), BOM: strings.Repeat("c", 64), BOMSize: 1000,
		},
	}
	if change != nil {
		change(&a)
	}
	return a
}

func signed(t testing.TB, a protocol.Assignment) protocol.Signed {
	t.Helper()
	payload, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return protocol.Sign(serverKey, protocol.ForAssignment, payload)
}

// TestJudge has the table of docs/device-protocol.md, and what is just within
// it. Each row differs in one thing from an assignment that is accepted.
func TestJudge(t *testing.T) {
	content := good(nil).Content()
	for _, c := range []struct {
		name   string
		change func(*protocol.Assignment)
		floor  Floor
		clock  Clock
		want   Reason // "": accepted
	}{
		{"the first one", nil, Floor{}, right, ""},
		{"a higher counter", nil, Floor{4, "x"}, right, ""},
		{"the same again", nil, Floor{5, content}, right, ""},
		{"no release, and why", func(a *protocol.Assignment) { a.Release, a.Wait = nil, "the gate waits" }, Floor{}, right, ""},
		{"the base of the state", func(a *protocol.Assignment) { a.Release.Base = "demo/states/" + a.Release.State }, Floor{}, right, ""},

		{"another version", func(a *protocol.Assignment) { a.Version = 2 }, Floor{}, right, Version},
		{"no version", func(a *protocol.Assignment) { a.Version = 0 }, Floor{}, right, Version},
		{"another device", func(a *protocol.Assignment) { a.Device = "dev-2" }, Floor{}, right, Device},
		{"another device's key", func(a *protocol.Assignment) { a.Key = protocol.KeyID(public(newKey(3))) }, Floor{}, right, Device},
		{"another pipeline", func(a *protocol.Assignment) { a.Pipeline = "other" }, Floor{}, right, Product},
		{"another product", func(a *protocol.Assignment) { a.Product = "camera" }, Floor{}, right, Product},
		{"a lower counter", nil, Floor{6, content}, right, Counter},
		{"the same counter with another content", nil, Floor{5, "x"}, right, Counter},
		{"no counter", func(a *protocol.Assignment) { a.Counter = 0 }, Floor{}, right, Counter},
		{"the highest counter", func(a *protocol.Assignment) { a.Counter = protocol.MaxNumber - 1 }, Floor{}, right, ""},
		{"a counter that JSON cannot hold", func(a *protocol.Assignment) { a.Counter = protocol.MaxNumber }, Floor{}, right, Counter},

		{"expired just now", nil, Floor{}, Clock{Now: now.Add(7 * 24 * time.Hour), Synchronised: true}, Expired},
		{"a second before it expires", nil, Floor{}, Clock{Now: now.Add(7*24*time.Hour - time.Second), Synchronised: true}, ""},
		{"expired, by a clock that nothing keeps right", nil, Floor{}, Clock{Now: now.Add(8 * 24 * time.Hour)}, Expired},
		{"expired before a signed date, whatever the clock says", nil, Floor{}, Clock{Now: time.Unix(0, 0), Floor: now.Add(8 * 24 * time.Hour)}, Expired},
		{"expired before a signed date, and the clock is behind it", nil, Floor{}, Clock{Now: now, Synchronised: true, Floor: now.Add(8 * 24 * time.Hour)}, Expired},
		{"a clock in 1970", nil, Floor{}, Clock{Now: time.Unix(0, 0)}, ""},
		{"a clock in 1970, and a floor", nil, Floor{}, Clock{Now: time.Unix(0, 0), Floor: now.Add(-24 * time.Hour)}, ""},
		{"an old assignment and a clock in 1970", nil, Floor{6, "x"}, Clock{Now: time.Unix(0, 0)}, Counter},

		{"issued ten minutes ahead", func(a *protocol.Assignment) { a.Issued = now.Add(10 * time.Minute) }, Floor{}, right, ""},
		{"issued further ahead", func(a *protocol.Assignment) { a.Issued = now.Add(10*time.Minute + time.Second) }, Floor{}, right, Future},
		{"issued ahead of a clock that nothing keeps right", func(a *protocol.Assignment) { a.Issued = now.Add(24 * time.Hour) }, Floor{}, Clock{Now: now}, ""},

		{"it expires when it is issued", func(a *protocol.Assignment) { a.Issued, a.Expires = now, now }, Floor{}, right, Lifetime},
		{"it expires before it is issued", func(a *protocol.Assignment) { a.Expires = a.Issued.Add(-time.Second) }, Floor{}, right, Lifetime},
		{"90 days", func(a *protocol.Assignment) { a.Expires = a.Issued.Add(90 * 24 * time.Hour) }, Floor{}, right, ""},
		{"more than 90 days", func(a *protocol.Assignment) { a.Expires = a.Issued.Add(90*24*time.Hour + time.Second) }, Floor{}, right, Lifetime},
		{"no times", func(a *protocol.Assignment) { a.Issued, a.Expires = time.Time{}, time.Time{} }, Floor{}, right, Lifetime},

		{"a base that climbs", func(a *protocol.Assignment) { a.Release.Base = "demo/../x" }, Floor{}, right, Release},
		{"a base of a stage", func(a *protocol.Assignment) { a.Release.Base = "demo/production" }, Floor{}, right, Release},
		{"a base of another pipeline", func(a *protocol.Assignment) { a.Release.Base = "other/snapshots/20261120T101500Z" }, Floor{}, right, Release},
		{"a state that is none", func(a *protocol.Assignment) { a.Release.State = "A" }, Floor{}, right, Release},
		{"a distribution with a space", func(a *protocol.Assignment) { a.Release.Distribution = "a b" }, Floor{}, right, Release},
		{"a component with a line feed", func(a *protocol.Assignment) { a.Release.Components = []string{"a\nb"} }, Floor{}, right, Release},
		{"no components", func(a *protocol.Assignment) { a.Release.Components = nil }, Floor{}, right, Release},
		{"a hash that is none", func(a *protocol.Assignment) { a.Release.Release = "" }, Floor{}, right, Release},
		{"a bill of materials without a hash", func(a *protocol.Assignment) { a.Release.BOM = "../x" }, Floor{}, right, BOM},
		{"a bill of materials without a size", func(a *protocol.Assignment) { a.Release.BOMSize = 0 }, Floor{}, right, BOM},
		{"a bill of materials that is huge", func(a *protocol.Assignment) { a.Release.BOMSize = bom.MaxSize + 1 }, Floor{}, right, BOM},
	} {
		got, err := Judge(signed(t, good(c.change)), me, c.floor, c.clock)
		var refusal *Refusal
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && got.Content() != good(c.change).Content():
			t.Errorf("%s: it became %+v", c.name, got)
		case c.want != "" && (!errors.As(err, &refusal) || refusal.Reason != c.want || refusal.Text == "" || got.Counter != 0):
			t.Errorf("%s: want %q, got %v", c.name, c.want, err)
		}
	}
}

func TestJudgeSignatures(t *testing.T) {
	whole := signed(t, good(nil))
	payload := whole.Payload
	changed := whole
	changed.Payload = bytes.Replace(payload, []byte("production"), []byte("production "), 1)
	for name, s := range map[string]protocol.Signed{
		"another key":        protocol.Sign(newKey(9), protocol.ForAssignment, payload),
		"the device's key":   protocol.Sign(newKey(2), protocol.ForAssignment, payload),
		"another purpose":    protocol.Sign(serverKey, protocol.ForCheckIn, payload),
		"a changed text":     changed,
		"nothing":            {},
		"no signature at it": {Payload: payload, Key: whole.Key},
	} {
		var refusal *Refusal
		if _, err := Judge(s, me, Floor{}, right); !errors.As(err, &refusal) || refusal.Reason != Signature {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The name of the key is a hint, not a proof.
	renamed := whole
	renamed.Key = "x"
	if _, err := Judge(renamed, me, Floor{}, right); err != nil {
		t.Errorf("another name of the key: %v", err)
	}
	var refusal *Refusal
	if _, err := Judge(protocol.Sign(serverKey, protocol.ForAssignment, []byte(`{"version":"1"}`)), me, Floor{}, right); !errors.As(err, &refusal) || refusal.Reason != Version {
		t.Errorf("a text that is no assignment: %v", err)
	}
}

// TestFloorsNeverFall: whatever comes in whatever order, restarts or not, the
// counter that is accepted never falls, and one counter has one content.
func TestFloorsNeverFall(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir := t.TempDir()
		clock := right
		s, err := Open(dir, me, func() Clock { return clock })
		if err != nil {
			r.Fatal(err)
		}
		contents := map[uint64]string{}
		last := uint64(0)
		for range rapid.IntRange(1, 20).Draw(r, "assignments") {
			a := good(func(a *protocol.Assignment) {
				a.Counter = rapid.Uint64Range(0, 6).Draw(r, "counter")
				a.Stage = rapid.SampledFrom([]string{"canary", "production"}).Draw(r, "stage")
				a.Expires = a.Issued.Add(time.Duration(rapid.IntRange(1, 100).Draw(r, "days")) * 24 * time.Hour)
			})
			_, err := s.Accept(signed(t, a))
			counter, content, _ := s.Have()
			if err == nil && (counter != a.Counter || content != a.Content()) {
				r.Fatalf("accepted %d, and has %d", a.Counter, counter)
			}
			if counter < last {
				r.Fatalf("the counter fell from %d to %d", last, counter)
			}
			if before, ok := contents[counter]; ok && before != content {
				r.Fatalf("the counter %d has two contents", counter)
			}
			last, contents[counter] = counter, content
			if rapid.Bool().Draw(r, "restart") {
				if s, err = Open(dir, me, func() Clock { return clock }); err != nil {
					r.Fatal(err)
				}
				if c, text, _ := s.Have(); c != counter || text != content {
					r.Fatalf("a restart made %d of %d", c, counter)
				}
			}
		}
	})
}

// FuzzJudge gives the judge texts that are rightly signed: whoever has the key
// may be mad, but can neither stop the updater nor make it use a name that is
// none.
func FuzzJudge(f *testing.F) {
	for _, change := range []func(*protocol.Assignment){nil, func(a *protocol.Assignment) { a.Release = nil }, func(a *protocol.Assignment) { a.Hold = &protocol.Hold{Reason: "x"} }} {
		payload, err := json.Marshal(good(change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte(`{"version":1,"counter":18446744073709551616}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		a, err := Judge(protocol.Sign(serverKey, protocol.ForAssignment, payload), me, Floor{}, right)
		if err != nil {
			var refusal *Refusal
			if !errors.As(err, &refusal) {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if a.Content() == "" || a.Device != me.Device || a.Counter == 0 {
			t.Errorf("accepted: %+v", a)
		}
		if r := a.Release; r != nil && (strings.Contains(r.Base, "..") || strings.ContainsAny(r.Base+r.Distribution+strings.Join(r.Components, ""), " \n\t[]\"'\\")) {
			t.Errorf("accepted: %+v", r)
		}
	})
}

// TestAWrongClockIsNoNews: the server signs an assignment anew for each check-in
// of a device that refuses it. The reason is the same each time, and the server
// has one line of it in its history.
func TestAWrongClockIsNoNews(t *testing.T) {
	for _, c := range []struct {
		name  string
		clock Clock
		says  string
	}{
		{"ten years ahead", Clock{Now: now.AddDate(10, 0, 0)}, "the clock of this device says 2036-11-20: if that is wrong, set it (timedatectl set-time)"},
		{"synchronised, and behind the server's", Clock{Now: now.AddDate(-1, 0, 0), Synchronised: true}, "look at the server's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var reasons [2]string
			for i := range reasons {
				anew := good(func(a *protocol.Assignment) {
					later := time.Duration(i) * time.Hour
					a.Issued, a.Expires = a.Issued.Add(later), a.Expires.Add(later)
				})
				_, err := Judge(signed(t, anew), me, Floor{}, Clock{Now: c.clock.Now.Add(time.Duration(i) * time.Hour), Synchronised: c.clock.Synchronised})
				if err == nil {
					t.Fatal("it was accepted")
				}
				reasons[i] = err.Error()
			}
			if reasons[0] != reasons[1] || !strings.Contains(reasons[0], c.says) {
				t.Errorf("it was refused as %q and then as %q, want %q", reasons[0], reasons[1], c.says)
			}
		})
	}
}
