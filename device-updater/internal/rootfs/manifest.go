package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteManifest writes one line for every file below root, root itself
// included, in the order of a walk that sorts names:
//
//	type mode uid:gid content xattrs path
//
// type is a letter of find(1) (f d l c b p s), mode four octal digits, content
// the SHA-256 of a file, the target of a link, major:minor of a device or "-";
// xattrs are name=hex joined by commas or "-"; target and path are quoted as Go
// strings. Times are left out: they differ between two installations of the
// same packages. Nested mounts and subvolumes are not entered.
func WriteManifest(ctx context.Context, w io.Writer, root string) error {
	out := bufio.NewWriterSize(w, 64<<10)
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return fmt.Errorf("cannot list the files of %s: %w", root, err)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		line, err := manifestLine(root, path, &st)
		if err != nil {
			return err
		}
		if _, err := out.WriteString(line); err != nil {
			return err
		}
		if d.IsDir() && st.Dev != top.Dev {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot list the files of %s: %w", root, err)
	}
	return out.Flush()
}

func manifestLine(root, path string, st *unix.Stat_t) (string, error) {
	kind, content := "?", "-"
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		kind = "f"
		content, err = fileHash(path)
	case unix.S_IFDIR:
		kind = "d"
	case unix.S_IFLNK:
		kind = "l"
		content, err = os.Readlink(path)
		content = fmt.Sprintf("%q", content)
	case unix.S_IFCHR, unix.S_IFBLK:
		kind = "c"
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			kind = "b"
		}
		content = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		kind = "p"
	case unix.S_IFSOCK:
		kind = "s"
	}
	if err != nil {
		return "", err
	}
	xattrs, err := xattrText(path)
	if err != nil {
		return "", err
	}
	rel := "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
	return fmt.Sprintf("%s %04o %d:%d %s %s %q\n", kind, st.Mode&0o7777, st.Uid, st.Gid, content, xattrs, rel), nil
}

func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func xattrText(path string) (string, error) {
	attrs, err := Xattrs(path)
	if err != nil {
		return "", err
	}
	if len(attrs) == 0 {
		return "-", nil
	}
	parts := make([]string, 0, len(attrs))
	for name, value := range attrs {
		parts = append(parts, name+"="+hex.EncodeToString(value))
	}
	sort.Strings(parts)
	return strings.Join(parts, ","), nil
}

// Xattrs returns the extended attributes of path itself, not of what a link
// points to: access control lists and capabilities are among them.
func Xattrs(path string) (map[string][]byte, error) {
	size, err := unix.Llistxattr(path, nil)
	if err == unix.ENOTSUP || (err == nil && size == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	all := make(map[string][]byte)
	for _, name := range strings.Split(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		n, err := unix.Lgetxattr(path, name, nil)
		if err != nil {
			return nil, &fs.PathError{Op: "lgetxattr " + name, Path: path, Err: err}
		}
		value := make([]byte, n)
		if n > 0 {
			if n, err = unix.Lgetxattr(path, name, value); err != nil {
				return nil, &fs.PathError{Op: "lgetxattr " + name, Path: path, Err: err}
			}
		}
		all[name] = value[:n]
	}
	return all, nil
}
