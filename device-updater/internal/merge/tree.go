// Package merge carries local changes of /etc into a new deployment: three
// trees, the base that the new release was installed from, the running one and
// the new one.
//
// What was changed locally since the base goes into the new tree. Where the
// release changed the same file too, the local one stays and the release's is
// written beside it as NAME.aptfleet-new, as dpkg does with .dpkg-dist. The
// account files are merged line by line.
package merge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// Suffix marks the release's version of a file whose local version stayed.
const Suffix = ".aptfleet-new"

// Result lists paths below the tree, sorted.
type Result struct {
	Taken     []string // local changes that were carried over
	Conflicts []string // both sides changed: the local version stayed
}

// generated are files that programs make from others: each root keeps its own.
var generated = []string{"ld.so.cache", ".updated", ".pwd.lock", "systemd/system/aptfleet-trial.timer.d", "systemd/system.conf.d/00-aptfleet-watchdog.conf"}

func isGenerated(path string) bool {
	for _, g := range generated {
		if path == g || strings.HasPrefix(path, g+"/") {
			return true
		}
	}
	return strings.HasSuffix(path, Suffix)
}

// Trees merges the changes from base to running into target. All three are
// directories; target is changed in place and good for nothing after an error.
func Trees(base, running, target string) (Result, error) {
	var r Result
	paths, err := union(base, running)
	if err != nil {
		return r, err
	}
	local, err := allNumbers(running)
	if err != nil {
		return r, err
	}
	release, err := allNumbers(target)
	if err != nil {
		return r, err
	}
	var removed []string
	for _, path := range paths {
		if isGenerated(path) {
			continue
		}
		change, err := load3(base, running, target, path)
		if err != nil {
			return r, fmt.Errorf("cannot merge %s: %w", path, err)
		}
		switch {
		case change.base.equal(change.running):
			continue
		case change.running.equal(change.target):
			continue
		case accountFiles[path] != nil && change.allFiles():
			merged, err := mergeAccounts(path, change)
			if err != nil {
				return r, fmt.Errorf("cannot merge %s: %w", path, err)
			}
			change.running.content = merged
			if err := change.running.write(target, path); err != nil {
				return r, fmt.Errorf("cannot merge %s: %w", path, err)
			}
			r.Taken = append(r.Taken, path)
			continue
		case change.base.equal(change.target):
			r.Taken = append(r.Taken, path)
		case change.bothDirectories():
			// Mode or owner of a directory: the local ones stay.
			r.Conflicts = append(r.Conflicts, path)
		default:
			r.Conflicts = append(r.Conflicts, path)
			if err := change.target.keepBeside(target, path); err != nil {
				return r, fmt.Errorf("cannot merge %s: %w", path, err)
			}
		}
		if change.running.kind == absent {
			removed = append(removed, path)
			continue
		}
		if err := change.running.write(target, path); err != nil {
			return r, fmt.Errorf("cannot merge %s: %w", path, err)
		}
	}
	// Children before their directories; a directory that the release filled
	// stays.
	slices.Reverse(removed)
	for _, path := range removed {
		if err := os.Remove(filepath.Join(target, path)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return r, fmt.Errorf("cannot merge %s: %w", path, err)
		}
	}
	return r, checkAccounts(target, local, release)
}

// union returns the paths in either tree, parents before children.
func union(trees ...string) ([]string, error) {
	seen := make(map[string]bool)
	var all []string
	for _, tree := range trees {
		err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(path, tree), "/")
			if rel != "" && !seen[rel] {
				seen[rel] = true
				all = append(all, rel)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", tree, err)
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	return all, nil
}

// kind is the type of a file; absent if there is none.
type kind uint32

const absent kind = 0

// node is one file of a tree with all that counts: no times.
type node struct {
	kind     kind // unix.S_IFMT bits
	mode     uint32
	uid, gid int
	content  []byte // of a file, or the target of a link
	rdev     uint64
	xattrs   map[string][]byte // of files and directories
}

// load reads what lies at path within tree. What is reached through a link is
// not in the tree: an absolute one leads to the running system.
func load(tree, path string) (node, error) {
	if link, err := linkAbove(tree, path); err != nil || link != "" {
		return node{}, err
	}
	path = filepath.Join(tree, path)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return node{}, nil
		}
		return node{}, err
	}
	n := node{kind: kind(st.Mode & unix.S_IFMT), mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), rdev: uint64(st.Rdev)}
	var err error
	switch n.kind {
	case unix.S_IFREG:
		n.content, err = os.ReadFile(path)
		n.rdev = 0
	case unix.S_IFLNK:
		var to string
		to, err = os.Readlink(path)
		n.content, n.mode = []byte(to), 0
	}
	if err == nil && (n.kind == unix.S_IFREG || n.kind == unix.S_IFDIR) {
		n.xattrs, err = rootfs.Xattrs(path)
	}
	return n, err
}

