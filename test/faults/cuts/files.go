package cuts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// files describes everything below a directory by path: type, mode, owner,
// extended attributes, and the content's hash, the target of a link, the number
// of a device.
type files map[string]string

// readFiles reads all of it. A file that cannot be read, as one whose checksum
// is wrong, is an error. What is mounted below root is not entered.
func readFiles(root string) (files, error) {
	all := make(files)
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: root, Err: err}
	}
	buffer := make([]byte, 128<<10)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Dev != top.Dev {
			return fs.SkipDir
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			if content, err = hash(path, buffer); err != nil {
				return err
			}
		case unix.S_IFLNK:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		case unix.S_IFCHR, unix.S_IFBLK:
			content = fmt.Sprint(st.Rdev)
		}
		attributes, err := xattrs(path)
		if err != nil {
			return err
		}
		all[strings.TrimPrefix(path, root)] = fmt.Sprintf("%o %d:%d %s %s", st.Mode, st.Uid, st.Gid, content, attributes)
		return nil
	})
	return all, err
}

func hash(path string, buffer []byte) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	// A writer of its own hides the file's WriteTo, which has buffers of its own.
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, buffer); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func xattrs(path string) (string, error) {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil || n == 0 {
		return "", err
	}
	var all []string
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", &fs.PathError{Op: "lgetxattr " + name, Path: path, Err: err}
		}
		all = append(all, fmt.Sprintf("%s=%x", name, value[:size]))
	}
	slices.Sort(all)
	return strings.Join(all, ","), nil
}

// difference names the first path on which two listings differ, and how; "" if
// they are equal.
func (f files) difference(want files) string {
	paths := slices.Collect(maps.Keys(f))
	for path := range want {
		if _, ok := f[path]; !ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		if f[path] != want[path] {
			return fmt.Sprintf("%s is %q, not %q", path, f[path], want[path])
		}
	}
	return ""
}

// among says what of f is neither as in one of the others, nor absent where one
// of them lacks it; "" if there is nothing.
func (f files) among(others ...files) string {
	paths := slices.Collect(maps.Keys(f))
	for _, o := range others {
		paths = slices.AppendSeq(paths, maps.Keys(o))
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if !slices.ContainsFunc(others, func(o files) bool { return o[path] == f[path] }) {
			return fmt.Sprintf("%s is %q", path, f[path])
		}
	}
	return ""
}
