package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/reading"
)

// archiveHandler serves the published tree: plain files, whole or in ranges,
// no listings. Nothing outside the tree can be reached, nor anything in it
// that begins with a dot, which is where publications prepare their files. Who
// may read what, the gate decides.
type archiveHandler struct {
	root *os.Root
	gate *reading.Gate
}

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
	private, refusal := h.gate.Enter(r, name)
	if refusal != nil {
		refuse(w, refusal)
		return
	}
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
	if refusal := h.gate.Pooled(r, name); refusal != nil {
		refuse(w, refusal)
		return
	}
	w.Header().Set("Cache-Control", cacheControl(name, private))
	w.Header().Set("Content-Type", contentType(name))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// refuse answers whoever may not read a file, in words, which curl shows. apt
// shows the status alone.
func refuse(w http.ResponseWriter, refusal *reading.Refusal) {
	w.Header().Set("Cache-Control", "no-store")
	if refusal.Realm != "" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Basic realm=%q, charset="UTF-8"`, refusal.Realm))
	}
	if refusal.Wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(refusal.Wait.Seconds())+1))
	}
	text := term.Printable(refusal.Text)
	if refusal.Hint != "" {
		text += "\n" + term.Printable(refusal.Hint)
	}
	http.Error(w, text, refusal.Status)
}

// open opens a regular file of the tree. Symbolic links inside it are
// followed; os.Root refuses those that lead out.
func (h *archiveHandler) open(name string) (*os.File, fs.FileInfo, error) {
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || strings.HasPrefix(element, ".") || strings.ContainsRune(element, 0) {
			return nil, nil, fs.ErrNotExist
		}
	}
	// Without waiting for whoever writes to a pipe of that name.
	file, err := h.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.EIO), errors.Is(err, fs.ErrPermission):
		return nil, nil, err
	case err != nil:
		// A link out of the tree and a name through a file are as absent.
		return nil, nil, fs.ErrNotExist
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm() == 0) { // root may read what the pool is still writing
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, info, nil
}

// cacheControl lets caches keep for ever what is named after its content,
// and ask again for everything else. What is private, no cache that others use
// may keep.
func cacheControl(name string, private bool) string {
	named := strings.HasPrefix(name, "pool/") || strings.Contains(name, "/pool/") || strings.Contains(name, "/by-hash/") || strings.Contains(name, "/boms/")
	switch {
	case named && private:
		return "private, max-age=31536000, immutable"
	case named:
		return "public, max-age=31536000, immutable"
	case private:
		return "private, no-cache"
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
	case ".pem":
		return "application/x-pem-file"
	case ".asc", ".gpg":
		return "application/pgp-keys"
	}
	if strings.Contains(name, "/by-hash/") {
		return "application/octet-stream"
	}
	return "text/plain; charset=utf-8"
}
