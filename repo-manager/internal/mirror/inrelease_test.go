package mirror

import (
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

func TestParseTime(t *testing.T) {
	want := time.Date(2026, 9, 5, 7, 55, 41, 0, time.UTC)
	for _, s := range []string{
		"Sat, 05 Sep 2026 07:55:41 UTC", "Sat, 5 Sep 2026 07:55:41 UTC", "Sat,  5 Sep 2026 07:55:41 UTC",
		"Sat, 05 Sep 2026 07:55:41 GMT", "Sat, 05 Sep 2026 07:55:41 +0000", "Sat, 05 Sep 2026 09:55:41 +0200",
	} {
		if got, err := parseTime(s); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "2026-09-05", "Sat, 05 Sep 2026 07:55:41", "Sat, 05 Sep 2026 07:55:41 CET", "Sat, 32 Sep 2026 07:55:41 UTC"} {
		if got, err := parseTime(s); err == nil {
			t.Errorf("%q is taken for %v", s, got)
		}
	}
}

// What parseFiles accepts can be asked for: hashes are whole, sizes are not
// negative.
func FuzzParseFiles(f *testing.F) {
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, seed := range []string{"", sum + " 0 main/binary-amd64/Packages", "\n " + sum + "  17 a\n " + sum + " 18 b", sum + " -1 a", sum + " 99999999999999999999 a", "00 1 a", sum + " 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		files, err := parseFiles(value)
		if err != nil {
			if files != nil {
				t.Fatal("an error and a result")
			}
			return
		}
		for name, l := range files {
			if name == "" || l.size < 0 {
				t.Fatalf("%q: %+v", name, l)
			}
		}
	})
}

func TestLocalPath(t *testing.T) {
	for name, ok := range map[string]bool{
		"main": true, "updates/main": true, "pool/main/h/hello/hello_1.deb": true,
		"": false, "/etc/passwd": false, "..": false, "../x": false, "a/../../x": false, "a//b": false, "a/": false, "./a": false,
	} {
		if err := localPath(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Whatever a stanza says, what is taken over stays inside the archive and the
// pool, and is what the state will hold.
func FuzzAdopt(f *testing.F) {
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	stanza := func(name, file string) string {
		return "Package: " + name + "\nVersion: 1:2-3\nArchitecture: all\nFilename: " + file + "\nSize: 1\nMD5sum: 00\nSHA256: " + sum + "\n"
	}
	for _, seed := range []string{"", stanza("hello", "pool/h/hello_2-3_all.deb"), stanza("hello", "./hello.deb"), stanza("hello", "../../etc/shadow"), stanza("../hello", "hello.deb"), stanza("hello", "/etc/shadow"), stanza(strings.Repeat("a", 250), "hello.deb")} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		parsed, err := deb.ParseStanza(raw)
		if err != nil {
			return // not a stanza
		}
		s, err := adopt(parsed)
		if err != nil {
			return
		}
		if localPath(s.source) != nil || strings.Contains(s.file, "/") || len(s.file) > deb.MaxFileName || s.Filename != publish.PoolFilename(s.SHA256, s.file) {
			t.Fatalf("taken over: %+v", s)
		}
		if again, err := snapshots.ParsePackage(s.Stanza); err != nil || again.Ref() != s.Ref() {
			t.Fatalf("%+v is read back as %+v, %v", s, again, err)
		}
	})
}
