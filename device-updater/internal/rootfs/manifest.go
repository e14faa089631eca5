package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
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
//
// A line that begins with "! " is of a file that strange, which may be nil, says
// does not belong there: no package has it and no installation made it.
//
// A line "@ inode size changed altered" after one of a file is its stamp; see
// [Stamp]. Only a Recording writes those.
func WriteManifest(ctx context.Context, w io.Writer, root string, strange func(path string) bool) error {
	return Recording{Strange: strange}.Write(ctx, w, root)
}

// Recording is what a manifest is written with, each part of it where it is set.
type Recording struct {
	Strange func(path string) bool // see WriteManifest
	// Known returns the content of a file that need not be read.
	Known func(path string, now Stamp) (content string, ok bool)
	// Stamped tells which files get a stamp.
	Stamped func(path string) bool
}

// Write writes the manifest of root.
func (r Recording) Write(ctx context.Context, w io.Writer, root string) error {
	out := bufio.NewWriterSize(w, 64<<10)
	err := Walk(ctx, root, func(rel, path string, st *unix.Stat_t) error {
		content, known := "", false
		file := st.Mode&unix.S_IFMT == unix.S_IFREG
		if file && r.Known != nil {
			content, known = r.Known(rel, stampOf(st))
		}
		entry, err := describe(path, st, !known)
		if err != nil {
			return err
		}
		if known {
			entry.Content = content
		}
		line := entry.line(rel)
		if r.Strange != nil && r.Strange(rel) {
			line = strangeMark + line
		}
		if file && r.Stamped != nil && r.Stamped(rel) {
			line += stampOf(st).line()
		}
		_, err = out.WriteString(line)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot list the files of %s: %w", root, err)
	}
	return out.Flush()
}

const strangeMark = "! "

// Walk visits root and everything below it, names sorted, without entering
// nested mounts and subvolumes. visit is given the path in root, which begins
// with a slash, and the path outside; it may return fs.SkipDir.
func Walk(ctx context.Context, root string, visit func(rel, path string, st *unix.Stat_t) error) error {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
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
		if err := visit("/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), path, &st); err != nil {
			return err
		}
		if d.IsDir() && st.Dev != top.Dev {
			return filepath.SkipDir
		}
		return nil
	})
}

// Entry is what a manifest says of one file.
type Entry struct {
	Kind     byte   // a letter of find(1)
	Mode     uint32 // permissions, set-id and sticky bits
	UID, GID uint32
	Content  string // as in the manifest; "" if it was not looked at
	Xattrs   string // as in the manifest
	Strange  bool   // it does not belong there
	Stamp    Stamp  // of a file when it was recorded; the zero value if it has none
}

// Describe looks at the file at path, without following a link. Content is read
// only if that is asked for.
func Describe(path string, content bool) (Entry, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Entry{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return describe(path, &st, content)
}

// Stamp tells a file that was touched from one that was not: a file that still
// has the stamp of when it was read holds what it did then. Snapshots keep
// stamps. Whoever can set the clock and write to the disk can forge one, and a
// medium that forgets changes none: verifying in earnest means to read.
type Stamp struct {
	Inode   uint64
	Size    int64 // bytes
	Changed int64 // mtime, in nanoseconds since 1970
	Altered int64 // ctime, likewise
}

// StampOf looks at the file at path, without following a link; other than files
// have none.
func StampOf(path string) (Stamp, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Stamp{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return Stamp{}, nil
	}
	return stampOf(&st), nil
}

func stampOf(st *unix.Stat_t) Stamp {
	return Stamp{Inode: st.Ino, Size: st.Size, Changed: st.Mtim.Nano(), Altered: st.Ctim.Nano()}
}

const stampMark = "@ "

func (s Stamp) line() string {
	return fmt.Sprintf(stampMark+"%d %d %d %d\n", s.Inode, s.Size, s.Changed, s.Altered)
}

func readStamp(line string) (s Stamp, err error) {
	if n, err := fmt.Sscanf(line, stampMark+"%d %d %d %d", &s.Inode, &s.Size, &s.Changed, &s.Altered); n != 4 || err != nil {
		return Stamp{}, fmt.Errorf("%q is not a stamp", line)
	}
	return s, nil
}

func describe(path string, st *unix.Stat_t, content bool) (Entry, error) {
	e := Entry{Kind: '?', Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Content: "-"}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Content = 'f', ""
		if content {
			e.Content, err = fileHash(path)
		}
	case unix.S_IFDIR:
		e.Kind = 'd'
	case unix.S_IFLNK:
		e.Kind = 'l'
		e.Content, err = os.Readlink(path)
		e.Content = strconv.Quote(e.Content)
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind = 'c'
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Kind = 'b'
		}
		e.Content = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		e.Kind = 'p'
	case unix.S_IFSOCK:
		e.Kind = 's'
	}
	if err != nil {
		return Entry{}, err
	}
	e.Xattrs, err = xattrText(path)
	return e, err
}

