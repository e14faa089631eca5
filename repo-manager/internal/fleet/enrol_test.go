package fleet_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/test/rig"
)

// code is the code of an error, whichever kind it is.
func code(err error) string {
	if c := fleet.CodeOfRefusal(err); c != "" {
		return c
	}
	return string(release.CodeOf(err))
}

func TestWhoBecomesADevice(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.Register(ctx, op, []fleet.Registration{
		{Serial: "REG", Name: "gw-1", Pipeline: "demo", Product: "gateway", Stage: "production", Modules: []string{"lte"}},
		{Serial: "OTHER-PRODUCT", Pipeline: "demo", Product: "gateway", Stage: "dev"},
		{Serial: "OTHER-ARCH", Pipeline: "demo", Product: "gateway", Stage: "dev"},
	})
	must(t, err)
	token := func(change func(*fleet.EnrolToken)) string {
		want := fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "canary", Modules: []string{"lte", "gps"}, Label: "line 3"}
		if change != nil {
			change(&want)
		}
		_, text, err := w.CreateToken(ctx, op, want)
		must(t, err)
		return text
	}
	expired := token(func(e *fleet.EnrolToken) { e.Expires = w.now.Add(time.Minute) })
	w.pass(time.Minute)
	twice := token(func(e *fleet.EnrolToken) { e.Uses = 2 })
	once := token(nil)
	mine := token(func(e *fleet.EnrolToken) { e.Serial = "MINE" })
	revoked := token(nil)
	must(t, w.RevokeToken(ctx, op, w.Tokens(ctx)[indexOf(t, w, revoked)].ID()))

	for _, c := range []struct {
		serial, token string
		change        func(*rig.Device)
		name          string // "": it waits
		reason        string
	}{
		{"REG", "", nil, "gw-1", ""},
		{"REG", "", nil, "", "device gw-1 has this serial number"},
		{"REG", once, nil, "", "device gw-1 has this serial number"},
		{"NEW", "", nil, "", "not registered"},
		{"NEW", "nonsense", nil, "", "token is unknown"},
		{"NEW", fleet.TokenPrefix + "nonsense", nil, "", "token is unknown"},
		{"NEW", revoked, nil, "", "token is unknown"},
		{"NEW", expired, nil, "", "token has expired"},
		{"NEW", mine, nil, "", "another serial number"},
		{"MINE", mine, nil, "MINE", ""},
		{"NEW", mine, nil, "", "token is used up"},
		{"NEW", once + "_0a0b0c", nil, "NEW", ""}, // with the fingerprint of an authority
		{"NEWER", once, nil, "", "token is used up"},
		{"ONE", twice, nil, "ONE", ""},
		{"PANEL", twice, func(d *rig.Device) { d.Product = "panel" }, "", "takes itself for product panel"},
		{"ARM", twice, func(d *rig.Device) { d.Arch = "arm64" }, "", "is for amd64, the machine is arm64"},
		{"S/N:00 1", twice, nil, "", ""},
		{"S/N:001", twice, nil, "S-N-001", ""},
		{"THREE", twice, nil, "", "token is used up"},
		{"OTHER-PRODUCT", "", func(d *rig.Device) { d.Product = "panel" }, "", "takes itself for product panel"},
		{"OTHER-ARCH", "", func(d *rig.Device) { d.Arch = "arm64" }, "", "is for amd64"},
	} {
		d := must1(rig.NewDevice(c.serial))
		if c.change != nil {
			c.change(d)
		}
		err := w.enrol(d, c.token)
		if strings.Contains(c.serial, " ") {
			if code(err) != "invalid" {
				t.Errorf("serial %q: %v", c.serial, err)
			}
			continue
		}
		must(t, err)
		switch {
		case c.name == "" && (d.Enrolled.Status != protocol.EnrolmentPending || !strings.Contains(d.Enrolled.Reason, c.reason) || d.Enrolled.AssignmentKey != nil):
			t.Errorf("%s with %q: %+v, want it to wait: %s", c.serial, c.token, d.Enrolled, c.reason)
		case c.name != "" && (d.Enrolled.Status != protocol.EnrolmentAccepted || d.Enrolled.Device != c.name):
			t.Errorf("%s with %q: %+v, want device %s", c.serial, c.token, d.Enrolled, c.name)
		case c.name != "":
			// The same key gets the same answer, also after a restart, whatever its token is.
			first := d.Enrolled
			w.restart()
			must(t, w.enrol(d, "gone"))
			if fmt.Sprint(d.Enrolled) != fmt.Sprint(first) {
				t.Errorf("%s asked again: %+v, want %+v", c.serial, d.Enrolled, first)
			}
		}
	}
	d := must1(w.Device(ctx, "gw-1"))
	if d.Stage != "production" || d.Product != "gateway" || len(d.Modules) != 1 || d.Modules[0] != "lte" || d.Serial != "REG" {
		t.Errorf("the registered device is %+v", d)
	}
	if all := w.Registrations(ctx); len(all) != 2 {
		t.Errorf("registered are still %+v", all)
	}
	acts := must1(w.store.Acts(ctx, "demo", 0))
	if last := acts[0]; last.Verb != "enrol" || last.Object != "device S-N-001" || last.Via != "token:line 3" {
		t.Errorf("the audit trail ends in %+v", last)
	}
}

