package faults

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"aptfleet/internal/protocol"
)

// arMember writes one member of an ar archive; size is what the header claims
// (deb(5), the "size" column), or the length of content if it is "".
func arMember(name, size string, content []byte) []byte {
	if size == "" {
		size = fmt.Sprint(len(content))
	}
	member := fmt.Appendf(nil, "%-16s%-12s%-6s%-6s%-8s%-10s`\n", name, "1700000000", "0", "0", "100644", size)
	member = append(member, content...)
	if len(content)%2 == 1 {
		member = append(member, '\n')
	}
	return member
}

// debOf joins members to a package.
func debOf(members ...[]byte) []byte {
	file := append([]byte("!<arch>\n"), arMember("debian-binary", "", []byte("2.0\n"))...)
	for _, m := range members {
		file = append(file, m...)
	}
	return file
}

// tarGz is a control.tar.gz with these files.
func tarGz(t *testing.T, files ...string) []byte {
	t.Helper()
	var packed bytes.Buffer
	compress := gzip.NewWriter(&packed)
	w := tar.NewWriter(compress)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, close := range []io.Closer{w, compress} {
		if err := close.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return packed.Bytes()
}

// gigabytes is a control.tar.gz of some megabytes at most whose only file has
// four gigabytes: many gzip members of zeros, which unpack as one.
func gigabytes(t *testing.T) []byte {
	t.Helper()
	const block, blocks = 64 << 20, 64
	squeeze := func(content []byte) []byte {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return packed.Bytes()
	}
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(&tar.Header{Name: "./postinst", Mode: 0o755, Size: block * blocks}); err != nil {
		t.Fatal(err)
	}
	bomb := squeeze(header.Bytes())
	zeros := squeeze(make([]byte, block))
	for range blocks {
		bomb = append(bomb, zeros...)
	}
	return bomb
}

func control(fields string) string {
	return fields + "Maintainer: Test <test@example.com>\nDescription: test\n"
}

const goodFields = "Package: hello\nVersion: 3.0\nArchitecture: amd64\n"

func TestBadUploads(t *testing.T) {
	t.Parallel()
	s := start(t, newData(t), "", "max_upload: 8000000")
	s.pipeline("demo")
	s.pipeline("other")
	tokens := make(map[string]string)
	for name, role := range map[string]string{"ci": "uploader:demo/apps", "elsewhere": "uploader:other/apps", "reader": "viewer"} {
		if _, err := s.API.CreateUser(t.Context(), name, []string{role}); err != nil {
			t.Fatal(err)
		}
		token, err := s.API.CreateToken(t.Context(), protocol.NewToken{User: name})
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token.Secret
	}
	send := func(token, name string, body []byte) answer {
		t.Helper()
		header := http.Header{}
		if token != "" {
			header.Set("Authorization", "Bearer "+token)
		}
		got, err := s.post(http.DefaultClient, s.Admin, "demo", name, bytes.NewReader(body), header)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return got
	}
	good := makeDeb(t, "hello", "2.0", "amd64", 5000)
	if got := send(tokens["ci"], "hello.deb", good); got.status != http.StatusCreated {
		t.Fatalf("a good package: %d %s", got.status, got.body)
	}
	head := s.head("demo")
	data := arMember("data.tar", "", make([]byte, 1024))
	withControl := func(fields string) []byte {
		return debOf(arMember("control.tar.gz", "", tarGz(t, "./control", control(fields))), data)
	}

	for _, c := range []struct {
		name   string // of the file
		token  string // default that of ci
		body   []byte
		status int
		says   string // part of the reason
	}{
		{name: "truncated.deb", body: good[:len(good)-100], status: 400, says: "data.tar"},
		{name: "short-header.deb", body: good[:70], status: 400, says: "ar"},
		{name: "empty.deb", body: nil, status: 400, says: ""},
		{name: "text.deb", body: []byte("this is a text\n"), status: 400, says: "ar"},
		{name: "negative.deb", body: debOf(arMember("control.tar.gz", "-64", tarGz(t, "./control", control(goodFields))), data), status: 400, says: "size"},
		{name: "terabyte.deb", body: debOf(arMember("control.tar.gz", "9999999999", nil)), status: 400, says: "control.tar.gz"},
		{name: "terabyte-data.deb", body: append(debOf(arMember("control.tar.gz", "", tarGz(t, "./control", control(goodFields)))), arMember("data.tar", "9999999999", nil)...), status: 400, says: "data.tar"},
		{name: "bomb.deb", body: debOf(arMember("control.tar.gz", "", gigabytes(t)), data), status: 400, says: "control"},
		{name: "traversal.deb", body: debOf(arMember("control.tar.gz", "", tarGz(t, "../../../etc/passwd", "root::0:0", "./control", control(goodFields))), data), status: 400, says: "control"},
		{name: "traversal-name.deb", body: withControl("Package: ../../etc/passwd\nVersion: 1\nArchitecture: amd64\n"), status: 400, says: "name"},
		{name: "traversal-version.deb", body: withControl("Package: hello\nVersion: 1/../../x\nArchitecture: amd64\n"), status: 400, says: "version"},
		{name: "no-control.deb", body: debOf(arMember("control.tar.gz", "", tarGz(t, "./md5sums", "")), data), status: 400, says: "control"},
		{name: "garbage-control.deb", body: debOf(arMember("control.tar.gz", "", tarGz(t, "./control", "\x00\x01garbage")), data), status: 400, says: "control"},
		{name: "nameless.deb", body: withControl("Version: 1\nArchitecture: amd64\n"), status: 400, says: "Package"},
		{name: "no-data.deb", body: debOf(arMember("control.tar.gz", "", tarGz(t, "./control", control(goodFields)))), status: 400, says: "data"},
		{name: "control-chars.deb", body: withControl("Package: he\x1b[31mllo\nVersion: 1\nArchitecture: amd64\n"), status: 400, says: "control character"},
		{name: "other-bytes.deb", body: makeDeb(t, "hello", "2.0", "amd64", 5001), status: 409, says: "other bytes"},
		{name: "older.deb", body: makeDeb(t, "hello", "1.9", "amd64", 10), status: 422, says: "older than 2.0"},
		{name: "wrong-arch.deb", body: makeDeb(t, "hello", "3.0", "armhf", 10), status: 422, says: "architecture is armhf"},
		{name: "too-large.deb", body: makeDeb(t, "hello", "3.0", "amd64", 8_000_001), status: 413, says: "larger than 8.0 MB"},
		{name: "wrong-token.deb", token: "nonsense", body: good, status: 401, says: "token"},
		{name: "elsewhere.deb", token: tokens["elsewhere"], body: good, status: 403, says: ""},
		{name: "reader.deb", token: tokens["reader"], body: good, status: 403, says: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := c.token
			if token == "" {
				token = tokens["ci"]
			}
			got := send(token, c.name, c.body)
			if got.status != c.status || !strings.Contains(got.body, c.says) {
				t.Errorf("answer %d %q; want %d and %q", got.status, got.body, c.status, c.says)
			}
			if c.status != 401 && c.status != 403 && !strings.Contains(got.body, c.name) {
				t.Errorf("the answer %q does not name the file", got.body)
			}
			if strings.ContainsAny(got.body, "\x00\x01\x1b") {
				t.Errorf("the answer %q holds control characters", got.body)
			}
			s.noLeftovers()
			if now := s.head("demo"); now != head {
				t.Errorf("the repository moved to %s", now)
			}
		})
	}

	t.Run("anonymous", func(t *testing.T) {
		if got := send("", "anonymous.deb", good); got.status != 401 {
			t.Errorf("answer %d %q; want 401", got.status, got.body)
		}
	})
	t.Run("control characters in the file's name", func(t *testing.T) {
		got := send(tokens["ci"], "../\x1b]0;evil\x07/x\n.deb", []byte("nothing"))
		if got.status != 400 || strings.ContainsAny(got.body, "\x1b\x07") || strings.Contains(got.body, "..") {
			t.Errorf("answer %d %q; want 400 without control characters or a path", got.status, got.body)
		}
	})
	t.Run("the client goes away", func(t *testing.T) {
		// More than is held in memory before any of it is written.
		s.goAway(tokens["ci"], makeDeb(t, "hello", "3.0", "amd64", 1<<20))
		s.eventually("the temporary file is gone", func() bool { return len(s.incoming()) == 0 })
		if now := s.head("demo"); now != head {
			t.Errorf("the repository moved to %s", now)
		}
	})
	t.Run("the same bytes again", func(t *testing.T) {
		if got := send(tokens["ci"], "hello.deb", good); got.status != http.StatusOK {
			t.Errorf("answer %d %q; want 200", got.status, got.body)
		}
		if now := s.head("demo"); now != head {
			t.Errorf("the repository moved to %s", now)
		}
	})
	s.mustBeClean()
	s.stop()
}

// goAway sends the first half of a request and breaks off once the server has
// begun to write it down.
func (s *server) goAway(token string, body []byte) {
	s.t.Helper()
	at, err := url.Parse(s.Admin)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /api/v1/pipelines/demo/repositories/apps/packages?name=half.deb HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		at.Host, token, len(body), body[:len(body)/2])
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually("the upload has begun", func() bool { return len(s.incoming()) == 1 })
}

// eventually waits until something is true.
func (s *server) eventually(what string, is func() bool) {
	s.t.Helper()
	if err := await(what, is); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until something is true, in whatever goroutine.
func await(what string, is func() bool) error {
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s", what, patience)
		}
	}
	return nil
}