func (e Entry) line(rel string) string {
	return fmt.Sprintf("%c %04o %d:%d %s %s %q\n", e.Kind, e.Mode, e.UID, e.GID, e.Content, e.Xattrs, rel)
}

// maxManifestLine bounds a line of a manifest: two quoted paths and attributes.
const maxManifestLine = 256 << 10

// ReadManifest reads what WriteManifest wrote, by path.
func ReadManifest(r io.Reader) (map[string]Entry, error) {
	all := make(map[string]Entry)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxManifestLine)
	last := ""
	for n := 1; lines.Scan(); n++ {
		fail := func(err error) (map[string]Entry, error) {
			return nil, fmt.Errorf("cannot read manifest: line %d: %w", n, err)
		}
		if strings.HasPrefix(lines.Text(), stampMark) {
			e, ok := all[last]
			stamp, err := readStamp(lines.Text())
			if err != nil || !ok || e.Kind != 'f' {
				return fail(errors.Join(errors.New("a stamp that is none, or of no file"), err))
			}
			e.Stamp = stamp
			all[last] = e
			continue
		}
		rel, e, err := readLine(lines.Text())
		if err != nil {
			return fail(err)
		}
		all[rel], last = e, rel
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read manifest: %w", err)
	}
	return all, nil
}

func readLine(line string) (rel string, e Entry, err error) {
	line, e.Strange = strings.CutPrefix(line, strangeMark)
	var owner string
	for i, to := range []*string{nil, nil, &owner, &e.Content, &e.Xattrs} {
		var field string
		if i == 3 && strings.HasPrefix(line, `"`) {
			if field, err = strconv.QuotedPrefix(line); err != nil {
				return "", e, fmt.Errorf("a link's target: %w", err)
			}
			line = strings.TrimPrefix(line[len(field):], " ")
		} else {
			field, line, _ = strings.Cut(line, " ")
		}
		switch i {
		case 0:
			if len(field) != 1 {
				return "", e, fmt.Errorf("%q is not a type", field)
			}
			e.Kind = field[0]
		case 1:
			mode, err := strconv.ParseUint(field, 8, 12)
			if err != nil {
				return "", e, fmt.Errorf("%q is not a mode", field)
			}
			e.Mode = uint32(mode)
		default:
			*to = field
		}
	}
	if n, err := fmt.Sscanf(owner, "%d:%d", &e.UID, &e.GID); n != 2 || err != nil {
		return "", e, fmt.Errorf("%q is not an owner", owner)
	}
	if rel, err = strconv.Unquote(line); err != nil {
		return "", e, fmt.Errorf("%q is not a path", line)
	}
	return rel, e, nil
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

// Restore gives the directory at path the owner, mode and extended attributes
// of the entry.
func (e Entry) Restore(path string) error {
	fail := func(op string, err error) error { return &fs.PathError{Op: op, Path: path, Err: err} }
	if err := unix.Lchown(path, int(e.UID), int(e.GID)); err != nil {
		return fail("chown", err)
	}
	if err := unix.Chmod(path, e.Mode); err != nil {
		return fail("chmod", err)
	}
	now, err := Xattrs(path)
	if err != nil {
		return err
	}
	want := make(map[string][]byte)
	if e.Xattrs != "-" {
		for _, attr := range strings.Split(e.Xattrs, ",") {
			name, text, _ := strings.Cut(attr, "=")
			if want[name], err = hex.DecodeString(text); err != nil {
				return fail("read attribute "+name, err)
			}
		}
	}
	for name := range now {
		if _, ok := want[name]; ok {
			continue
		}
		if err := unix.Lremovexattr(path, name); err != nil {
			return fail("lremovexattr "+name, err)
		}
	}
	for name, value := range want {
		if err := unix.Lsetxattr(path, name, value, 0); err != nil {
			return fail("lsetxattr "+name, err)
		}
	}
	return nil
}
