package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
)

// archiveHandler serves the published tree: plain files, whole or in ranges,
// no listings. Nothing outside the tree can be reached, nor anything in it
// that begins with a dot, which is where publications prepare their files.
type archiveHandler struct{ root *os.Root }

func openArchive(public string) (*archiveHandler, error) {
	root, err := os.OpenRoot(public)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the published tree: %w", err)
	}
	return &archiveHandler{root: root}, nil
}

func (h *archiveHandler) Close() error { return h.root.Close() }

func (h *archiveHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "cannot do that: the archive is read-only", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	file, info, err := h.open(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			http.Error(w, "cannot read that file", http.StatusInternalServerError)
			return
		}
		http.Error(w, "cannot find that file in the archive", http.StatusNotFound)
		return
	}
	defer file.Close()
	w.Header().Set("Cache-Control", cacheControl(name))
	w.Header().Set("Content-Type", contentType(name))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// open opens a regular file of the tree. Symbolic links inside it are
// followed; os.Root refuses those that lead out.
func (h *archiveHandler) open(name string) (*os.File, fs.FileInfo, error) {
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || strings.HasPrefix(element, ".") || strings.ContainsRune(element, 0) {
			return nil, nil, fs.ErrNotExist
		}
	}
	info, err := h.root.Stat(name)
	if err != nil {
		// A link out of the tree and a name through a file are as absent.
		return nil, nil, fs.ErrNotExist
	}
	if !info.Mode().IsRegular() || info.Mode().Perm() == 0 { // root may read what the pool is still writing
		return nil, nil, fs.ErrNotExist
	}
	file, err := h.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err = file.Stat(); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// cacheControl lets caches keep for ever what is named after its content,
// and ask again for everything else.
func cacheControl(name string) string {
	if strings.HasPrefix(name, "pool/") || strings.Contains(name, "/pool/") || strings.Contains(name, "/by-hash/") {
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}

// contentType names types without a look at the bytes. Compressed indices are
// files of their own, not an encoding of another.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".deb":
		return "application/vnd.debian.binary-package"
	case ".gz":
		return "application/gzip"
	case ".zst":
		return "application/zstd"
	case ".asc", ".gpg":
		return "application/pgp-keys"
	}
	if strings.Contains(name, "/by-hash/") {
		return "application/octet-stream"
	}
	return "text/plain; charset=utf-8"
}
