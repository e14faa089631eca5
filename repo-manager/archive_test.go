package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// What the pool is still writing has no permissions; root, as whom tests run,
// could read it all the same.
func TestArchiveHidesUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	const name = "pool/aa/x/hello_1.0_all.deb"
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("a pa"), 0))
	archive, err := openArchive(dir)
	must(t, err)
	defer archive.Close()
	for _, c := range []struct {
		mode   os.FileMode
		status int
	}{{0, http.StatusNotFound}, {0o444, http.StatusOK}} {
		must(t, os.Chmod(path, c.mode))
		answer := httptest.NewRecorder()
		archive.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/"+name, nil))
		if answer.Code != c.status || (c.status != http.StatusOK) == (answer.Header().Get("Cache-Control") != "") {
			t.Errorf("with the mode %v: status %d, want %d; Cache-Control %q", c.mode, answer.Code, c.status, answer.Header().Get("Cache-Control"))
		}
	}
}
