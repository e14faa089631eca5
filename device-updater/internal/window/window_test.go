package window_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/window"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// 2026-11-20 is a Friday.
func TestOpenAndNext(t *testing.T) {
	for _, c := range []struct {
		window, now string
		next        string // "": it is open
	}{
		{"", "2026-11-20 12:00:00", ""},
		{"02:00-04:00", "2026-11-20 01:59:59", "2026-11-20 02:00:00"},
		{"02:00-04:00", "2026-11-20 02:00:00", ""},
		{"02:00-04:00", "2026-11-20 03:59:59", ""},
		{"02:00-04:00", "2026-11-20 04:00:00", "2026-11-21 02:00:00"},
		{"22:00-02:00", "2026-11-20 23:30:00", ""},
		{"22:00-02:00", "2026-11-20 01:30:00", ""},
		{"22:00-02:00", "2026-11-20 02:00:00", "2026-11-20 22:00:00"},
		{"fri 22:00-02:00", "2026-11-20 01:30:00", "2026-11-20 22:00:00"},
		{"fri 22:00-02:00", "2026-11-21 01:30:00", ""},
		{"fri 22:00-02:00", "2026-11-21 22:30:00", "2026-11-27 22:00:00"},
		{"fri 12:00-13:00", "2026-11-20 13:00:00", "2026-11-27 12:00:00"},
		{"sat-mon 00:00-24:00", "2026-11-20 12:00:00", "2026-11-21 00:00:00"},
		{"sat-mon 00:00-24:00", "2026-11-23 23:59:59", ""},
		{"sat-mon 00:00-24:00", "2026-11-24 00:00:00", "2026-11-28 00:00:00"},
		{"Mon-Thu 01:00-02:00;  sat,sun 03:00-05:00", "2026-11-20 12:00:00", "2026-11-21 03:00:00"},
		{"mon-sun 08:00-24:00", "2026-11-20 07:00:00", "2026-11-20 08:00:00"},
	} {
		w, err := window.Parse(c.window)
		if err != nil {
			t.Fatal(err)
		}
		now := at(t, c.now)
		want := now
		if c.next != "" {
			want = at(t, c.next)
		}
		if w.Open(now) != (c.next == "") || !w.Next(now).Equal(want) {
			t.Errorf("%q at %s: open %v, next %s; want %s", w, c.now, w.Open(now), w.Next(now), want)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, says := range map[string]string{
		"now": "no end", "02:00": "no end", "02:00-02:00": "no time", "24:00-02:00": "no time", "2:00-04:00": "2:00", "02:00-25:00": "25:00", "02:60-04:00": "02:60",
		"funday 02:00-04:00": "funday", "mon- 02:00-04:00": "mon-", "mon tue 02:00-04:00": "days and a time", "02:00-04:00;": "days and a time", "02:00-04:00-06:00": "04:00-06:00",
	} {
		if w, err := window.Parse(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, %v", text, w, err)
		}
	}
}

// TestSummerTime: an hour that is missing or comes twice neither hides the
// other days nor keeps Next from ending.
func TestSummerTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	w, err := window.Parse("02:00-03:00")
	if err != nil {
		t.Fatal(err)
	}
	// 2026-03-29 02:00 does not exist there.
	for now := time.Date(2026, 3, 28, 12, 0, 0, 0, berlin); now.Before(time.Date(2026, 3, 30, 1, 59, 0, 0, berlin)); now = now.Add(time.Minute) {
		if w.Open(now) {
			t.Fatalf("open at %s", now)
		}
	}
	if now := time.Date(2026, 3, 30, 2, 30, 0, 0, berlin); !w.Open(now) {
		t.Errorf("closed at %s", now)
	}
	// 2026-10-25 02:30 comes twice.
	open := 0
	for now := time.Date(2026, 10, 25, 0, 0, 0, 0, berlin); now.Day() == 25; now = now.Add(time.Minute) {
		if w.Open(now) {
			open++
		}
	}
	if open != 120 {
		t.Errorf("open for %d minutes", open)
	}
}

// TestNextIsTheFirstMoment: it is open then, and closed at every minute before.
func TestNextIsTheFirstMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := rapid.StringMatching(`([01][0-9]|2[0-3]):[0-5][0-9]`)
		days := rapid.SampledFrom([]string{"", "fri ", "sat,sun ", "mon-fri ", "sun-tue,thu "})
		text := days.Draw(t, "days") + clock.Draw(t, "from") + "-" + clock.Draw(t, "to")
		w, err := window.Parse(text)
		if err != nil {
			return // from and to are the same
		}
		now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.IntRange(0, 7*24*60).Draw(t, "now")) * time.Minute)
		next := w.Next(now)
		if !w.Open(next) {
			t.Fatalf("%q: closed at %s", text, next)
		}
		for ; now.Before(next); now = now.Add(time.Minute) {
			if w.Open(now) {
				t.Fatalf("%q: open at %s, before %s", text, now, next)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"02:00-04:00", "mon-fri 22:00-02:00; sat,sun 00:00-24:00", "sun-sat 00:00-00:01", ";;", "mon, 1-2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := window.Parse(text)
		if err != nil || w.IsZero() {
			return
		}
		again, err := window.Parse(w.String())
		now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
		if err != nil || !again.Next(now).Equal(w.Next(now)) || !w.Open(w.Next(now)) {
			t.Errorf("%q: %v, %s and %s", text, err, w.Next(now), again.Next(now))
		}
	})
}
