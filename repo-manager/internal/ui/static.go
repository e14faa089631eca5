package ui

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"aptfleet/web"
)

// assets are the static files under names that contain a hash of their bytes,
// so that a browser may keep each for ever and never holds an old one.
type assets struct {
	byName map[string]string // app.css → /static/app.0123456789ab.css
	byURL  map[string]asset
}

type asset struct {
	name string
	etag string
	body []byte
}

func newAssets() (*assets, error) {
	a := &assets{byName: map[string]string{}, byURL: map[string]asset{}}
	files := web.Static()
	names, err := fs.Glob(files, "*.*")
	if err != nil {
		return nil, fmt.Errorf("cannot list static files: %w", err)
	}
	for _, name := range names {
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("cannot read static file %s: %w", name, err)
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:6])
		ext := path.Ext(name)
		url := "/static/" + strings.TrimSuffix(name, ext) + "." + hash + ext
		a.byName[name] = url
		a.byURL[url] = asset{name: name, etag: `"` + hash + `"`, body: body}
	}
	return a, nil
}

// url is the address of a static file, for templates.
func (a *assets) url(name string) (string, error) {
	url, ok := a.byName[name]
	if !ok {
		return "", fmt.Errorf("cannot link static file %s: there is none", name)
	}
	return url, nil
}

// ServeHTTP serves one static file; anybody may read them.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := a.byURL[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", f.etag)
	h.Set("Content-Type", mime.TypeByExtension(path.Ext(f.name)))
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
}
