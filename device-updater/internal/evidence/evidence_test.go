package evidence

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"aptfleet/internal/protocol"
)

func one(from, text string) []protocol.Excerpt { return []protocol.Excerpt{{From: from, Text: text}} }

func TestTake(t *testing.T) {
	var many strings.Builder
	for i := range 80 {
		fmt.Fprintf(&many, "line %d\n", i)
	}
	if got := Take("a", many.String()); strings.Count(got[0].Text, "\n") != 49 || !strings.HasPrefix(got[0].Text, "line 30\n") || !strings.HasSuffix(got[0].Text, "line 79") {
		t.Errorf("%q", got)
	}
	for text, want := range map[string]string{
		"one line":                    "one line",
		"red \x1b[31mline\x1b[0m\r\n": "red ?[31mline?[0m?",
		"bad \xff utf-8 \u202e":       "bad ? utf-8 ?",
		"\tindented\n\n":              "indented",
	} {
		if got := Take("a", text); fmt.Sprint(got) != fmt.Sprint(one("a", want)) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Take("a", " \n\n"); got != nil {
		t.Errorf("nothing: %q", got)
	}
}

// TestBound: whatever the texts, they fit, and are ends of what they were.
func TestBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lengths := rapid.SliceOfN(rapid.IntRange(0, 3*protocol.MaxEvidence), 0, 5).Draw(t, "lengths")
		var all []protocol.Excerpt
		sum := 0
		for i, n := range lengths {
			text := strings.Repeat(rapid.SampledFrom([]string{"x", "é", "abc\n", "\n"}).Draw(t, "text"), n/2)
			all = append(all, protocol.Excerpt{From: fmt.Sprint(i), Text: text})
			sum += len(text)
		}
		got, total := Bound(all), 0
		for _, e := range got {
			total += len(e.Text)
			var i int
			if _, err := fmt.Sscan(e.From, &i); err != nil {
				t.Fatal(err)
			}
			if !utf8.ValidString(e.Text) || !strings.HasSuffix(all[i].Text, e.Text) {
				t.Errorf("%q is not the end of what it was", e.Text)
			}
		}
		if total > protocol.MaxEvidence || sum <= protocol.MaxEvidence && total != sum {
			t.Errorf("%d bytes of %d are kept", total, sum)
		}
	})
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("y", 1<<20)+"\nlast\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := File("a", path); len(got) != 1 || got[0].Text != "last" && !strings.HasSuffix(got[0].Text, "y\nlast") || len(got[0].Text) > protocol.MaxEvidence {
		t.Errorf("%q", got)
	}
	if got := File("a", path+"-none"); got != nil {
		t.Errorf("%q", got)
	}
}

func TestKernel(t *testing.T) {
	root := t.TempDir()
	began := time.Now().Add(-time.Hour)
	for name, at := range map[string]time.Time{
		"var/lib/systemd/pstore/1/dmesg.txt":  began.Add(-time.Minute), // before the trial
		"var/lib/systemd/pstore/2/dmesg.txt":  began.Add(time.Minute),
		"sys/fs/pstore/dmesg-efi-1":           began.Add(2 * time.Minute),
		"sys/fs/pstore/console-ramoops-0":     began.Add(3 * time.Minute), // is not about a panic
		"var/lib/systemd/pstore/3/unreadable": began.Add(4 * time.Minute),
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("Kernel panic in "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got := Kernel(root, began); fmt.Sprint(got) != fmt.Sprint(one("the kernel's last words", "Kernel panic in sys/fs/pstore/dmesg-efi-1")) {
		t.Errorf("%q", got)
	}
	if got := Kernel(root, time.Now()); got != nil {
		t.Errorf("%q", got)
	}
}

// fakeJournal puts a journalctl on PATH.
func fakeJournal(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestBoot: the boot before this one is evidence only if it was one of the
// trial's.
func TestBoot(t *testing.T) {
	const journal = `case "$*" in
*_BOOT_ID*) echo '{"_BOOT_ID":"0a0b","__CURSOR":"x"}';;
*--boot=-1*) echo "kernel: Out of memory";;
*) exit 1;;
esac
`
	fakeJournal(t, journal)
	if got, err := Boot(t.Context(), "0c-0d"); err != nil || len(got) != 1 || got[0].Text != "kernel: Out of memory" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Boot(t.Context(), "0a-0b"); err == nil {
		t.Errorf("the boot that set the trial: %q", got)
	}
	if got, err := Boot(t.Context(), ""); err == nil {
		t.Errorf("nobody knows which boot it was: %q", got)
	}
	fakeJournal(t, "echo 'No journal boot entry found' >&2; exit 1\n")
	if got, err := Boot(t.Context(), "0c-0d"); err == nil {
		t.Errorf("no journal: %q", got)
	}
	if got := Unit(t.Context(), "a.service"); got != nil {
		t.Errorf("no journal: %q", got)
	}
}

func TestHide(t *testing.T) {
	got := Hide(one("a", "password correct horse battery, pin 1234, correct horse"), []string{"correct horse", "correct horse battery", "1234", ""})
	if got[0].Text != "password [secret], pin 1234, [secret]" {
		t.Errorf("%q", got)
	}
}
