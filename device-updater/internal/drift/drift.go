// Package drift compares a root with what its packages brought and with the
// manifest of its installation, and says what was changed since.
//
// dpkg knows the content of most files of its packages (dpkg -V), and nothing
// of their mode, owner, attributes and links, nor of packages without md5sums.
// The manifest knows all of that, but was not written by the packages. So
// content is judged by dpkg's own sums where there are any, everything else by
// the manifest; a root without a manifest, by the sums alone.
//
// What the administrator may change is told, and is no damage: configuration
// files that were edited or deleted, local diversions, overrides of mode and
// owner. Alternatives are links that no package has: they are not looked at.
package drift

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/rootfs"
)

// Kind says in which way a file is not as it was installed.
type Kind string

// The kinds of Damage.
const (
	Missing    Kind = "missing"
	Content    Kind = "content"
	Type       Kind = "type"       // a link where a file was, and the like
	Permission Kind = "permission" // mode, owner or extended attributes
)

// Damage is one file or directory of a package that is not as it was installed.
type Damage struct {
	Path     string   `json:"path"`
	Kind     Kind     `json:"kind"`
	Packages []string `json:"packages"` // that have it: "name", or "name:architecture" where dpkg says so

	real  string       // Path without links
	want  rootfs.Entry // what the manifest has
	known bool         // it has something
}

// Place is the path in which no directory is a link.
func (d Damage) Place() string { return d.real }

// Config is a configuration file that was changed locally.
type Config struct {
	Path    string `json:"path"`
	Package string `json:"package"`
	Deleted bool   `json:"deleted,omitempty"` // else it was edited
}

// Report is what Check found. All lists are sorted by path.
type Report struct {
	Damage    []Damage `json:"damage"`
	Config    []Config `json:"config"`
	Diverted  []string `json:"diverted"`  // files of packages that a person put elsewhere with dpkg-divert
	Overrides []string `json:"overrides"` // files whose mode and owner somebody fixed with dpkg-statoverride: packages' scripts do, too
	// Unowned are files that no package has, and that no installation made or
	// that were changed since. Of a directory that is new as a whole, it is the
	// directory, with a slash at its end.
	Unowned []string `json:"unowned"`
	// Recorded says that there was a manifest: without one only Damage of
	// content, and what is missing, can be found.
	Recorded bool `json:"recorded"`
	Files    int  `json:"files"` // of packages that were compared

	owned map[string]bool // paths, without links, that packages have
}

// Owned reports whether a package has the path, in which no directory is a
// link.
func (r Report) Owned(path string) bool { return r.owned[path] }

// Stray returns a function that tells which paths are among those of Unowned,
// or below them.
func (r Report) Stray() func(path string) bool {
	all := make(map[string]bool)
	for _, p := range r.Unowned {
		all[p] = true
	}
	return func(p string) bool {
		if len(all) == 0 || all[p] {
			return len(all) > 0
		}
		for ; p != "/"; p = path.Dir(p) {
			if all[p+"/"] {
				return true
			}
		}
		return false
	}
}

// Clean reports whether all files of packages are as they were installed, and
// nothing else is there.
func (r Report) Clean() bool { return len(r.Damage) == 0 && len(r.Unowned) == 0 }

