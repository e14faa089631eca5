package api

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

const uploadsTarget = "/api/v1/pipelines/demo/repositories/apps/uploads"

// archiveOf writes a tar archive of plain files. Their content is their name,
// as often as their size says.
func archiveOf(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, max(h.Size, int64(len(h.Name)))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat(h.Name, int(h.Size)/len(h.Name)+1)[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// choosy takes what is not called bad.
func choosy(body io.Reader) error {
	content, err := io.ReadAll(body)
	if err == nil && strings.HasPrefix(string(content), "bad") {
		err = &release.Error{Code: release.Invalid, Text: "cannot add it: it is bad"}
	}
	return err
}

func TestUploadAll(t *testing.T) {
	h, w, _ := newAPI(t)
	w.receive = choosy
	good := archiveOf(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "a.deb"}, tar.Header{Name: "sub/b.deb"})
	rec := ask(t, h, "POST", uploadsTarget+"?allow-older=1", good, bearer("uploader"))
	var answers []protocol.Uploaded
	if err := json.Unmarshal(rec.Body.Bytes(), &answers); err != nil || rec.Code != 200 || len(answers) != 2 || !w.older {
		t.Fatalf("%d, older %v: %s", rec.Code, w.older, rec.Body)
	}
	if a := answers[1]; a.File != "sub/b.deb" || a.Status != 201 || a.Upload == nil || a.Upload.Name != "sub/b.deb" || a.Error != nil {
		t.Errorf("answer %+v", a)
	}

	w.already = true
	mixed := archiveOf(t, tar.Header{Name: "bad.deb"}, tar.Header{Name: "a.deb"}, tar.Header{Name: "link.deb", Typeflag: tar.TypeSymlink, Linkname: "a.deb"})
	rec = ask(t, h, "POST", uploadsTarget, mixed, bearer("uploader"))
	answers = nil
	if err := json.Unmarshal(rec.Body.Bytes(), &answers); err != nil || rec.Code != 207 || len(answers) != 3 {
		t.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	for i, want := range []struct {
		file   string
		status int
		says   string
	}{{"bad.deb", 400, "it is bad"}, {"a.deb", 200, ""}, {"link.deb", 400, "no regular file"}} {
		a := answers[i]
		says := ""
		if a.Error != nil {
			says = a.Error.Text
		}
		if a.File != want.file || a.Status != want.status || (a.Upload != nil) != (want.says == "") || !strings.Contains(says, want.says) {
			t.Errorf("answer %d: %+v %q, want %+v", i, a, says, want)
		}
	}
	if rec := ask(t, h, "POST", uploadsTarget, archiveOf(t), bearer("uploader")); rec.Code != 200 || strings.TrimSpace(rec.Body.String()) != "[]" {
		t.Errorf("of nothing: %d %s", rec.Code, rec.Body)
	}
}

// What ends a request adds nothing, not even what came before it.
func TestUploadAllOrNothing(t *testing.T) {
	whole := archiveOf(t, tar.Header{Name: "a.deb"}, tar.Header{Name: "b.deb"})
	var many []tar.Header
	for i := range maxUploads + 1 {
		many = append(many, tar.Header{Name: fmt.Sprintf("%d.deb", i)})
	}
	for _, c := range []struct {
		name, target, body string
		status             int
		says               string
	}{
		{"text", uploadsTarget, strings.Repeat("this is no archive\n", 100), 400, "after 0 files"},
		{"cut in a header", uploadsTarget, whole[:1024+200], 400, "after 1 files"},
		{"cut in a file", uploadsTarget, whole[:1024+512+2], 400, "after 2 files"},
		{"too many", uploadsTarget, archiveOf(t, many...), 413, "more than 4096 files"},
		{"bad question", uploadsTarget + "?allow-older=perhaps", whole, 400, "allow-older"},
		{"a mirror", "/api/v1/pipelines/demo/repositories/debian/uploads", whole, 422, "mirror"},
		{"no such repository", "/api/v1/pipelines/demo/repositories/nothing/uploads", whole, 404, "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, w, _ := newAPI(t)
			rec := ask(t, h, "POST", c.target, c.body, bearer("admin"))
			if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) {
				t.Errorf("%d %.200s, want %d and %q", rec.Code, rec.Body, c.status, c.says)
			}
			if len(w.actors) > 0 {
				t.Errorf("%d files were added", len(w.actors))
			}
		})
	}
}

func TestUploadAllRefusesALargeFileAlone(t *testing.T) {
	h, w, _ := newAPI(t)
	large := archiveOf(t, tar.Header{Name: "large.deb", Size: 1<<20 + 1}, tar.Header{Name: "a.deb"})
	rec := ask(t, h, "POST", uploadsTarget, large, bearer("uploader"))
	if rec.Code != 207 || !strings.Contains(rec.Body.String(), `"status":413`) || string(w.received) != "a.deb" {
		t.Errorf("%d, received %.20q", rec.Code, w.received)
	}
}
