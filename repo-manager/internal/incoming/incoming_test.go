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
				content, err := os.ReadFile(in.Path)
				if err != nil || !bytes.Equal(content, good) || in.Package.SHA256 != sha256.Sum256(good) || in.Package.Name != "hello" {
					t.Errorf("received %+v, %v", in, err)
				}
				if info, err := os.Lstat(in.Path); err != nil || info.Mode() != 0o444 || filepath.Base(in.Path) != "hello_1.0_all.deb" {
					t.Errorf("it lies at %s: %v, %v", in.Path, info, err)
				}
				if alone, err := os.ReadDir(filepath.Dir(in.Path)); err != nil || len(alone) != 1 || filepath.Dir(in.Path) == dir {
					t.Errorf("it lies beside %v, %v", alone, err)
				}
				for range 2 {
					if err := in.Discard(); err != nil {
						t.Error(err)
					}
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
