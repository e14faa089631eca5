// Package gitversion derives a package version from a git repository, so that
// dpkg orders versions as the history orders commits.
//
// The version of a commit is made of the highest tag among its ancestors, the
// number of commits that are ancestors of it but not of the tag, and its hash:
//
//	v1.2.3, the commit itself         1.2.3
//	twelve commits later              1.2.3+12.gabcdef0123
//	the same with changes, not
//	committed                         1.2.3+12.gabcdef0123+dirty.20260102030405
//	v1.3.0-rc1                        1.3.0~rc1
//	before the first tag              0~12.gabcdef0123
//
// A commit's version is higher than that of each of its ancestors, whatever
// branches and merges lie between: its ancestors include theirs, so the
// highest tag cannot become lower and, under one tag, the number grows. That
// is why the number counts all ancestors; along first parents alone, merging a
// long branch would go back behind the branch's own versions. It is also why
// the highest tag is taken and not, as git describe does, the nearest: merging
// an old release's fix must not lower the version.
//
// One promise is the tags' own: a tag that extends the one before it by a
// letter or a hyphen (1.2.3, then 1.2.3a) sorts below the commits between
// them. Tags with a plus are ignored, since it is what counts commits.
package gitversion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/deb"
)

// hashDigits is fixed, since git's own abbreviation grows with the clone.
const hashDigits = 10

// Why a directory has no version from git.
var (
	ErrNoRepository = errors.New("it is not in a git work tree")
	ErrNoCommit     = errors.New("nothing is committed yet")
	ErrShallow      = errors.New("the clone is shallow, so its commits cannot be counted")
)

// Commit is what git knows about a source directory.
type Commit struct {
	Hash  string    // hexadecimal, of the commit checked out
	Time  time.Time // when it was committed
	Dirty bool      // files differ from the commit

	repository repository
	changed    time.Time // of the newest change; zero for a clean tree
}

// Inspect finds the commit that is checked out in a directory's work tree.
// sources are the files and directories the package is made of, as absolute
// paths without symbolic links: an untracked file among them that is not ignored makes the tree dirty, as a change of a
// tracked file anywhere in it does.
func Inspect(ctx context.Context, dir string, sources []string) (Commit, error) {
	g := repository{dir}
	fail := func(err error) (Commit, error) {
		return Commit{}, fmt.Errorf("cannot read git's history of %s: %w", dir, err)
	}
	top, err := g.run(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		if strings.Contains(err.Error(), "not a git repository") {
			err = ErrNoRepository
		}
		return fail(err)
	}
	g.dir = top
	head, err := g.run(ctx, "log", "-1", "--format=%H %ct", "HEAD")
	if err != nil {
		return fail(ErrNoCommit)
	}
	hash, seconds, _ := strings.Cut(head, " ")
	committed, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fail(err)
	}
	changed, err := g.changes(ctx, sources)
	if err != nil {
		return fail(err)
	}
	return Commit{
		Hash:       hash,
		Time:       time.Unix(committed, 0).UTC(),
		Dirty:      len(changed) > 0,
		repository: g,
		changed:    newest(top, changed),
	}, nil
}

// Version derives the commit's version. A dirty tree's version bears the time
// of its newest change.
func (c Commit) Version(ctx context.Context) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("cannot derive a version from git's history of %s: %w", c.repository.dir, err)
	}
	shallow, err := c.repository.run(ctx, "rev-parse", "--is-shallow-repository")
	if err != nil {
		return fail(err)
	}
	if shallow == "true" {
		return fail(ErrShallow)
	}
	base, count, err := c.repository.base(ctx, c.Hash)
	if err != nil {
		return fail(err)
	}
	v := version(base, count, c.Hash[:min(len(c.Hash), hashDigits)], c.changed)
	if _, err := deb.ParseVersion(v); err != nil {
		return fail(err)
	}
	return v, nil
}

// version assembles the parts; dirty is the zero time for a clean tree.
func version(base string, count int, hash string, dirty time.Time) string {
	v := base
	switch {
	case base == "":
		v = fmt.Sprintf("0~%d.g%s", count, hash)
	case count == 0 && dirty.IsZero():
		return v
	default:
		// A digit ends the base, or else a later "rc1" would be lower than
		// "rc" and its commits: dpkg reads no digits as zero.
		if last := base[len(base)-1]; last < '0' || last > '9' {
			v += "0"
		}
		v += fmt.Sprintf("+%d.g%s", count, hash)
	}
	if !dirty.IsZero() {
		v += "+dirty." + dirty.UTC().Format("20060102150405")
	}
	return v
}

// repository runs git in one directory.
type repository struct{ dir string }