// Packages are those that must be installed again to mend the damage, sorted.
func (r Report) Packages() []string {
	var names []string
	for _, d := range r.Damage {
		if !d.mended() {
			names = append(names, d.Packages...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// mended reports whether Mend alone is enough: dpkg leaves directories that it
// finds as they are.
func (d Damage) mended() bool { return d.known && d.want.Kind == 'd' }

// local are the directories whose contents belong to the machine and to who
// cares for it: only the content of what packages have there is judged.
var local = []string{
	"/etc", "/var", "/run", "/tmp", "/dev", "/proc", "/sys", "/home", "/root", "/srv", "/mnt", "/media", "/usr/local", "/lost+found", "/sysroot", "/boot-control",
}

// fleeting are the directories of which nothing lasts.
var fleeting = []string{"/run", "/tmp", "/dev", "/proc", "/sys"}

func below(rel string, dirs []string) bool {
	for _, d := range dirs {
		if rel == d || strings.HasPrefix(rel, d+"/") {
			return true
		}
	}
	return false
}

// Check compares root with its dpkg database and with manifest, nil if there is
// none. It reads every file of every package.
func Check(ctx context.Context, root string, manifest map[string]rootfs.Entry) (Report, error) {
	return run(ctx, root, manifest, nil)
}

// Changed is Check for a root of which manifest is the record: files that have
// the stamp that is recorded there are not read.
func Changed(ctx context.Context, root string, manifest map[string]rootfs.Entry) (Report, error) {
	return run(ctx, root, manifest, manifest)
}

// Installed is Check without a manifest for a root that was made from one of
// which before is the record, and in which packages were installed since: only
// what that touched is read.
func Installed(ctx context.Context, root string, before map[string]rootfs.Entry) (Report, error) {
	return run(ctx, root, nil, before)
}

// run compares root with manifest and does not read what has a stamp of before.
func run(ctx context.Context, root string, manifest, before map[string]rootfs.Entry) (Report, error) {
	r := Report{Damage: []Damage{}, Config: []Config{}, Diverted: []string{}, Overrides: []string{}, Unowned: []string{}, Recorded: manifest != nil}
	fail := func(err error) (Report, error) {
		return Report{}, fmt.Errorf("cannot compare %s with its packages: %w", root, err)
	}
	db, err := readDatabase(root)
	if err != nil {
		return fail(err)
	}
	c := &check{
		ctx: ctx, root: root, db: db, manifest: manifest, before: before,
		dirs: make(map[string]string), seen: make(map[string]bool), sums: make(map[string]bool), report: &r,
	}
	if err := c.packages(); err != nil {
		return fail(err)
	}
	if manifest != nil {
		if err := c.others(); err != nil {
			return fail(err)
		}
	}
	r.owned = c.seen
	r.Diverted, r.Overrides = append(r.Diverted, db.localDiversions()...), append(r.Overrides, db.overrideList()...)
	slices.SortFunc(r.Config, func(a, b Config) int { return cmp.Compare(a.Path, b.Path) })
	return r, nil
}

type check struct {
	ctx      context.Context
	root     string
	db       *database
	manifest map[string]rootfs.Entry // nil: there is none
	before   map[string]rootfs.Entry // whose stamps tell what need not be read
	sums     map[string]bool         // by package: whether its md5sums are those of before
	dirs     map[string]string       // directory as packages call it → without links
	seen     map[string]bool         // paths without links that packages have
	report   *Report
}

// packages judges every file that a package has.
func (c *check) packages() error {
	replaced := "" // a directory that is none any more: all below it is lost
	for _, rel := range slices.Sorted(maps.Keys(c.db.files)) {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		f := c.db.files[rel]
		real, err := c.withoutLinks(rel)
		if err != nil {
			return err
		}
		c.seen[real] = true
		c.report.Files++
		if below(rel, fleeting) {
			continue
		}
		if replaced != "" && strings.HasPrefix(rel, replaced+"/") {
			c.damage(Damage{Path: rel, Kind: Missing, Packages: f.packages, real: rel})
			continue
		}
		kind, err := c.judge(rel, real, f)
		if err != nil {
			return err
		}
		if kind == "" {
			continue
		}
		want, known := c.manifest[real]
		c.damage(Damage{Path: rel, Kind: kind, Packages: f.packages, real: real, want: want, known: known})
		if kind == Type && want.Kind == 'd' {
			replaced = rel
		}
	}
	return nil
}

func (c *check) damage(d Damage) { c.report.Damage = append(c.report.Damage, d) }

// judge returns in which way one file is damaged, "" if it is not.
func (c *check) judge(rel, real string, f *file) (Kind, error) {
	outside := filepath.Join(c.root, real)
	got, err := rootfs.Describe(outside, false)
	if f.conffile {
		return "", c.config(rel, outside, f, got, err)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		if c.db.excluded(rel) {
			return "", nil
		}
		return Missing, nil
	}
	if err != nil {
		return "", err
	}
	want, known := c.manifest[real]
	if known && got.Kind != want.Kind || !known && f.sum != "" && got.Kind != 'f' {
		return Type, nil
	}
	untouched, err := c.untouched(real, outside, f.packages[0])
	switch {
	case err != nil:
		return "", err
	case untouched:
		// It is what it was, which its package wanted.
	case got.Kind == 'f' && f.sum != "":
		sum, err := fileSum(outside)
		if err != nil {
			return "", err
		}
		if sum != f.sum {
			return Content, nil
		}
	case got.Kind == 'f' && known && !below(rel, local):
		if got, err = rootfs.Describe(outside, true); err != nil {
			return "", err
		}
		if got.Content != want.Content {
			return Content, nil
		}
	case got.Kind != 'f' && known && got.Content != want.Content && !below(rel, local):
		return Content, nil
	}
	if known && !below(rel, local) && !c.permitted(rel, got, want) {
		return Permission, nil
	}
	return "", nil
}

// untouched reports whether a file of a package has the stamp that it had when
// it was found to be as the package wants it, and the package wants it as it did
// then.
func (c *check) untouched(real, outside, name string) (bool, error) {
	same, err := c.stamped(real, outside)
	if !same || err != nil {
		return false, err
	}
	sums, ok := c.sums[name]
	if !ok {
		rel := "/" + dpkgDir + "/info/" + name + ".md5sums"
		sums, err = c.stamped(rel, filepath.Join(c.root, rel))
		if errors.Is(err, fs.ErrNotExist) {
			_, had := c.before[rel]
			sums, err = !had, nil
		}
		c.sums[name] = sums
	}
	return sums, err
}

// stamped reports whether a file has the stamp of before.
func (c *check) stamped(real, outside string) (bool, error) {
	was := c.before[real].Stamp
	if was == (rootfs.Stamp{}) {
		return false, nil
	}
	now, err := rootfs.StampOf(outside)
	return now == was, err
}

// permitted compares mode, owner and attributes. Of a file with an override, the
// mode must be that or the recorded one; its owner is left to dpkg.
func (c *check) permitted(rel string, got, want rootfs.Entry) bool {
	if mode, ok := c.db.overrides[rel]; ok {
		return (got.Mode == mode || got.Mode == want.Mode) && got.Xattrs == want.Xattrs
	}
	return got.Mode == want.Mode && got.UID == want.UID && got.GID == want.GID && got.Xattrs == want.Xattrs
}

// config judges a configuration file by the sum that dpkg keeps of the
// package's own version.
func (c *check) config(rel, outside string, f *file, got rootfs.Entry, err error) error {
	changed := Config{Path: rel, Package: f.packages[0]}
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		changed.Deleted = true
	case err != nil:
		return err
	case got.Kind == 'f' && f.sum != "":
		sum, err := fileSum(outside)
		if err != nil {
			return err
		}
		if sum == f.sum {
			return nil
		}
	case f.sum == "":
		return nil
	}
	c.report.Config = append(c.report.Config, changed)
	return nil
}

// others looks for files that no package has.
func (c *check) others() error {
	return rootfs.Walk(c.ctx, c.root, func(rel, outside string, st *unix.Stat_t) error {
		directory := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if below(rel, local) {
			if directory {
				return fs.SkipDir
			}
			return nil
		}
		if rel == "/" || c.seen[rel] {
			return nil
		}
		want, known := c.manifest[rel]
		same, err := c.stamped(rel, outside)
		if err != nil {
			return err
		}
		got, err := rootfs.Describe(outside, !same)
		if err != nil {
			return err
		}
		if same {
			got.Content = want.Content
		}
		if got.Kind == 'l' && strings.HasPrefix(got.Content, `"/etc/alternatives/`) {
			return nil
		}
		known = known && !want.Strange
		want.Strange, want.Stamp = false, rootfs.Stamp{}
		if known && got == want {
			return nil
		}
		if directory {
			if known {
				return nil // what is new in it is told
			}
			// One that a package's diversion or an old list made may hold
			// files of packages: then its contents are told one by one.
			if !c.holdsPackages(rel) {
				c.report.Unowned = append(c.report.Unowned, rel+"/")
				return fs.SkipDir
			}
			return nil
		}
		c.report.Unowned = append(c.report.Unowned, rel)
		return nil
	})
}

func (c *check) holdsPackages(dir string) bool {
	for p := range c.seen {
		if strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// withoutLinks returns the path in which no directory is a link: packages may
// say /lib where the root has /usr/lib.
func (c *check) withoutLinks(rel string) (string, error) {
	dir, err := c.directory(path.Dir(rel), 0)
	if err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(rel)), nil
}

// maxLinks is how many links may lead from one to the next (path_resolution(7)).
const maxLinks = 40

func (c *check) directory(dir string, links int) (string, error) {
	if dir == "/" {
		return dir, nil
	}
	if found, ok := c.dirs[dir]; ok {
		return found, nil
	}
	if links > maxLinks {
		return "", fmt.Errorf("%s: %w", dir, unix.ELOOP)
	}
	parent, err := c.directory(path.Dir(dir), links)
	if err != nil {
		return "", err
	}
	found := path.Join(parent, path.Base(dir))
	target, err := os.Readlink(filepath.Join(c.root, found))
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
	case err != nil:
		return "", err
	default:
		if !path.IsAbs(target) {
			target = path.Join(parent, target)
		}
		if found, err = c.directory(path.Clean(target), links+1); err != nil {
			return "", err
		}
	}
	c.dirs[dir] = found
	return found, nil
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := md5.New() // what dpkg keeps
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
