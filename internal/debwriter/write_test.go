package debwriter_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
)

const control = "Package: hello\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A Tester <a@test.example>\nDepends: libc6 (>= 2.36), aa | bb\nDescription: says hello\n and no more\n .\n never\n"

func entry(path, content string, mode fs.FileMode) debwriter.Entry {
	return debwriter.Entry{Path: path, Mode: mode, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

func spec(t testing.TB) debwriter.Spec {
	conf := entry("/etc/hello.conf", "greeting=hello\n", 0o644)
	conf.Conffile = true
	owned := entry("/usr/bin/hello", "#!/bin/sh\necho hello\n", 0o755|fs.ModeSetgid)
	owned.Group = "games"
	return debwriter.Spec{
		Control:      parse(t, control),
		Scripts:      map[string][]byte{"postinst": []byte("#!/bin/sh\nexit 0\n")},
		ControlFiles: map[string][]byte{"triggers": []byte("activate-noawait ldconfig\n")},
		Entries: []debwriter.Entry{
			owned, conf, entry("/usr/share/hello/odd", "x", 0o644),
			{Path: "/usr/share/hello/link", Mode: fs.ModeSymlink, Link: "../odd"},
			{Path: "/var/lib/hello", Mode: fs.ModeDir | 0o750},
			entry("/usr/share/hello/"+strings.Repeat("long/", 40)+"name", "y", 0o600),
		},
		ModTime: time.Unix(1_700_000_000, 999),
		TempDir: t.TempDir(),
	}
}

func write(t testing.TB, s debwriter.Spec) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := debwriter.Write(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDpkgDebReadsWhatWeWrite compares every detail with what dpkg-deb says.
func TestDpkgDebReadsWhatWeWrite(t *testing.T) {
	for _, compression := range []debwriter.Compression{"", debwriter.Gzip, debwriter.Zstd, debwriter.XZ, debwriter.None} {
		t.Run(string(compression), func(t *testing.T) {
			s := spec(t)
			s.Compression = compression
			data := write(t, s)
			slices.Reverse(s.Entries)
			if !bytes.Equal(data, write(t, s)) {
				t.Error("the order of entries changes the package")
			}
			if p, err := deb.Read(bytes.NewReader(data), deb.Limits{}); err != nil || p.Name != "hello" || p.Size != int64(len(data)) {
				t.Errorf("Read: %+v, %v", p, err)
			}
			path := filepath.Join(t.TempDir(), "hello.deb")
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			contents := string(dpkgDeb(t, "--contents", path))
			for _, want := range []string{
				"drwxr-xr-x root/root         0 2023-11-14 22:13 ./\n",
				"-rw-r--r-- root/root        15 2023-11-14 22:13 ./etc/hello.conf\n",
				"-rwxr-sr-x root/games       21 2023-11-14 22:13 ./usr/bin/hello\n",
				"lrwxrwxrwx root/root         0 2023-11-14 22:13 ./usr/share/hello/link -> ../odd\n",
				"drwxr-x--- root/root         0 2023-11-14 22:13 ./var/lib/hello/\n",
				"drwxr-xr-x root/root         0 2023-11-14 22:13 ./usr/share/\n",
				strings.Repeat("long/", 40) + "name\n",
			} {
				if !strings.Contains(contents, want) {
					t.Errorf("contents lack %q:\n%s", want, contents)
				}
			}
			out := t.TempDir()
			dpkgDeb(t, "--raw-extract", path, out)
			for name, want := range map[string]string{
				"DEBIAN/postinst":     "#!/bin/sh\nexit 0\n",
				"DEBIAN/conffiles":    "/etc/hello.conf\n",
				"DEBIAN/triggers":     "activate-noawait ldconfig\n",
				"usr/share/hello/odd": "x",
				"etc/hello.conf":      "greeting=hello\n",
				"DEBIAN/control":      strings.Replace(control, "Description:", "Installed-Size: 58\nDescription:", 1),
			} {
				if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v; want %q", name, got, err, want)
				}
			}
			needs(t, "md5sum")
			sums, err := os.ReadFile(filepath.Join(out, "DEBIAN/md5sums"))
			if err != nil || bytes.Contains(sums, []byte("hello.conf")) {
				t.Errorf("md5sums: %v\n%s", err, sums)
			}
			t.Chdir(out)
			if got := string(filter(t, sums, "md5sum", "--check", "--strict", "-")); strings.Count(got, ": OK\n") != 3 {
				t.Errorf("md5sum --check:\n%s", got)
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*debwriter.Spec)
		want   string
	}{
		"a relative path":     {func(s *debwriter.Spec) { s.Entries[0].Path = "usr/bin/x" }, "no absolute clean path"},
		"a traversal":         {func(s *debwriter.Spec) { s.Entries[0].Path = "/usr/../x" }, "no absolute clean path"},
		"a control character": {func(s *debwriter.Spec) { s.Entries[0].Path = "/usr/\nx" }, "no absolute clean path"},
		"a path twice":        {func(s *debwriter.Spec) { s.Entries[0].Path = s.Entries[1].Path }, "is given twice"},
		"a file as parent":    {func(s *debwriter.Spec) { s.Entries[0].Path = s.Entries[1].Path + "/x" }, "which is no directory"},
		"a grown file":        {func(s *debwriter.Spec) { s.Entries[0].Size-- }, "its size changed"},
		"a shrunken file":     {func(s *debwriter.Spec) { s.Entries[0].Size++ }, "its size changed"},
		"an unreadable file": {func(s *debwriter.Spec) {
			s.Entries[0].Open = func() (io.ReadCloser, error) { return nil, errors.New("the disk broke") }
		}, "the disk broke"},
		"a strange compression": {func(s *debwriter.Spec) { s.Compression = "rar" }, `the compression "rar" is not known`},
		"a second control":      {func(s *debwriter.Spec) { s.ControlFiles["control"] = nil }, "is given twice"},
	} {
		s := spec(t)
		test.change(&s)
		if err := debwriter.Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "cannot write package: ") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		left, err := os.ReadDir(s.TempDir)
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	s := spec(t)
	s.Compression = debwriter.XZ
	if err := debwriter.Write(io.Discard, s); err == nil || !strings.Contains(err.Error(), "apt-get install xz-utils") {
		t.Errorf("without xz: %v", err)
	}
}

// TestWriteIsBounded writes 512 MB and watches what that allocates.
func TestWriteIsBounded(t *testing.T) {
	const files, size = 8, 64 << 20
	s := spec(t)
	s.Compression = debwriter.None
	for i := range files {
		s.Entries = append(s.Entries, debwriter.Entry{
			Path: fmt.Sprintf("/usr/share/big/%d", i), Mode: 0o644, Size: size,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil },
		})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := debwriter.Write(io.Discard, s); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 16<<20 {
		t.Errorf("%d MB were allocated for %d MB of content", allocated>>20, files*size>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func parse(t testing.TB, text string) deb.Stanza {
	t.Helper()
	s, err := deb.ParseStanza([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func dpkgDeb(t testing.TB, args ...string) []byte {
	t.Helper()
	needs(t, "dpkg-deb")
	cmd := exec.Command("dpkg-deb", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dpkg-deb %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// needs fails when a program is missing that make test installs.
func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing (hint: make test installs it)", program)
		}
	}
}

func filter(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	needs(t, args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out
}
