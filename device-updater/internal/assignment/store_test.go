package assignment

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

func open(t *testing.T, dir string, clock *Clock) *Store {
	t.Helper()
	s, err := Open(dir, me, func() Clock { return *clock })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func accept(t *testing.T, s *Store, a protocol.Assignment) (changed bool) {
	t.Helper()
	changed, err := s.Accept(signed(t, a))
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// TestDamage: whatever happens to one of the two files, nothing older than what
// was accepted is accepted afterwards, and the same is.
func TestDamage(t *testing.T) {
	older := good(func(a *protocol.Assignment) { a.Counter = 4 })
	other := good(func(a *protocol.Assignment) { a.Stage = "canary" })
	damages := map[string]func(path string) error{
		"lost":  os.Remove,
		"torn":  func(path string) error { return os.Truncate(path, 20) },
		"empty": func(path string) error { return os.Truncate(path, 0) },
		"zeros": func(path string) error { return os.WriteFile(path, make([]byte, 100), 0o600) },
		"other": func(path string) error { return os.WriteFile(path, []byte(`{"counter":1}`), 0o600) },
	}
	for name, damage := range damages {
		for _, file := range []string{signedFile, floorFile} {
			clock := right
			dir := t.TempDir()
			accept(t, open(t, dir, &clock), good(nil))
			if err := damage(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, &clock)
			counter, content, _ := s.Have()
			a, against := s.Current()
			if counter != 5 || (file == floorFile) != (content != "") || (a != nil) != (content != "") || (a == nil) != (against != "") {
				t.Errorf("%s, %s: counter %d, content %q, %+v %q", file, name, counter, content, a, against)
			}
			for what, bad := range map[string]protocol.Assignment{"an older one": older, "another one": other} {
				var refusal *Refusal
				if _, err := s.Accept(signed(t, bad)); !errors.As(err, &refusal) || refusal.Reason != Counter {
					t.Errorf("%s, %s: %s: %v", file, name, what, err)
				}
			}
			if changed := accept(t, s, good(nil)); changed != (a == nil) {
				t.Errorf("%s, %s: the same one: changed %v", file, name, changed)
			}
			if a, against := open(t, dir, &clock).Current(); a == nil || against != "" {
				t.Errorf("%s, %s: afterwards %+v %q", file, name, a, against)
			}
		}
	}
}

// TestNothingIsLeft: without both files nothing would keep old assignments out. A
// device that never had an assignment has neither.
func TestNothingIsLeft(t *testing.T) {
	clock := right
	dir := t.TempDir()
	accept(t, open(t, dir, &clock), good(nil))
	for _, name := range []string{signedFile, floorFile} {
		if err := os.Truncate(filepath.Join(dir, name), 10); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, me, func() Clock { return clock }); err == nil || !strings.Contains(err.Error(), "which assignments are old") {
		t.Errorf("%v", err)
	}
	if counter, content, _ := open(t, t.TempDir(), &clock).Have(); counter != 0 || content != "" {
		t.Errorf("a new device has %d %q", counter, content)
	}
}

// TestCutBetweenTheFiles: the assignment is there and its floor is not.
func TestCutBetweenTheFiles(t *testing.T) {
	clock := right
	dir := t.TempDir()
	s := open(t, dir, &clock)
	accept(t, s, good(nil))
	before, err := os.ReadFile(filepath.Join(dir, floorFile))
	if err != nil {
		t.Fatal(err)
	}
	accept(t, s, good(func(a *protocol.Assignment) { a.Counter = 6 }))
	if err := os.WriteFile(filepath.Join(dir, floorFile), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if counter, _, _ := open(t, dir, &clock).Have(); counter != 6 {
		t.Errorf("counter %d", counter)
	}
	after, err := os.ReadFile(filepath.Join(dir, floorFile))
	if err != nil || string(after) == string(before) {
		t.Errorf("the floor was not raised: %s %v", after, err)
	}
}

// TestAnOldAssignmentIsPutBack: the floor keeps it out.
func TestAnOldAssignmentIsPutBack(t *testing.T) {
	clock := right
	dir := t.TempDir()
	s := open(t, dir, &clock)
	accept(t, s, good(nil))
	old, err := os.ReadFile(filepath.Join(dir, signedFile))
	if err != nil {
		t.Fatal(err)
	}
	accept(t, s, good(func(a *protocol.Assignment) { a.Counter = 6 }))
	if err := os.WriteFile(filepath.Join(dir, signedFile), old, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, &clock)
	if a, _ := s.Current(); a != nil {
		t.Errorf("it follows %d", a.Counter)
	}
	if counter, content, _ := s.Have(); counter != 6 || content != "" {
		t.Errorf("it has %d %q", counter, content)
	}
}

// TestAnotherServer: counters are of one enrolment.
func TestAnotherServer(t *testing.T) {
	clock := right
	dir := t.TempDir()
	accept(t, open(t, dir, &clock), good(nil))
	other := me
	other.Pinned = public(newKey(7))
	s, err := Open(dir, other, func() Clock { return clock })
	if err != nil {
		t.Fatal(err)
	}
	if counter, _, _ := s.Have(); counter != 0 {
		t.Errorf("counter %d of another server", counter)
	}
	if a, _ := s.Current(); a != nil {
		t.Errorf("it follows an assignment of another server")
	}
}

// TestRenewal: a later expiry counts, an earlier one that comes again does not.
func TestRenewal(t *testing.T) {
	clock := right
	s := open(t, t.TempDir(), &clock)
	longer := good(func(a *protocol.Assignment) { a.Expires = a.Expires.Add(24 * time.Hour) })
	for i, c := range []struct {
		a       protocol.Assignment
		changed bool
		expires time.Time
	}{{good(nil), true, good(nil).Expires}, {longer, false, longer.Expires}, {good(nil), false, longer.Expires}} {
		changed := accept(t, s, c.a)
		if _, _, expires := s.Have(); changed != c.changed || !expires.Equal(c.expires) {
			t.Errorf("%d: changed %v, expires %s", i, changed, expires)
		}
	}
	// What had expired can be followed again.
	clock.Now = longer.Expires.Add(time.Hour)
	if _, against := s.Current(); !strings.Contains(against, "expired at 2026-11-28") {
		t.Errorf("%q", against)
	}
	renewed := good(func(a *protocol.Assignment) { a.Issued, a.Expires = clock.Now, clock.Now.Add(time.Hour) })
	if !accept(t, s, renewed) {
		t.Error("nobody is told that it can go on")
	}
	if _, against := s.Current(); against != "" {
		t.Errorf("%q", against)
	}
	// An expired one is what it was after a restart, and is not followed.
	clock.Now = clock.Now.Add(2 * time.Hour)
	if a, against := open(t, s.dir, &clock).Current(); a == nil || against == "" {
		t.Errorf("%+v %q", a, against)
	}
	// What a wrong clock may have to do with it, the same all day.
	clock = Clock{Now: clock.Now.AddDate(30, 0, 0)}
	_, first := open(t, s.dir, &clock).Current()
	clock.Now = clock.Now.Add(time.Minute)
	_, second := open(t, s.dir, &clock).Current()
	if !strings.Contains(first, "the clock of this device says "+clock.Now.Format(time.DateOnly)) || first != second {
		t.Errorf("%q, then %q", first, second)
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		hold  protocol.Hold
		clock Clock
		want  string
	}{
		{protocol.Hold{Reason: "fair"}, right, "it is held: fair"},
		{protocol.Hold{Reason: "fair", By: "vera"}, right, "it is held by vera: fair"},
		{protocol.Hold{Reason: "fair", Until: now.Add(time.Hour)}, right, "it is held until 2026-11-20T13:00:00Z: fair"},
		{protocol.Hold{Reason: "fair", Until: now}, right, ""},
		{protocol.Hold{Reason: "fair", Until: now}, Clock{Now: time.Unix(0, 0)}, "it is held until 2026-11-20T12:00:00Z: fair"},
		{protocol.Hold{Reason: "fair", Until: now}, Clock{Now: time.Unix(0, 0), Floor: now}, ""},
	} {
		s := open(t, t.TempDir(), &c.clock)
		accept(t, s, good(func(a *protocol.Assignment) { a.Hold = &c.hold }))
		if _, against := s.Current(); against != c.want {
			t.Errorf("%+v: %q, want %q", c.hold, against, c.want)
		}
	}
}

// TestRefusalsAreRemembered until there is something better.
func TestRefusalsAreRemembered(t *testing.T) {
	clock := right
	s := open(t, t.TempDir(), &clock)
	if _, err := s.Accept(signed(t, good(func(a *protocol.Assignment) { a.Product = "camera" }))); err == nil {
		t.Fatal("it was accepted")
	}
	if r := s.Refused(); r == nil || r.Reason != Product || r.Counter != 5 || r.Report().Reason != "product" {
		t.Errorf("%+v", r)
	}
	accept(t, s, good(nil))
	if r := s.Refused(); r != nil || r.Report() != nil {
		t.Errorf("%+v", r)
	}
	s.Refuse(Refuse(BOM, "it is another"))
	accept(t, s, good(nil))
	if r := s.Refused(); r == nil || r.Reason != BOM {
		t.Errorf("what it names was forgotten: %+v", r)
	}
	s.Refuse(nil)
	if r := s.Refused(); r != nil {
		t.Errorf("%+v", r)
	}
}

// TestAFullDisk: what cannot be kept is not followed.
func TestAFullDisk(t *testing.T) {
	clock := right
	dir := filepath.Join(t.TempDir(), "gone")
	s := open(t, dir, &clock)
	if _, err := s.Accept(signed(t, good(nil))); err == nil {
		t.Error("it was accepted without being kept")
	}
	if a, _ := s.Current(); a != nil {
		t.Errorf("it is followed: %+v", a)
	}
}