// linkAbove returns the first directory on the way to path that is a symbolic
// link in tree, "" if none is.
func linkAbove(tree, path string) (string, error) {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		info, err := os.Lstat(filepath.Join(tree, path[:i]))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			return "", nil
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			return path[:i], nil
		}
	}
	return "", nil
}

func (n node) equal(o node) bool {
	return n.kind == o.kind && n.mode == o.mode && n.uid == o.uid && n.gid == o.gid && n.rdev == o.rdev && bytes.Equal(n.content, o.content) &&
		maps.EqualFunc(n.xattrs, o.xattrs, bytes.Equal)
}

// change is one path in the three trees.
type change struct{ base, running, target node }

func load3(base, running, target, path string) (c change, err error) {
	for _, side := range []struct {
		tree string
		to   *node
	}{{base, &c.base}, {running, &c.running}, {target, &c.target}} {
		if *side.to, err = load(side.tree, path); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c change) allFiles() bool {
	return c.base.kind == unix.S_IFREG && c.running.kind == unix.S_IFREG && c.target.kind == unix.S_IFREG
}

func (c change) bothDirectories() bool {
	return c.running.kind == unix.S_IFDIR && c.target.kind == unix.S_IFDIR
}

// keepBeside writes the release's version beside path, unless it is a
// directory or was removed.
func (n node) keepBeside(tree, path string) error {
	if n.kind == absent || n.kind == unix.S_IFDIR {
		return nil
	}
	return n.write(tree, path+Suffix)
}

// write makes path within tree what n is. Directories on the way are made; a
// link on the way, which the release has put in the place of a directory with
// local changes, is an error.
func (n node) write(tree, path string) error {
	if link, err := linkAbove(tree, path); err != nil {
		return err
	} else if link != "" {
		return fmt.Errorf("it was changed locally, and the release made %s a symbolic link", link)
	}
	old, err := load(tree, path)
	if err != nil {
		return err
	}
	path = filepath.Join(tree, path)
	if old.kind == unix.S_IFDIR && n.kind != unix.S_IFDIR {
		// A local file in the place of a directory of the release.
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	} else if old.kind != absent && old.kind != unix.S_IFDIR {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch n.kind {
	case unix.S_IFREG:
		err = writeFile(path, n.content)
	case unix.S_IFLNK:
		err = os.Symlink(string(n.content), path)
	case unix.S_IFDIR:
		if err = os.Mkdir(path, 0o755); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	default:
		err = unix.Mknod(path, uint32(n.kind)|n.mode, int(n.rdev))
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(path, n.uid, n.gid); err != nil {
		return err
	}
	if n.kind == unix.S_IFLNK {
		return nil
	}
	if err := unix.Chmod(path, n.mode); err != nil {
		return err
	}
	return n.writeXattrs(path)
}

// writeXattrs gives path the extended attributes of n, and no others.
func (n node) writeXattrs(path string) error {
	old, err := rootfs.Xattrs(path)
	if err != nil {
		return err
	}
	for name := range old {
		if _, keep := n.xattrs[name]; !keep {
			if err := unix.Lremovexattr(path, name); err != nil {
				return &fs.PathError{Op: "lremovexattr " + name, Path: path, Err: err}
			}
		}
	}
	for name, value := range n.xattrs {
		if err := unix.Lsetxattr(path, name, value, 0); err != nil {
			return &fs.PathError{Op: "lsetxattr " + name, Path: path, Err: err}
		}
	}
	return nil
}

func writeFile(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, bytes.NewReader(content))
	return err
}
