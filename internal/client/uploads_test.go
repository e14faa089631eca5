package client

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// files yields names with contents, and counts how many were asked for.
func files(asked *int, names ...string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, name := range names {
			*asked++
			if !yield(name, []byte("content of "+name)) {
				return
			}
		}
	}
}

func TestUploadAll(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answers := []protocol.Uploaded{}
		for archive := tar.NewReader(r.Body); ; {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			content, readErr := io.ReadAll(archive)
			if err := errors.Join(err, readErr); err != nil || string(content) != "content of "+h.Name {
				t.Errorf("%q: %v", content, err)
				return
			}
			a := protocol.Uploaded{File: h.Name, Status: 201, Upload: &protocol.Upload{Name: h.Name}}
			if strings.HasPrefix(h.Name, "bad") {
				a = protocol.Uploaded{File: h.Name, Status: 422, Error: &protocol.Error{Code: "refused", Text: "cannot add it", Hint: "no"}}
			}
			answers = append(answers, a)
		}
		w.WriteHeader(http.StatusMultiStatus)
		if err := json.NewEncoder(w).Encode(answers); err != nil {
			t.Error(err)
		}
	})
	asked := 0
	long := strings.Repeat("ä", 200) + ".deb"
	answers, err := c.UploadAll(t.Context(), "p", "apps", files(&asked, "a.deb", "bad.deb", long), false)
	if err != nil || len(answers) != 3 || asked != 3 {
		t.Fatalf("%v, %v", answers, err)
	}
	if Refusal(answers[0]) != nil || answers[2].Upload.Name != long {
		t.Errorf("answers %+v", answers)
	}
	var refused *Error
	if err := Refusal(answers[1]); !errors.As(err, &refused) || refused.ExitCode() != 3 || refused.Hint != "no" || refused.Status != 422 {
		t.Errorf("refusal %+v", refused)
	}
}

// A server that wants nothing is not sent everything, and one that answers
// about other files is not believed.
func TestUploadAllThatFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer string
		status int
		says   string
	}{
		{"refused at once", `{"error":{"code":"forbidden","text":"cannot do this"}}`, 403, "cannot do this"},
		{"fewer answers", `[]`, 200, "about 0 files, 2 were sent"},
		{"no answer for one", `[{"file":"a","status":201,"upload":{}},{"file":"b","status":201}]`, 200, "what became of b"},
		{"no list", `{}`, 200, "cannot read the answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.status < 300 {
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						t.Error(err)
					}
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			})
			asked := 0
			_, err := client.UploadAll(t.Context(), "p", "apps", files(&asked, "a", "b"), false)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
		})
	}
	// Far more than buffers hold: the rest is never asked for.
	client := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	asked := 0
	_, err := client.UploadAll(t.Context(), "p", "apps", func(yield func(string, []byte) bool) {
		for block := make([]byte, 1<<20); asked < 1000; asked++ {
			if !yield("large", block) {
				return
			}
		}
	}, false)
	if err == nil || asked == 1000 {
		t.Errorf("%d MiB were read although none were wanted: %v", asked, err)
	}
}
