package deb_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
)

func parse(t testing.TB, text string) deb.Stanza {
	t.Helper()
	s, err := deb.ParseStanza([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStanzaKeepsItsBytes(t *testing.T) {
	const text = "Package:  hello\nDepends: a,\n\tb ,\n  c\nX-Odd:\nDescription: short  \n long\n .\n  indented\n"
	s := parse(t, "\n \n"+text+"\n\n")
	if string(s.Bytes()) != text {
		t.Errorf("got %q", s.Bytes())
	}
	for field, want := range map[string]string{
		"package": "hello", "DEPENDS": "a,\n\tb ,\n  c", "X-Odd": "", "Absent": "", "Description": "short  \n long\n .\n  indented",
	} {
		if got := s.Get(field); got != want {
			t.Errorf("Get(%s) = %q, want %q", field, got, want)
		}
	}
	if !s.Has("x-odd") || s.Has("Absent") {
		t.Error("Has is wrong about X-Odd or Absent")
	}
	var names []string
	for name := range s.Fields() {
		names = append(names, name)
	}
	if got := strings.Join(names, " "); got != "Package Depends X-Odd Description" {
		t.Errorf("fields are %s", got)
	}
}

func TestStanzaWithAndWithout(t *testing.T) {
	s := parse(t, "A: 1\nB: 2\n more\nC: 3")
	for _, test := range []struct {
		got  deb.Stanza
		want string
	}{
		{s.With("b", "x"), "A: 1\nb: x\nC: 3\n"},
		{s.With("D", "4\n more"), "A: 1\nB: 2\n more\nC: 3\nD: 4\n more\n"},
		{s.With("C", ""), "A: 1\nB: 2\n more\nC:\n"},
		{s.With("C", "\n 1\n 2"), "A: 1\nB: 2\n more\nC:\n 1\n 2\n"},
		{s.Without("B"), "A: 1\nC: 3\n"},
		{s.Without("nothing"), "A: 1\nB: 2\n more\nC: 3\n"},
		{s, "A: 1\nB: 2\n more\nC: 3\n"},
		{deb.Stanza{}.With("A", "1"), "A: 1\n"},
	} {
		if string(test.got.Bytes()) != test.want {
			t.Errorf("got %q, want %q", test.got.Bytes(), test.want)
		}
	}
}

func TestParseStanzaRefuses(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":               {"", "it is empty"},
		"blank lines":           {"\n\n \n", "it is empty"},
		"prose":                 {"this is no control file\n", "line 1: \"this is no control file\" is no field"},
		"a second paragraph":    {"A: 1\n\nB: 2\n", "a second paragraph"},
		"a twin":                {"A: 1\nb: 2\na: 3\n", "line 3: the field a occurs twice"},
		"a continuation first":  {" more\nA: 1\n", "line 1: a continuation line before the first field"},
		"a comment":             {"# x: y\n", "cannot start with '#'"},
		"a space in the name":   {"A B: 1\n", "' ' is not allowed"},
		"an empty name":         {": 1\n", "is no field"},
		"a NUL":                 {"A: 1\x00\n", "control character 0x00"},
		"an escape":             {"A: \x1b[2J\n", "control character 0x1b"},
		"a carriage return":     {"A: 1\r\n", "control character 0x0d"},
		"a NUL in continuation": {"A: 1\n \x00\n", "line 2: the control character 0x00"},
		"a line of spaces":      {"A: 1\n  \n more\n", "line 2: a line of spaces"},
		"too many fields":       {manyFields(300), "more than 256 fields"},
		"too many bytes":        {"A: " + strings.Repeat("x", deb.MaxStanza) + "\n", "more than 1048576 bytes"},
	} {
		_, err := deb.ParseStanza([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func manyFields(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("F" + strings.Repeat("x", i) + ": 1\n")
	}
	return b.String()
}

func TestStanzaReader(t *testing.T) {
	const text = "\nA: 1\n\n\n\nB: 2\n more\n\nC: 3"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text))} {
		sr := deb.NewStanzaReader(r, 100)
		var got []string
		for {
			s, err := sr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, string(s.Bytes()))
		}
		if strings.Join(got, "|") != "A: 1\n|B: 2\n more\n|C: 3\n" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	sr := deb.NewStanzaReader(io.MultiReader(strings.NewReader("A: 1\n"), iotest.ErrReader(errors.New("the disk broke"))), 100)
	for range 2 {
		if _, err := sr.Next(); err == nil || !strings.Contains(err.Error(), "the disk broke") {
			t.Errorf("a failing source: %v", err)
		}
	}
}

// TestStanzaRoundTrip: whatever parses is written back as it was, and setting
// a field changes no other.
func TestStanzaRoundTrip(t *testing.T) {
	fields := rapid.MapOf(rapid.StringMatching(`[A-Z][a-zA-Z0-9-]{0,6}`), rapid.StringMatching(`[ a-z(),.:=|~]{0,12}(\n [a-z.]{1,5}){0,2}`))
	rapid.Check(t, func(t *rapid.T) {
		var s deb.Stanza
		for name, value := range fields.Draw(t, "fields") {
			s = s.With(name, strings.TrimSpace(value))
		}
		if len(s.Bytes()) == 0 {
			return
		}
		parsed, err := deb.ParseStanza(s.Bytes())
		if err != nil {
			t.Fatalf("%q: %v", s.Bytes(), err)
		}
		if !bytes.Equal(parsed.Bytes(), s.Bytes()) {
			t.Fatalf("%q became %q", s.Bytes(), parsed.Bytes())
		}
		changed := parsed.With("Zz-New", "1")
		for name, value := range parsed.Fields() {
			if !strings.EqualFold(name, "Zz-New") && changed.Get(name) != value {
				t.Fatalf("%s changed from %q to %q", name, value, changed.Get(name))
			}
		}
	})
}

func TestParseRelations(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "",
		" \n ":                            "",
		"aa":                              "aa",
		"aa,bb | cc":                      "aa; bb | cc",
		"aa (>= 1:2.0-3~), bb:any":        "aa (>= 1:2.0-3~); bb:any",
		"aa\n (<<2) ,\n\tbb(=1)":          "aa (<< 2); bb (= 1)",
		"aa (< 1), bb (> 2)":              "aa (<= 1); bb (>= 2)",
		"aa:amd64 (>> 1)":                 "aa:amd64 (>> 1)",
		"aa [amd64 !i386] <!nocheck> <x>": "aa [amd64 !i386] <!nocheck> <x>",
		"libc++1.2-dev (= 1.0-1)":         "libc++1.2-dev (= 1.0-1)",
	} {
		groups, err := deb.ParseRelations(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := render(groups); got != want {
			t.Errorf("%q was read as %q, want %q", text, got, want)
		}
		again, err := deb.ParseRelations(strings.ReplaceAll(want, ";", ","))
		if err != nil || render(again) != want {
			t.Errorf("%q does not come back: %q, %v", want, render(again), err)
		}
	}
	for _, bad := range []string{",", "aa,", "| aa", "aa |", "a", "Aa", "aa (1)", "aa (>= )", "aa (>= 1", "aa (!= 1)", "aa (>= 1) x", "aa bb", "aa []", "aa [amd64", "aa <", "aa <>", "aa:", "aa:any-any:", "aa (=1_0)", "aa\x00", "../aa"} {
		if groups, err := deb.ParseRelations(bad); err == nil {
			t.Errorf("%q was read as %q", bad, render(groups))
		}
	}
}

func render(groups [][]deb.Relation) string {
	var all []string
	for _, group := range groups {
		var one []string
		for _, r := range group {
			one = append(one, r.String())
		}
		all = append(all, strings.Join(one, " | "))
	}
	return strings.Join(all, "; ")
}

func TestNames(t *testing.T) {
	for _, good := range []string{"aa", "0ad", "libstdc++6", "g++-12", "a.b-c+d"} {
		if err := deb.ValidPackageName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a", "A", "Aa", "-aa", ".aa", "a_b", "a/b", "../x", "a b", "a\n", "a\x1b", "ä", strings.Repeat("a", 129)} {
		if deb.ValidPackageName(bad) == nil {
			t.Errorf("the name %q was accepted", bad)
		}
	}
	for _, good := range []string{"all", "amd64", "arm64", "hurd-i386", "musl-linux-amd64"} {
		if err := deb.ValidArchitecture(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "any", "linux-any", "any-amd64", "source", "amd 64", "amd64\n", "../..", "AMD64", strings.Repeat("a", 129)} {
		if deb.ValidArchitecture(bad) == nil {
			t.Errorf("the architecture %q was accepted", bad)
		}
	}
	for _, test := range [][4]string{{"hello", "1:2.0-1", "all", "hello_2.0-1_all.deb"}, {"hello", "2.0", "amd64", "hello_2.0_amd64.deb"}, {"hello", "1:2:3", "all", "hello_2:3_all.deb"}} {
		if got := deb.FileName(test[0], test[1], test[2]); got != test[3] {
			t.Errorf("FileName(%s, %s, %s) = %s, want %s", test[0], test[1], test[2], got, test[3])
		}
	}
}

func FuzzStanza(f *testing.F) {
	f.Add([]byte("Package: a\nDescription: x\n y\n .\n"))
	f.Add([]byte("\n\nA:\n\tb\n\nC: d"))
	f.Add([]byte("A: \x00\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sr, inText := deb.NewStanzaReader(bytes.NewReader(data), 1<<16), deb.StanzasOf(data, 1<<16)
		for {
			s, err := sr.Next()
			if other, otherErr := inText.Next(); !bytes.Equal(other.Bytes(), s.Bytes()) || fmt.Sprint(otherErr) != fmt.Sprint(err) {
				t.Fatalf("in memory %q, %v; as a file %q, %v", other.Bytes(), otherErr, s.Bytes(), err)
			}
			if err != nil {
				return
			}
			if b := s.Bytes(); len(b) == 0 || b[len(b)-1] != '\n' || bytes.Contains(b, []byte("\n\n")) {
				t.Fatalf("bad bytes %q", b)
			}
			again, err := deb.ParseStanza(s.Bytes())
			if err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) {
				t.Fatalf("%q does not come back: %v", s.Bytes(), err)
			}
			if without := s.With("Fuzz-Added", "1").Without("Fuzz-Added"); !s.Has("Fuzz-Added") && !bytes.Equal(without.Bytes(), s.Bytes()) {
				t.Fatalf("%q became %q", s.Bytes(), without.Bytes())
			}
		}
	})
}

func FuzzRelations(f *testing.F) {
	f.Add("aa (>= 1), bb:any | cc [amd64] <!x>")
	f.Add("aa,")
	f.Fuzz(func(t *testing.T, text string) {
		groups, err := deb.ParseRelations(text)
		if err != nil {
			return
		}
		rendered := strings.ReplaceAll(render(groups), ";", ",")
		again, err := deb.ParseRelations(rendered)
		if err != nil || render(again) != render(groups) {
			t.Fatalf("%q was read as %q, which is read as %q (%v)", text, rendered, render(again), err)
		}
	})
}