// run returns git's output without the last newline. Nothing of the user's
// environment can change what it means or make it write to the repository.
func (g repository) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// base returns the highest version tag among the ancestors of a commit, and
// how many commits are ancestors of the commit but not of the tag; without a
// tag, how many ancestors it has. A commit counts as its own ancestor.
func (g repository) base(ctx context.Context, commit string) (tag string, count int, err error) {
	names, err := g.run(ctx, "tag", "--merged", commit)
	if err != nil {
		return "", 0, err
	}
	var highest []string // tags that stand for one version
	for name := range strings.Lines(names) {
		name = strings.TrimSpace(name)
		v, ok := FromTag(name)
		if !ok {
			continue
		}
		order := 1
		if tag != "" {
			order = deb.Compare(v, tag)
		}
		switch {
		case order > 0:
			tag, highest = v, []string{name}
		case order == 0:
			tag, highest = min(tag, v), append(highest, name)
		}
	}
	if tag == "" {
		count, err = g.count(ctx, commit)
		return "", count, err
	}
	for _, name := range highest {
		n, err := g.count(ctx, commit, "^refs/tags/"+name)
		if err != nil {
			return "", 0, err
		}
		count = max(count, n)
	}
	return tag, count, nil
}

func (g repository) count(ctx context.Context, revisions ...string) (int, error) {
	out, err := g.run(ctx, append([]string{"rev-list", "--count"}, revisions...)...)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

// changes returns the paths below the top that differ from the commit.
func (g repository) changes(ctx context.Context, sources []string) ([]string, error) {
	tracked, err := g.run(ctx, "-c", "diff.autoRefreshIndex=true", "diff", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", "-z", "HEAD", "--")
	if err != nil {
		return nil, err
	}
	changed := strings.FieldsFunc(tracked, isNUL)
	untracked, err := g.run(ctx, "ls-files", "--others", "--exclude-standard", "-z")
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(sources))
	for _, source := range sources {
		wanted[source] = true
	}
	for _, name := range strings.FieldsFunc(untracked, isNUL) {
		if path := filepath.Join(g.dir, name); isOrIsBelow(path, wanted) || strings.HasSuffix(name, "/") && holds(path, sources) {
			changed = append(changed, name)
		}
	}
	return changed, nil
}

// isOrIsBelow reports whether a path or one of its parents is wanted.
func isOrIsBelow(path string, wanted map[string]bool) bool {
	for ; !wanted[path]; path = filepath.Dir(path) {
		if path == filepath.Dir(path) {
			return false
		}
	}
	return true
}

// holds reports whether one of the sources lies in a directory: git names a
// repository inside the repository as a whole.
func holds(dir string, sources []string) bool {
	return slices.ContainsFunc(sources, func(source string) bool { return strings.HasPrefix(source, dir+"/") })
}

func isNUL(r rune) bool { return r == 0 }

// newest returns the latest time of the changed files, of their directory for
// a file that is gone; the zero time if nothing changed.
func newest(top string, changed []string) time.Time {
	var latest time.Time
	for _, name := range changed {
		path := filepath.Join(top, name)
		info, err := os.Lstat(path)
		for errors.Is(err, fs.ErrNotExist) && path != top {
			path = filepath.Dir(path)
			info, err = os.Lstat(path)
		}
		if err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	if len(changed) > 0 && latest.IsZero() {
		latest = time.Unix(0, 0)
	}
	return latest
}

var (
	versionTag = regexp.MustCompile(`^(?:debian/)?[vV]?(\d[0-9A-Za-z.~-]*)$`)
	prerelease = regexp.MustCompile(`^(\d+(?:\.\d+)*)-([A-Za-z][0-9A-Za-z.-]*)$`)
)

// FromTag returns the version a tag stands for: "v1.2.3", "1.2.3" or
// "debian/1.2.3". ok is false for a tag that is no version.
func FromTag(tag string) (version string, ok bool) {
	match := versionTag.FindStringSubmatch(tag)
	if match == nil {
		return "", false
	}
	version = Normalise(match[1])
	_, err := deb.ParseVersion(version)
	return version, err == nil
}

// Normalise turns a version in the style of semver.org into Debian's: a
// leading v goes, and what follows a hyphen and starts with a letter is a
// pre-release, which sorts before the release: "v1.3.0-rc1" is "1.3.0~rc1".
// A Debian revision ("1.3.0-1") stays.
func Normalise(version string) string {
	if len(version) > 1 && (version[0] == 'v' || version[0] == 'V') && version[1] >= '0' && version[1] <= '9' {
		version = version[1:]
	}
	numbers, metadata, hasMetadata := strings.Cut(version, "+")
	if match := prerelease.FindStringSubmatch(numbers); match != nil {
		version = match[1] + "~" + strings.ReplaceAll(match[2], "-", ".")
		if hasMetadata {
			version += "+" + metadata
		}
	}
	return version
}
