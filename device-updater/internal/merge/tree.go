// Package merge carries local changes of /etc into a new deployment: three
// trees, the base that the new release was installed from, the running one and
// the new one.
//
// What was changed locally since the base goes into the new tree. Where the
// release changed the same file too, the local one stays and the release's is
// written beside it as NAME.aptfleet-new, as dpkg does with .dpkg-dist. Content,
// mode, owner and attributes are merged each for itself. The account files are
// merged line by line.
package merge

import (
	"bytes"
	"cmp"
	"context"
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

// Result is what became of the local changes. Paths are below the tree, sorted.
type Result struct {
	Taken     []string   // what was carried over
	Conflicts []Conflict // what a person has to look at
	// Manifest lists what the tree holds then (rootfs.WriteManifest): later it
	// tells what was changed since.
	Manifest []byte
}

// Kind says what collided.
type Kind string

// The kinds of Conflict. In all but Gone the local version stayed.
const (
	Edited     Kind = "edited"     // changed on both sides
	Deleted    Kind = "deleted"    // deleted here, changed by the release
	Dropped    Kind = "dropped"    // changed here, deleted by the release
	Attributes Kind = "attributes" // mode, owner or extended attributes changed on both sides
	Gone       Kind = "gone"       // the alternative that was chosen here is not in the release, whose choice stands
	Unresolved Kind = "unresolved" // of an earlier release, whose version still lies beside it
)

// Conflict is one thing that was changed here and by the release.
type Conflict struct {
	Path    string `json:"path"`
	Account string `json:"account,omitempty"` // in an account file: whose line
	Kind    Kind   `json:"kind"`
	Beside  string `json:"beside,omitempty"` // where the release's version lies; "": nowhere
}

// generated are files that programs make from others: each root keeps its own.
var generated = []string{
	"ld.so.cache", ".updated", ".pwd.lock", "systemd/system/aptfleet-trial.timer.d", "systemd/system.conf.d/00-aptfleet-watchdog.conf",
	"passwd-", "group-", "shadow-", "gshadow-", "subuid-", "subgid-",
}

// machineID belongs to the machine, whatever a release makes of it.
const machineID = "machine-id"

func isGenerated(path string) bool {
	for _, g := range generated {
		if path == g || strings.HasPrefix(path, g+"/") {
			return true
		}
	}
	return false
}

// isBeside reports whether path is a version of the release that an earlier
// merge wrote, or lies below one.
func isBeside(path string) bool {
	return strings.HasSuffix(path, Suffix) || strings.Contains(path, Suffix+"/")
}

// Trees merges the changes from base to running into target. All three are
// directories, target that of a root; it is changed in place and good for
// nothing after an error. Done twice it changes nothing more.
func Trees(base, running, target string) (Result, error) {
	m := &merger{base: base, running: running, target: target, done: make(map[string]bool)}
	paths, err := union(base, running)
	if err != nil {
		return Result{}, err
	}
	if err := m.accounts(); err != nil {
		return Result{}, err
	}
	for _, path := range paths {
		if m.done[path] || isGenerated(path) || isBeside(path) {
			continue
		}
		if err := m.path(path); err != nil {
			return Result{}, fmt.Errorf("cannot merge %s: %w", path, err)
		}
	}
	// Children before their directories; a directory that the release filled
	// stays.
	slices.Reverse(m.removed)
	for _, path := range m.removed {
		if err := os.Remove(filepath.Join(target, path)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return Result{}, fmt.Errorf("cannot merge %s: %w", path, err)
		}
	}
	if err := m.leftovers(); err != nil {
		return Result{}, err
	}
	return m.finish()
}

// merger is one merge under way.
type merger struct {
	base, running, target string
	result                Result
	removed               []string        // local deletions that are left to do
	done                  map[string]bool // paths that are settled
}

// finish sorts the result and lists the tree.
func (m *merger) finish() (Result, error) {
	slices.Sort(m.result.Taken)
	m.result.Taken = slices.Compact(m.result.Taken)
	slices.SortStableFunc(m.result.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Account, b.Account))
	})
	var manifest bytes.Buffer
	if err := rootfs.WriteManifest(context.Background(), &manifest, m.target, nil); err != nil {
		return Result{}, err
	}
	m.result.Manifest = manifest.Bytes()
	return m.result, nil
}

func (m *merger) conflict(c Conflict) { m.result.Conflicts = append(m.result.Conflicts, c) }
func (m *merger) taken(path string)   { m.result.Taken = append(m.result.Taken, path) }