// indexOf finds a token by its text.
func indexOf(t *testing.T, w *world, text string) int {
	t.Helper()
	for i, one := range w.Tokens(t.Context()) {
		if one.Hash == hashOf(strings.TrimPrefix(text, fleet.TokenPrefix)) {
			return i
		}
	}
	t.Fatal("the token is not listed")
	return 0
}

func TestEnrolledIsWhatADeviceNeeds(t *testing.T) {
	w := newWorld(t)
	w.private = true
	d := w.device("SN-1", "gateway", "dev")
	e := d.Enrolled
	if e.Archive != "http://archive.example" || e.ArchiveKey != "PGP" || e.CA != "PEM" || e.Pipeline != "demo" || e.Product != "gateway" ||
		len(e.AssignmentKey) != ed25519.PublicKeySize || !e.Time.Equal(w.now) || len(e.Features) > 0 {
		t.Errorf("it is told %+v", e)
	}
	for name, c := range map[string]struct {
		user, password, pipeline string
		want                     bool
	}{
		"its own":             {e.Device, e.Password, "demo", true},
		"another pipeline":    {e.Device, e.Password, "other", false},
		"another password":    {e.Device, e.Password[1:], "demo", false},
		"no password":         {e.Device, "", "demo", false},
		"nobody":              {"nobody", e.Password, "demo", false},
		"nobody, no password": {"", "", "", false},
	} {
		if got := w.ReadAllowed(c.user, c.password, c.pipeline); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	must1(w.Retire(t.Context(), op, e.Device, "sold"))
	if w.ReadAllowed(e.Device, e.Password, "demo") {
		t.Error("a retired device reads the archive")
	}
}

// One token, many machines at the same moment: one gets in.
func TestATokenIsUsedUpOnce(t *testing.T) {
	w := newWorld(t)
	_, token, err := w.CreateToken(t.Context(), op, fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "dev", Uses: 3})
	must(t, err)
	w.store.slow.Store(int64(time.Millisecond))
	var mu sync.Mutex
	accepted := 0
	var all sync.WaitGroup
	for i := range 20 {
		d := must1(rig.NewDevice(fmt.Sprint("SN-", i)))
		all.Go(func() {
			answer, err := w.Enrol(t.Context(), must1(d.Enrolment(token)), "192.0.2.1")
			if err != nil {
				t.Error(err)
			}
			if answer.Status == protocol.EnrolmentAccepted {
				mu.Lock()
				defer mu.Unlock()
				accepted++
			}
		})
	}
	all.Wait()
	if accepted != 3 || w.Tokens(t.Context())[0].Left != 0 {
		t.Errorf("%d machines got in, %d uses are left", accepted, w.Tokens(t.Context())[0].Left)
	}
	w.restart()
	if left := w.Tokens(t.Context())[0].Left; left != 0 {
		t.Errorf("after a restart %d uses are left", left)
	}
	// One machine that asks twice at once uses one up.
	w.store.slow.Store(0)
	_, token, err = w.CreateToken(t.Context(), op, fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "dev", Uses: 3})
	must(t, err)
	d := must1(rig.NewDevice("SN-twice"))
	for range 5 {
		all.Go(func() {
			if answer, err := w.Enrol(t.Context(), must1(d.Enrolment(token)), "192.0.2.1"); err != nil || answer.Device != "SN-twice" {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
	all.Wait()
	if left := w.Tokens(t.Context())[indexOf(t, w, token)].Left; left != 2 {
		t.Errorf("%d uses are left, want 2", left)
	}
}

// An enrolment that the disk does not take uses up nothing.
func TestAFailedEnrolmentUsesUpNothing(t *testing.T) {
	w := newWorld(t)
	_, token, err := w.CreateToken(t.Context(), op, fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "dev"})
	must(t, err)
	d := must1(rig.NewDevice("SN-1"))
	w.store.FailNext(fmt.Errorf("disk full"))
	if err := w.enrol(d, token); err == nil {
		t.Fatal("it was accepted")
	}
	if _, err := w.Device(t.Context(), "SN-1"); release.CodeOf(err) != release.NotFound {
		t.Errorf("the device is there: %v", err)
	}
	must(t, w.enrol(d, token))
	if d.Enrolled.Status != protocol.EnrolmentAccepted {
		t.Errorf("%+v", d.Enrolled)
	}
}

func TestBadEnrolments(t *testing.T) {
	w := newWorld(t)
	d := must1(rig.NewDevice("SN-1"))
	good := must1(d.Enrolment(""))
	var e protocol.Enrolment
	must(t, json.Unmarshal(good.Payload, &e))
	with := func(change func(*protocol.Enrolment)) protocol.Signed {
		other := e
		change(&other)
		return protocol.Sign(d.Key, protocol.ForEnrolment, must1(json.Marshal(other)))
	}
	text := func(s string) protocol.Signed { return protocol.Sign(d.Key, protocol.ForEnrolment, []byte(s)) }
	other := must1(rig.NewDevice("SN-2"))
	for name, c := range map[string]struct {
		signed protocol.Signed
		code   string
	}{
		"nothing":                                {protocol.Signed{}, "invalid"},
		"no JSON":                                {text("{"), "invalid"},
		"a list":                                 {text("[]"), "invalid"},
		"no version":                             {with(func(e *protocol.Enrolment) { e.Version = 0 }), protocol.CodeUnsupported},
		"a later version":                        {with(func(e *protocol.Enrolment) { e.Version = 2 }), protocol.CodeUnsupported},
		"a later version, which signs otherwise": {protocol.Sign(d.Key, "aptfleet enrolment 2", []byte(`{"version":2}`)), protocol.CodeUnsupported},
		"signed for a check-in":                  {protocol.Sign(d.Key, protocol.ForCheckIn, good.Payload), protocol.CodeBadSignature},
		"signed by another":                      {protocol.Sign(other.Key, protocol.ForEnrolment, good.Payload), protocol.CodeBadSignature},
		"another key's name":                     {protocol.Signed{Payload: good.Payload, Key: other.KeyID(), Signature: good.Signature}, protocol.CodeBadSignature},
		"half a key":                             {with(func(e *protocol.Enrolment) { e.Key = e.Key[:16] }), protocol.CodeBadSignature},
		"half a sealing key":                     {with(func(e *protocol.Enrolment) { e.Sealing = e.Sealing[:31] }), "invalid"},
		"no serial number":                       {with(func(e *protocol.Enrolment) { e.Serial = "" }), "invalid"},
		"a long serial number":                   {with(func(e *protocol.Enrolment) { e.Serial = strings.Repeat("x", 65) }), "invalid"},
		"an escape sequence":                     {with(func(e *protocol.Enrolment) { e.Serial = "a\x1b[2J" }), "invalid"},
		"no architecture":                        {with(func(e *protocol.Enrolment) { e.Architecture = "" }), "invalid"},
		"no machine":                             {with(func(e *protocol.Enrolment) { e.Machine = "" }), "invalid"},
		"no boot":                                {with(func(e *protocol.Enrolment) { e.Boot = "" }), "invalid"},
		"a long token":                           {with(func(e *protocol.Enrolment) { e.Token = strings.Repeat("x", 600) }), "invalid"},
		"a long product":                         {with(func(e *protocol.Enrolment) { e.Product = strings.Repeat("x", 65) }), "invalid"},
	} {
		if _, err := w.Enrol(t.Context(), c.signed, "192.0.2.1"); code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if all := w.Pending(t.Context()); len(all) != 0 {
		t.Errorf("somebody waits: %+v", all)
	}
}

// An operator decides: by serial number where that is clear, else by the key.
func TestPending(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	a, b, c := must1(rig.NewDevice("SN-1")), must1(rig.NewDevice("SN-1")), must1(rig.NewDevice("SN-2"))
	for _, d := range []*rig.Device{a, b, c} {
		must(t, w.enrol(d, ""))
		w.pass(time.Second)
	}
	must(t, w.enrol(a, "")) // asks again
	all := w.Pending(ctx)
	if len(all) != 3 || all[0].Key != a.KeyID() || all[0].Serial != "SN-1" || all[0].Address != "192.0.2.1" || !all[0].Last.After(all[0].First) {
		t.Fatalf("waiting are %+v", all)
	}
	for name, c := range map[string]struct {
		which string
		how   protocol.Accept
		code  release.Code
	}{
		"two of that serial number": {"SN-1", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev"}, release.Conflict},
		"nobody":                    {"SN-9", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev"}, release.NotFound},
		"no product":                {"SN-2", protocol.Accept{Pipeline: "demo", Stage: "dev"}, release.Invalid},
		"another product":           {"SN-2", protocol.Accept{Pipeline: "demo", Product: "toaster", Stage: "dev"}, release.NotFound},
		"no stage":                  {"SN-2", protocol.Accept{Pipeline: "demo", Product: "gateway"}, release.Invalid},
		"another stage":             {"SN-2", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "moon"}, release.NotFound},
		"another module":            {"SN-2", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev", Modules: []string{"warp"}}, release.NotFound},
		"no pipeline":               {"SN-2", protocol.Accept{Product: "gateway", Stage: "dev"}, release.NotFound},
		"a bad name":                {"SN-2", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev", Name: "../x"}, release.Invalid},
		"nothing to replace":        {"SN-2", protocol.Accept{Replace: true}, release.Conflict},
	} {
		if _, err := w.Accept(ctx, op, c.which, c.how); release.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	d := must1(w.Accept(ctx, op, a.KeyID()[:8], protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev", Name: "gw"}))
	must(t, w.enrol(a, ""))
	if d.Name != "gw" || a.Enrolled.Device != "gw" {
		t.Errorf("accepted is %+v, it was told %+v", d, a.Enrolled)
	}
	// The other machine that says that number goes on waiting, and is told why.
	must(t, w.enrol(b, ""))
	if b.Enrolled.Status != protocol.EnrolmentPending || !strings.Contains(b.Enrolled.Reason, "device gw") {
		t.Errorf("the other one: %+v", b.Enrolled)
	}
	if _, err := w.Accept(ctx, op, "SN-1", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev"}); release.CodeOf(err) != release.Conflict {
		t.Errorf("a key was replaced although nobody said so: %v", err)
	}
	must(t, w.Refuse(ctx, op, "SN-2", "none of ours"))
	for range 2 {
		if err := w.enrol(c, ""); code(err) != protocol.CodeRefused || !strings.Contains(err.Error(), "none of ours") {
			t.Errorf("a refused machine: %v", err)
		}
		w.restart()
	}
	if err := w.Refuse(ctx, op, "SN-2", "again"); release.CodeOf(err) != release.NotFound {
		t.Errorf("refused twice: %v", err)
	}
	must(t, w.Pardon(ctx, op, c.KeyID()[:6]))
	if err := w.Pardon(ctx, op, "SN-2"); release.CodeOf(err) != release.NotFound {
		t.Errorf("pardoned twice: %v", err)
	}
	w.restart()
	if must(t, w.enrol(c, "")); c.Enrolled.Status != protocol.EnrolmentPending {
		t.Errorf("pardoned, it is %+v", c.Enrolled)
	}
}

// A key is replaced by a person only; then the old one is worth nothing, and
// nothing of the old machine counts for the new one.
func TestAKeyIsReplaced(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.private = true
	old := w.device("SN-1", "gateway", "dev")
	running(old, w.snapshots[snapshot1])
	w.checkIn(old)
	must1(w.Assign(ctx, op, "SN-1", "canary"))
	fresh := must1(rig.NewDevice("SN-1"))
	must(t, w.enrol(fresh, ""))
	d := must1(w.Accept(ctx, op, "SN-1", protocol.Accept{Replace: true}))
	if d.Name != "SN-1" || d.Stage != "canary" || d.Report != nil || d.Counter != 0 || d.Session != 0 {
		t.Errorf("the device is %+v", d)
	}
	for range 2 {
		if _, err := w.send(must1(old.Next(w.now, true))); code(err) != protocol.CodeRetired {
			t.Errorf("a check-in with the old key: %v", err)
		}
		if err := w.enrol(old, ""); code(err) != protocol.CodeRetired {
			t.Errorf("an enrolment with the old key: %v", err)
		}
		must(t, w.enrol(fresh, ""))
		if w.ReadAllowed("SN-1", old.Enrolled.Password, "demo") || !w.ReadAllowed("SN-1", fresh.Enrolled.Password, "demo") {
			t.Error("the archive knows the wrong password")
		}
		fresh.Accepted = protocol.Assignment{}
		fresh.Restart(false)
		if answer := w.checkIn(fresh); answer == nil || fresh.Accepted.Stage != "canary" {
			t.Errorf("the new key is told %+v", answer)
		}
		w.restart()
	}
}

// A name is never given twice, however keys and serial numbers are chosen.
func TestNamesAreGivenOnce(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	victim := must1(rig.NewDevice("S/N"))
	// Devices that have every name that could be made for the victim.
	w.device("S-N", "gateway", "dev")
	w.device("S-N-"+victim.KeyID()[:6], "gateway", "dev")
	must1(w.Register(ctx, op, []fleet.Registration{{Serial: "other", Name: "S-N-" + victim.KeyID(), Pipeline: "demo", Product: "gateway", Stage: "dev"}}))
	_, token, err := w.CreateToken(ctx, op, fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "dev"})
	must(t, err)
	before := must1(w.Devices(ctx))
	if err := w.enrol(victim, token); release.CodeOf(err) != release.Conflict {
		t.Errorf("%v, %+v", err, victim.Enrolled)
	}
	if after := must1(w.Devices(ctx)); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("devices were %+v and are %+v", before, after)
	}
	must(t, w.Unregister(ctx, op, "other"))
	if must(t, w.enrol(victim, token)); victim.Enrolled.Device != "S-N-"+victim.KeyID() {
		t.Errorf("%+v", victim.Enrolled)
	}
	// What was registered keeps its name, whoever comes first.
	must1(w.Register(ctx, op, []fleet.Registration{{Serial: "late", Name: "gw", Pipeline: "demo", Product: "gateway", Stage: "dev"}}))
	early, late := w.device("gw", "gateway", "dev"), must1(rig.NewDevice("late"))
	must(t, w.enrol(late, ""))
	if early.Enrolled.Device == "gw" || late.Enrolled.Device != "gw" {
		t.Errorf("%s and %s", early.Enrolled.Device, late.Enrolled.Device)
	}
	waits := must1(rig.NewDevice("waits"))
	must(t, w.enrol(waits, ""))
	if _, err := w.Accept(ctx, op, "waits", protocol.Accept{Pipeline: "demo", Product: "gateway", Stage: "dev", Name: "gw"}); release.CodeOf(err) != release.Conflict {
		t.Errorf("a taken name was given: %v", err)
	}
	long := w.device(strings.Repeat("x", 64), "gateway", "dev")
	if name := long.Enrolled.Device; len(name) > 64 || !strings.HasPrefix(name, "xxx") {
		t.Errorf("a long serial number makes %q", name)
	}
}

// A retired machine comes back by its registration, with a new key.
func TestARetiredMachineEnrolsAnew(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	old := w.device("SN-1", "gateway", "dev")
	if _, err := w.Register(ctx, op, []fleet.Registration{{Serial: "SN-1", Pipeline: "demo", Product: "gateway", Stage: "dev"}}); release.CodeOf(err) != release.Conflict {
		t.Errorf("a device's number was registered: %v", err)
	}
	must1(w.Retire(ctx, op, "SN-1", "sent back"))
	if err := w.enrol(old, ""); code(err) != protocol.CodeRetired || !strings.Contains(err.Error(), "sent back") {
		t.Errorf("a retired key: %v", err)
	}
	fresh := must1(rig.NewDevice("SN-1"))
	must(t, w.enrol(fresh, ""))
	if fresh.Enrolled.Status != protocol.EnrolmentPending {
		t.Errorf("by itself it is %+v", fresh.Enrolled)
	}
	// Nor by a token of another product: it would have what is configured for the
	// device that it was.
	_, token, err := w.CreateToken(ctx, op, fleet.EnrolToken{Pipeline: "demo", Product: "panel", Stage: "dev"})
	must(t, err)
	must(t, w.enrol(fresh, token))
	if e := fresh.Enrolled; e.Status != protocol.EnrolmentPending || !strings.Contains(e.Reason, "SN-1 of product gateway, which is retired") || w.Tokens(ctx)[indexOf(t, w, token)].Left != 1 {
		t.Errorf("by another product's token it is %+v", e)
	}
	if _, err := w.Register(ctx, op, []fleet.Registration{{Serial: "SN-1", Name: "other", Pipeline: "demo", Product: "panel", Stage: "canary"}}); release.CodeOf(err) != release.Conflict {
		t.Errorf("it was given another name: %v", err)
	}
	must1(w.Register(ctx, op, []fleet.Registration{{Serial: "SN-1", Pipeline: "demo", Product: "panel", Stage: "canary"}}))
	must(t, w.enrol(fresh, ""))
	if d := must1(w.Device(ctx, "SN-1")); d.Retired != nil || d.Product != "panel" || d.Stage != "canary" || fresh.Enrolled.Product != "panel" {
		t.Errorf("the device is %+v", d)
	}
	if err := w.enrol(old, ""); code(err) != protocol.CodeRetired {
		t.Errorf("the retired key: %v", err)
	}
	w.restart()
	w.checkIn(fresh)
	if _, err := w.send(must1(old.Next(w.now, true))); code(err) != protocol.CodeRetired {
		t.Errorf("the retired key: %v", err)
	}
}

// Whoever makes keys all day long pushes out nobody but itself, takes a
// bounded room, and writes nothing.
func TestAHundredThousandStrangers(t *testing.T) {
	w := newWorld(t)
	mine := must1(rig.NewDevice("SN-1"))
	_, err := w.Enrol(t.Context(), must1(mine.Enrolment("")), "198.51.100.7")
	must(t, err)
	before := w.store.commits.Load()
	seed := make([]byte, ed25519.SeedSize)
	for i := range 100_000 {
		// Signatures would take most of the time, and the lists are what is tested.
		copy(seed, fmt.Sprint(i))
		fleet.AddPending(w.Service, protocol.KeyID(ed25519.PublicKey(seed)), protocol.Enrolment{Serial: "SN-1"}, fmt.Sprintf("2001:db8:0:%x::%x", i%3, i))
	}
	all := w.Pending(t.Context())
	isMine := func(p protocol.PendingEnrolment) bool { return p.Key == mine.KeyID() }
	if len(all) != fleet.MaxPending || !slices.ContainsFunc(all, isMine) {
		t.Errorf("%d wait, mine among them: %v", len(all), slices.ContainsFunc(all, isMine))
	}
	if w.store.commits.Load() != before {
		t.Error("strangers made the server write")
	}
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	r := func(serial, name string) fleet.Registration {
		return fleet.Registration{Serial: serial, Name: name, Pipeline: "demo", Product: "gateway", Stage: "dev"}
	}
	if isNew := must1(w.Register(ctx, op, []fleet.Registration{r("SN-1", "one"), r("SN-2", "")})); !isNew {
		t.Error("nothing was new")
	}
	if isNew := must1(w.Register(ctx, op, []fleet.Registration{r("SN-2", ""), r("SN-1", "one")})); isNew {
		t.Error("the same again was new")
	}
	w.device("SN-D", "gateway", "dev")
	bad := r("SN-5", "")
	bad.Modules = []string{"warp"}
	for name, c := range map[string]struct {
		list []fleet.Registration
		code release.Code
	}{
		"another name":            {[]fleet.Registration{r("SN-1", "other")}, release.Conflict},
		"a name of another":       {[]fleet.Registration{r("SN-3", "one")}, release.Conflict},
		"a name of a device":      {[]fleet.Registration{r("SN-3", "SN-D")}, release.Conflict},
		"twice in the list":       {[]fleet.Registration{r("SN-3", ""), r("SN-3", "")}, release.Conflict},
		"a name twice":            {[]fleet.Registration{r("SN-3", "x"), r("SN-4", "x")}, release.Conflict},
		"a good one and a bad":    {[]fleet.Registration{r("SN-3", ""), bad}, release.NotFound},
		"no serial number":        {[]fleet.Registration{r("", "")}, release.Invalid},
		"no product":              {[]fleet.Registration{{Serial: "SN-3", Pipeline: "demo", Stage: "dev"}}, release.Invalid},
		"a number of a device":    {[]fleet.Registration{r("SN-D", "")}, release.Conflict},
		"a stage that is nowhere": {[]fleet.Registration{{Serial: "SN-3", Pipeline: "demo", Product: "gateway", Stage: "moon"}}, release.NotFound},
	} {
		if _, err := w.Register(ctx, op, c.list); release.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	must(t, w.Unregister(ctx, op, "SN-1"))
	if err := w.Unregister(ctx, op, "SN-1"); release.CodeOf(err) != release.NotFound {
		t.Errorf("unregistered twice: %v", err)
	}
	w.restart()
	if all := w.Registrations(ctx); len(all) != 1 || all[0].Serial != "SN-2" || all[0].By != "otto" {
		t.Errorf("registered are %+v", all)
	}
}

func TestBadTokens(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*fleet.EnrolToken){
		"no product":          func(e *fleet.EnrolToken) { e.Product = "" },
		"many of a number":    func(e *fleet.EnrolToken) { e.Serial, e.Uses = "SN", 2 },
		"no uses":             func(e *fleet.EnrolToken) { e.Uses = -1 },
		"too many":            func(e *fleet.EnrolToken) { e.Uses = fleet.MaxUses + 1 },
		"expired":             func(e *fleet.EnrolToken) { e.Expires = w.now },
		"for ever":            func(e *fleet.EnrolToken) { e.Expires = w.now.AddDate(2, 0, 0) },
		"a label of controls": func(e *fleet.EnrolToken) { e.Label = "a\nb" },
		"a stage of nowhere":  func(e *fleet.EnrolToken) { e.Stage = "moon" },
	} {
		want := fleet.EnrolToken{Pipeline: "demo", Product: "gateway", Stage: "dev"}
		change(&want)
		if _, text, err := w.CreateToken(t.Context(), op, want); release.CodeOf(err) == "" || text != "" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if err := w.RevokeToken(t.Context(), op, ""); release.CodeOf(err) != release.NotFound {
		t.Errorf("revoked nothing: %v", err)
	}
}

// A delivery is registered at once, and its devices enrol one after the other.
func TestALongListIsRegistered(t *testing.T) {
	w := newWorld(t)
	list := make([]fleet.Registration, 50_000)
	for i := range list {
		list[i] = fleet.Registration{Serial: fmt.Sprint("SN-", i), Name: fmt.Sprint("gw-", i), Pipeline: "demo", Product: "gateway", Stage: "dev"}
	}
	begin := time.Now()
	must1(w.Register(t.Context(), op, list))
	d := must1(rig.NewDevice("SN-49999"))
	if must(t, w.enrol(d, "")); d.Enrolled.Device != "gw-49999" {
		t.Errorf("%+v", d.Enrolled)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}
