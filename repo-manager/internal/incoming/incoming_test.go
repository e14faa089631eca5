package incoming

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/repo-manager/internal/release"
)

func packageOf(t *testing.T, size int) []byte {
	t.Helper()
	control, err := deb.ParseStanza([]byte("Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.com>\nDescription: test\n"))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	err = debwriter.Write(&file, debwriter.Spec{Control: control, ModTime: time.Unix(0, 0), Compression: debwriter.None, Entries: []debwriter.Entry{{
		Path: "/usr/share/hello", Mode: 0o644, Size: int64(size),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, size))), nil },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestReceive is about packages that are held in memory until they are known,
// and larger ones.
func TestReceive(t *testing.T) {
	for name, size := range map[string]int{"small": 5000, "large": 3 * held} {
		t.Run(name, func(t *testing.T) { receive(t, packageOf(t, size)) })
	}
}

func receive(t *testing.T, good []byte) {
	limit := int64(len(good))
	broken := errors.New("the line is dead")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name    string
		ctx     context.Context
		body    io.Reader
		reserve int64
		code    release.Code // "" is success
		says    string
	}{
		{name: "a package", body: bytes.NewReader(good)},
		{name: "in small pieces", body: iotest.OneByteReader(bytes.NewReader(good))},
		{name: "truncated", body: bytes.NewReader(good[:len(good)-10]), code: release.Invalid, says: "data.tar"},
		{name: "nothing", body: strings.NewReader(""), code: release.Invalid},
		{name: "one byte too many", body: io.MultiReader(bytes.NewReader(good), strings.NewReader("x")), code: release.TooLarge, says: "more than"},
		{name: "a limit of the listener", body: http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(bytes.NewReader(good)), 100), code: release.TooLarge, says: "more than"},
		{name: "broken off", body: io.MultiReader(bytes.NewReader(good[:900]), iotest.ErrReader(broken)), code: release.Invalid, says: "broke off after 900 bytes"},
		{name: "cut by the connection", body: io.MultiReader(bytes.NewReader(good[:900]), iotest.ErrReader(io.ErrUnexpectedEOF)), code: release.Invalid, says: "broke off"},
		{name: "nobody waits", ctx: cancelled, body: bytes.NewReader(good), code: release.Invalid, says: "broke off"},
		{name: "a full disk", body: bytes.NewReader(good), reserve: 1 << 60, code: release.NoSpace, says: "no space left"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "incoming")
			r, err := Open(dir, limit, max(c.reserve, 1))
			if err != nil {
				t.Fatal(err)
			}
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			in, err := r.Receive(ctx, c.body, "hello.deb")
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				content := in.Content
				if in.Path != "" {
					if content, err = os.ReadFile(in.Path); err != nil || filepath.Dir(in.Path) != dir || in.Content != nil {
						t.Errorf("it lies at %s: %v", in.Path, err)
					}
				}
				if large := len(good) > held; large != (in.Path != "") {
					t.Errorf("a package of %d bytes lies at %q", len(good), in.Path)
				}
				if !bytes.Equal(content, good) || in.Package.SHA256 != sha256.Sum256(good) || in.Package.Name != "hello" {
					t.Errorf("received %+v", in)
				}
				if err := in.Discard(); err != nil {
					t.Error(err)
				}
			} else if release.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "hello.deb") {
				t.Errorf("error %v, want code %s, %q and the name", err, c.code, c.says)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 0 {
				t.Errorf("%d files are left, %v", len(left), err)
			}
		})
	}
}

// Small packages wait in memory until that has its fill, and then in files.
func TestManyWait(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "incoming")
	r, err := Open(dir, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	good := packageOf(t, 40<<10)
	receive := func() release.Incoming {
		t.Helper()
		in, err := r.Receive(t.Context(), bytes.NewReader(good), "hello.deb")
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	var waiting []release.Incoming
	for in := receive(); in.Path == ""; in = receive() {
		if waiting = append(waiting, in); len(waiting)*len(good) > maxWaiting {
			t.Fatalf("%d packages of %d bytes are in memory", len(waiting), len(good))
		}
	}
	if len(waiting)*len(good) < maxWaiting/2 {
		t.Errorf("no more than %d packages of %d bytes are in memory", len(waiting), len(good))
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v in the directory, want one file", left, err)
	}
	if err := waiting[0].Discard(); err != nil {
		t.Fatal(err)
	}
	if in := receive(); in.Path != "" {
		t.Error("there was room in memory again")
	}
}

func TestOpenEmpties(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"upload-1", "sub/upload-2"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

func FuzzPrintable(f *testing.F) {
	for _, seed := range []string{"hello_1.0_amd64.deb", "../../etc/passwd", "\x1b[31mred", "a\u202eb", "", ".", "/", strings.Repeat("ä", 300), "\xff\xfe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := printable(name)
		if got == "" || len(got) > maxName+len("…") || strings.Contains(got, "/") {
			t.Errorf("printable(%q) = %q", name, got)
		}
		for _, c := range got {
			if c < ' ' || c == 0x7f || c == '\u202e' {
				t.Errorf("printable(%q) = %q holds %U", name, got, c)
			}
		}
	})
}
