package term

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"aptfleet/internal/protocol"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func fake(terminal, colour bool) (*IO, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return &IO{
		Out: &out, Err: &errs, OutTerminal: terminal, ErrTerminal: terminal,
		Colour: colour, Now: func() time.Time { return noon },
	}, &out, &errs
}

func fill(t *IO) {
	table := t.NewTable("stage", "state", "since", "size", "by")
	table.Row("dev", ID(strings.Repeat("ab", 32)), noon.Add(-72*time.Hour), Bytes(1_234_567), Styled{"ci", Good})
	table.Row("production", ID(""), time.Time{}, Bytes(0), "")
	table.Print("no stages")
}

func TestTable(t *testing.T) {
	id := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name             string
		terminal, colour bool
		want             string
	}{
		{"pipe", false, true, "dev\t" + id + "\t2026-11-17T12:00:00Z\t1234567\tci\nproduction\t\t\t0\t\n"},
		{"terminal", true, false, "" +
			"STAGE       STATE         SINCE       SIZE    BY\n" +
			"dev         abababababab  3 days ago  1.2 MB  ci\n" +
			"production                            0 B\n"},
		{"colour", true, true, "" +
			"\x1b[2mSTAGE\x1b[0m       \x1b[2mSTATE\x1b[0m         \x1b[2mSINCE\x1b[0m       \x1b[2mSIZE\x1b[0m    \x1b[2mBY\x1b[0m\n" +
			"dev         abababababab  3 days ago  1.2 MB  \x1b[32mci\x1b[0m\n" +
			"production                            0 B\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			io, out, _ := fake(c.terminal, c.colour)
			fill(io)
			if out.String() != c.want {
				t.Errorf("got\n%q\nwant\n%q", out, c.want)
			}
		})
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	for width, want := range map[int]string{
		0:  "NAME  NOTE\na     a long explanation of it\n",
		30: "NAME  NOTE\na     a long explanation of it\n",
		29: "NAME  NOTE\na     a long explanation of …\n",
		18: "NAME  NOTE\na     a long expl…\n",
		17: "NAME  NOTE\na     a long explanation of it\n", // too narrow to be worth it
	} {
		io, out, _ := fake(true, false)
		io.Width = width
		table := io.NewTable("name", "note")
		table.Row("a", "a long explanation of it")
		table.Print("")
		if out.String() != want {
			t.Errorf("width %d: %q, want %q", width, out, want)
		}
	}
}

func TestEmptyTable(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		io, out, errs := fake(terminal, false)
		io.NewTable("name").Print("no snapshots yet")
		want := ""
		if terminal {
			want = "no snapshots yet\n"
		}
		if out.Len() != 0 || errs.String() != want {
			t.Errorf("terminal %v: stdout %q, stderr %q", terminal, out, errs)
		}
	}
}

func TestFacts(t *testing.T) {
	facts := []Fact{{"id", "20261120T101500Z"}, {"packages", 12}, {"note", ""}, {"created", noon.Add(-time.Hour)}}
	io, out, _ := fake(true, false)
	io.Facts(facts...)
	if want := "id        20261120T101500Z\npackages  12\ncreated   1 hour ago\n"; out.String() != want {
		t.Errorf("terminal: %q", out)
	}
	io, out, _ = fake(false, false)
	io.Facts(facts...)
	if want := "id\t20261120T101500Z\npackages\t12\ncreated\t2026-11-20T11:00:00Z\n"; out.String() != want {
		t.Errorf("pipe: %q", out)
	}
}

// TestFactsBreakBetweenWords: a long sentence stays beside its name, and a word
// that somebody will copy stays whole.
func TestFactsBreakBetweenWords(t *testing.T) {
	io, out, _ := fake(true, false)
	io.Width = 46
	io.Facts(Fact{"why not", "it waits for https://a.example/a/very/long/path/indeed and goes on after that"}, Fact{"note", "short"})
	want := `why not  it waits for
         https://a.example/a/very/long/path/indeed
         and goes on after that
note     short
`
	if out.String() != want {
		t.Errorf("terminal:\n%s", out)
	}
}

// TestAWholeTable: reasons can be read to their end.
func TestAWholeTable(t *testing.T) {
	for width, want := range map[int]string{
		50: "ID  WHY\n1   the journal of the application says that it\n    cannot find its table of readings\n22  no\n",
		20: "ID  WHY\n1   the journal of the application says that it cannot find its table of readings\n22  no\n",
	} {
		io, out, _ := fake(true, false)
		io.Width = width
		table := io.NewTable("id", "why").Whole()
		table.Row(1, "the journal of the application says that it cannot find its table of readings")
		table.Row(22, "no")
		table.Print("")
		if out.String() != want {
			t.Errorf("%d columns:\n%s", width, out)
		}
	}
}

func TestAgo(t *testing.T) {
	for _, c := range []struct {
		before time.Duration
		want   string
	}{
		{0, "just now"},
		{9 * time.Second, "just now"},
		{10 * time.Second, "10 seconds ago"},
		{time.Minute, "1 minute ago"},
		{119 * time.Minute, "1 hour ago"},
		{47 * time.Hour, "1 day ago"},
		{72 * time.Hour, "3 days ago"},
		{65 * 24 * time.Hour, "2 months ago"},
		{800 * 24 * time.Hour, "2 years ago"},
		{-5 * time.Minute, "in 5 minutes"},
	} {
		if got := Ago(noon, noon.Add(-c.before)); got != c.want {
			t.Errorf("Ago(%v) = %q, want %q", c.before, got, c.want)
		}
	}
}

func TestHumanBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB",
		1_234_567: "1.2 MB", 5_000_000_000_000: "5.0 TB", 1<<63 - 1: "9.2 EB",
	} {
		if got := HumanBytes(n); got != want {
			t.Errorf("HumanBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "two\nlines", "\x1b[2Jgone", "\xff\xfe", "schön", "\u202eabc", "tab\there"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("Printable(%q) = %q holds %q", s, got, r)
			}
		}
		if again := Printable(got); again != got {
			t.Fatalf("Printable(%q) = %q, of that again %q", s, got, again)
		}
	})
}

type coded struct{ error }

func (coded) ExitCode() int     { return ExitLocked }
func (coded) ErrorCode() string { return "locked" }
func (coded) NextStep() string  { return "repo-manager changes" }

func TestFail(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		exit int
		text string
		json protocol.Error
	}{
		{"plain", errors.New("cannot read a: gone"), 1, "p: cannot read a: gone\n",
			protocol.Error{Code: "failed", Text: "cannot read a: gone"}},
		{"usage", Usagef("unknown flag: --x"), 2, "p: unknown flag: --x\n",
			protocol.Error{Code: "usage", Text: "unknown flag: --x"}},
		{"wrapped", fmt.Errorf("cannot go on: %w", coded{errors.New("busy")}), 11, "p: cannot go on: busy\nhint: repo-manager changes\n",
			protocol.Error{Code: "locked", Text: "cannot go on: busy", Hint: "repo-manager changes"}},
		{"hinted", WithHint(errors.New("no"), "try yes"), 1, "p: no\nhint: try yes\n",
			protocol.Error{Code: "failed", Text: "no", Hint: "try yes"}},
		{"interrupted", fmt.Errorf("cannot wait: %w", context.Canceled), 130, "p: cannot wait: interrupted\n",
			protocol.Error{Code: "interrupted", Text: "cannot wait: interrupted"}},
		{"escaped", errors.New("bad name \x1b[2J"), 1, "p: bad name \\x1b[2J\n",
			protocol.Error{Code: "failed", Text: "bad name \x1b[2J"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			io, out, errs := fake(false, true)
			if got := io.Fail("p", c.err); got != c.exit {
				t.Errorf("exit %d, want %d", got, c.exit)
			}
			if errs.String() != c.text || out.Len() != 0 {
				t.Errorf("stderr %q, stdout %q", errs, out)
			}
			io, out, errs = fake(false, true)
			io.JSON = true
			io.Fail("p", c.err)
			var body protocol.ErrorBody
			if err := json.Unmarshal(errs.Bytes(), &body); err != nil || out.Len() != 0 {
				t.Fatalf("stderr %q, stdout %q: %v", errs, out, err)
			}
			if body.Error != c.json {
				t.Errorf("json %+v, want %+v", body.Error, c.json)
			}
		})
	}
	io, _, errs := fake(true, true)
	if got := io.Fail("p", Status(77)); got != 77 || errs.Len() != 0 {
		t.Errorf("Status(77): exit %d, stderr %q", got, errs)
	}
	if got := io.Fail("p", nil); got != 0 || errs.Len() != 0 {
		t.Errorf("nil: exit %d, stderr %q", got, errs)
	}
}

func TestLostResultsAreAFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	io, _, errs := fake(false, false)
	io.Out = &keeper{w: full}
	io.Say("a result")
	if code := io.Fail("p", nil); code != ExitFailed || !strings.Contains(errs.String(), "cannot write the result: ") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestProgress(t *testing.T) {
	clock := noon
	at := func(terminal bool) (*Progress, *bytes.Buffer) {
		io, _, errs := fake(terminal, false)
		io.Now = func() time.Time { return clock }
		return io.NewProgress("upload", 2_000_000, "bytes"), errs
	}
	p, errs := at(true)
	p.Add(1)
	if errs.Len() != 0 {
		t.Errorf("shown at once: %q", errs)
	}
	clock = clock.Add(3 * time.Second)
	p.Add(999_999)
	p.Add(1)
	p.Finish()
	if want := "\r\x1b[Kupload: 1.0 MB of 2.0 MB (50 %)\r\x1b[K"; errs.String() != want {
		t.Errorf("terminal: %q, want %q", errs, want)
	}
	p, errs = at(false)
	for range 25 {
		clock = clock.Add(time.Second)
		p.Add(1000)
	}
	p.Finish()
	if got := strings.Count(errs.String(), "\n"); got != 3 {
		t.Errorf("log: %d lines in 25 seconds, want 3: %q", got, errs)
	}
}

func TestColourFollowsTheEnvironment(t *testing.T) {
	for env, want := range map[string]bool{"": true, "NO_COLOR=1": false, "TERM=dumb": false} {
		got := System(func(name string) string {
			if key, value, _ := strings.Cut(env, "="); key == name {
				return value
			}
			return ""
		}).Colour
		if got != want {
			t.Errorf("with %q colour is %v", env, got)
		}
	}
}