// path carries the local change of one path over, if there is one.
func (m *merger) path(path string) error {
	c, err := m.load(path)
	if err != nil {
		return err
	}
	switch {
	case path == machineID && c.running.kind == unix.S_IFREG:
		if c.running.equal(c.target) {
			return nil
		}
		return m.put(path, c.running)
	case c.base.equal(c.running), c.running.equal(c.target):
		return nil
	case isAlternative(path) && m.gone(c.running):
		m.conflict(Conflict{Path: path, Kind: Gone})
		return nil
	case c.oneKind():
		return m.pieces(path, c)
	}
	return m.whole(path, c)
}

// pieces merges what is of one type on all sides: content apart from mode,
// owner and attributes.
func (m *merger) pieces(path string, c change) error {
	merged, kind := c.pieces()
	found := Conflict{Path: path, Kind: kind}
	if kind == Edited {
		var err error
		if found.Beside, err = m.keepBeside(path, c.target); err != nil {
			return err
		}
	}
	if kind != "" {
		m.conflict(found)
	}
	if kind == "" {
		m.taken(path)
	}
	if merged.equal(c.target) {
		return nil
	}
	return m.put(path, merged)
}

// whole merges what is not of one type on all sides, or is not there on one:
// the local version stays.
func (m *merger) whole(path string, c change) error {
	touched := !c.base.equal(c.target)
	if c.target.kind == unix.S_IFDIR {
		if c.running.kind == absent {
			// It goes if nothing of the release is left in it.
			m.taken(path)
			m.removed = append(m.removed, path)
			return nil
		}
		// Something else stands here: what is new in the release's directory
		// must not go unsaid.
		differ, err := m.differBelow(path)
		if err != nil {
			return err
		}
		touched = touched || differ
	}
	if !touched {
		m.taken(path)
	} else {
		found := Conflict{Path: path, Kind: Edited}
		switch {
		case c.running.kind == absent:
			found.Kind = Deleted
		case c.target.kind == absent:
			found.Kind = Dropped
		}
		var err error
		if found.Beside, err = m.keepBeside(path, c.target); err != nil {
			return err
		}
		m.conflict(found)
	}
	if c.running.kind == absent {
		m.removed = append(m.removed, path)
		return nil
	}
	return m.put(path, c.running)
}

// keepBeside puts the release's version of path beside it and returns its path,
// "" where there is none or its name would be too long. A directory is moved
// there.
func (m *merger) keepBeside(path string, n node) (string, error) {
	beside := path + Suffix
	if n.kind == absent || len(filepath.Base(beside)) > maxName {
		return "", nil
	}
	if err := os.RemoveAll(filepath.Join(m.target, beside)); err != nil {
		return "", err
	}
	m.done[beside] = true
	if n.kind == unix.S_IFDIR {
		return beside, os.Rename(filepath.Join(m.target, path), filepath.Join(m.target, beside))
	}
	return beside, m.put(beside, n)
}

// maxName is the longest name that file systems take, in bytes.
const maxName = 255

// put makes path of the target what n is. Directories on the way that the
// release has no more are made as they are here.
func (m *merger) put(path string, n node) error {
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		above := path[:i]
		there, err := load(m.target, above)
		if err != nil {
			return err
		}
		switch there.kind {
		case unix.S_IFDIR:
			continue
		case unix.S_IFLNK:
			return fmt.Errorf("it was changed locally, and the release made %s a symbolic link", above)
		case absent:
		default:
			return fmt.Errorf("it was changed locally, and the release made %s a file", above)
		}
		here, err := load(m.running, above)
		if err == nil && here.kind == unix.S_IFDIR {
			err = here.write(m.target, above)
		}
		if err != nil {
			return err
		}
	}
	return n.write(m.target, path)
}

// differBelow reports whether the release changed anything below a directory.
func (m *merger) differBelow(path string) (bool, error) {
	was, err := load(m.base, path)
	if err != nil || was.kind != unix.S_IFDIR {
		return true, err
	}
	paths, err := union(filepath.Join(m.base, path), filepath.Join(m.target, path))
	if err != nil {
		return false, err
	}
	for _, rel := range paths {
		rel = filepath.Join(path, rel)
		was, err := load(m.base, rel)
		if err != nil {
			return false, err
		}
		is, err := load(m.target, rel)
		if err != nil {
			return false, err
		}
		if !was.equal(is) {
			return true, nil
		}
	}
	return false, nil
}

// isAlternative tells the links of update-alternatives(1).
func isAlternative(path string) bool { return filepath.Dir(path) == "alternatives" }

// gone reports whether n is an absolute link to what is not in the new root.
func (m *merger) gone(n node) bool {
	to := string(n.content)
	if n.kind != unix.S_IFLNK || !filepath.IsAbs(to) {
		return false
	}
	root, err := os.OpenRoot(filepath.Dir(m.target))
	if err != nil {
		return false
	}
	defer root.Close()
	_, err = root.Lstat(strings.TrimPrefix(filepath.Clean(to), "/"))
	return errors.Is(err, fs.ErrNotExist)
}

// leftovers looks at what earlier merges put beside files. It stays for as long
// as nobody has resolved the conflict: by deleting it, by making the two equal,
// or with a newer version of the release.
func (m *merger) leftovers() error {
	paths, err := union(m.running, m.target)
	if err != nil {
		return err
	}
	for _, path := range paths {
		if m.done[path] || !strings.HasSuffix(path, Suffix) || isBeside(filepath.Dir(path)+"/") {
			continue
		}
		if err := m.leftover(path); err != nil {
			return fmt.Errorf("cannot merge %s: %w", path, err)
		}
	}
	return nil
}

func (m *merger) leftover(path string) error {
	beside, err := m.load(path)
	if err != nil {
		return err
	}
	file, err := m.load(strings.TrimSuffix(path, Suffix))
	if err != nil {
		return err
	}
	if beside.running.kind == absent && beside.base.kind == absent {
		return nil // of this very merge
	}
	open := beside.running.kind != absent && file.running.same(file.target) && !beside.running.same(file.running)
	if open {
		if open, err = m.newest(strings.TrimSuffix(path, Suffix)); err != nil {
			return err
		}
	}
	if !open {
		return os.RemoveAll(filepath.Join(m.target, path))
	}
	m.conflict(Conflict{Path: strings.TrimSuffix(path, Suffix), Kind: Unresolved, Beside: path})
	if beside.running.equal(beside.target) || !beside.target.equal(beside.base) {
		return nil // or merged before
	}
	return m.put(path, beside.running)
}

// newest reports whether INSTALL put no newer version beside a file than the
// one that an earlier merge did: dpkg and ucf do so where the local one stays.
func (m *merger) newest(path string) (bool, error) {
	for _, suffix := range []string{".dpkg-dist", ".ucf-dist"} {
		c, err := m.load(path + suffix)
		if err != nil {
			return false, err
		}
		if c.target.kind != absent && !c.target.same(c.base) {
			return false, nil
		}
	}
	return true, nil
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

// same reports whether type and content are the same, whatever the rest.
func (n node) same(o node) bool {
	return n.kind == o.kind && n.rdev == o.rdev && bytes.Equal(n.content, o.content)
}

// change is one path in the three trees.
type change struct{ base, running, target node }

func (m *merger) load(path string) (c change, err error) {
	for _, side := range []struct {
		tree string
		to   *node
	}{{m.base, &c.base}, {m.running, &c.running}, {m.target, &c.target}} {
		if *side.to, err = load(side.tree, path); err != nil {
			return c, err
		}
	}
	return c, nil
}

// oneKind reports whether all three sides are of one type.
func (c change) oneKind() bool {
	return c.base.kind == c.running.kind && c.running.kind == c.target.kind
}

// pieces merges content, mode, owner and attributes each for itself. Where both
// sides changed one of them, the local one stays; kind says so, content first.
func (c change) pieces() (merged node, kind Kind) {
	merged = c.target
	collide := func(differs func(a, b node) bool, as Kind, take func()) {
		if !differs(c.base, c.running) {
			return
		}
		take()
		if kind == "" && differs(c.base, c.target) && differs(c.running, c.target) {
			kind = as
		}
	}
	collide(func(a, b node) bool { return !a.same(b) }, Edited, func() { merged.content, merged.rdev = c.running.content, c.running.rdev })
	collide(func(a, b node) bool { return a.mode != b.mode }, Attributes, func() { merged.mode = c.running.mode })
	collide(func(a, b node) bool { return a.uid != b.uid || a.gid != b.gid }, Attributes, func() { merged.uid, merged.gid = c.running.uid, c.running.gid })
	collide(func(a, b node) bool { return !maps.EqualFunc(a.xattrs, b.xattrs, bytes.Equal) }, Attributes, func() { merged.xattrs = c.running.xattrs })
	return merged, kind
}

// write makes path within tree what n is. The directory that it is in must be
// there and be reached without links.
func (n node) write(tree, path string) error {
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
