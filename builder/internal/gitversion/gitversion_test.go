package gitversion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
)

// repo is a real git repository with an identity of its own.
type repo struct {
	t       *testing.T
	dir     string
	commits *int // made so far, so that no two are the same
}

func newRepo(t *testing.T) repo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is missing (hint: make test installs it)")
	}
	for name, value := range map[string]string{
		"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
		"GIT_AUTHOR_NAME": "A Tester", "GIT_AUTHOR_EMAIL": "a@test.example", "GIT_COMMITTER_NAME": "A Tester", "GIT_COMMITTER_EMAIL": "a@test.example",
		"GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
	} {
		t.Setenv(name, value)
	}
	r := repo{t, t.TempDir(), new(int)}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r repo) commit() string {
	*r.commits++
	r.git("commit", "-q", "--allow-empty", "-m", fmt.Sprint("change ", *r.commits))
	return r.git("rev-parse", "HEAD")
}

func (r repo) write(name, content string, at time.Time) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, at, at)); err != nil {
		r.t.Fatal(err)
	}
}

func (r repo) inspect(sources ...string) Commit {
	r.t.Helper()
	for i := range sources {
		sources[i] = filepath.Join(r.dir, sources[i])
	}
	c, err := Inspect(context.Background(), r.dir, sources)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r repo) version(sources ...string) string {
	r.t.Helper()
	v, err := r.inspect(sources...).Version(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func TestVersionOfATree(t *testing.T) {
	r := newRepo(t)
	edited := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	r.write("sub/tracked", "one", edited)
	r.git("add", ".")
	short := func() string { return r.git("rev-parse", "--short=10", "HEAD") }
	want := func(format string, args ...any) {
		t.Helper()
		if got, want := r.version("sub", "new"), fmt.Sprintf(format, args...); got != want {
			t.Errorf("the version is %s, want %s", got, want)
		}
	}
	r.commit()
	want("0~1.g%s", short())
	r.git("tag", "v1.2.3")
	r.git("tag", "not-a-version")
	r.git("tag", "1.2.3+4") // a plus counts commits
	want("1.2.3")
	r.write("sub/tracked", "edited", edited)
	want("1.2.3+0.g%s+dirty.20260506070809", short())
	if c := r.inspect(); !c.Dirty || c.Hash != r.git("rev-parse", "HEAD") || !c.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("inspected as %+v", c)
	}
	r.write("sub/tracked", "one", edited.Add(time.Hour)) // only its time differs
	want("1.2.3")
	r.write("new", "untracked", edited)
	if got := r.version("sub"); got != "1.2.3" {
		t.Errorf("with an untracked file that is no source: %s", got)
	}
	want("1.2.3+0.g%s+dirty.20260506070809", short())
	r.write(".git/info/exclude", "new\n", edited)
	want("1.2.3")
	r.git("init", "-q", "sub/inner")
	r.write("sub/inner/file", "x", edited)
	if c := r.inspect("sub/inner/file"); !c.Dirty {
		t.Error("a file of a repository inside the repository goes unnoticed")
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "sub/inner")); err != nil {
		t.Fatal(err)
	}
	r.commit()
	want("1.2.3+1.g%s", short())
	if err := os.Remove(filepath.Join(r.dir, "sub/tracked")); err != nil {
		t.Fatal(err)
	}
	if got := r.version(); !strings.HasPrefix(got, "1.2.3+1.g"+short()+"+dirty.2") {
		t.Errorf("with a file gone: %s", got)
	}
	r.git("checkout", "-q", ".")
	r.git("tag", "-a", "-m", "annotated", "v1.3.0-rc1")
	want("1.3.0~rc1")
	r.commit()
	want("1.3.0~rc1+1.g%s", short())
	r.git("tag", "v1.3.0-rc")
	want("1.3.0~rc1+1.g%s", short()) // rc is below rc1
	r.git("tag", "v1.3.0")
	want("1.3.0")
	below, err := Inspect(context.Background(), filepath.Join(r.dir, "sub"), nil)
	if v, err2 := below.Version(context.Background()); err != nil || err2 != nil || v != "1.3.0" {
		t.Errorf("in a subdirectory: %s, %v, %v", v, err, err2)
	}
}

func TestNoVersion(t *testing.T) {
	r := newRepo(t)
	if _, err := Inspect(context.Background(), r.dir, nil); !errors.Is(err, ErrNoCommit) {
		t.Errorf("without a commit: %v", err)
	}
	if _, err := Inspect(context.Background(), t.TempDir(), nil); !errors.Is(err, ErrNoRepository) {
		t.Errorf("without a repository: %v", err)
	}
	r.commit()
	r.commit()
	clone := t.TempDir()
	r.git("clone", "-q", "--depth=1", "file://"+r.dir, clone)
	c, err := Inspect(context.Background(), clone, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Version(context.Background()); !errors.Is(err, ErrShallow) {
		t.Errorf("of a shallow clone: %s, %v", v, err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Inspect(context.Background(), r.dir, nil); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without git: %v", err)
	}
}

func TestNormalise(t *testing.T) {
	for text, want := range map[string]string{
		"1.2.3": "1.2.3", "v1.2.3": "1.2.3", "V2": "2", "v1.3.0-rc1": "1.3.0~rc1", "1.3.0-beta.2": "1.3.0~beta.2", "1.3.0-rc-x1": "1.3.0~rc.x1", "1.3.0-1": "1.3.0-1", "2.0-rc1+b5": "2.0~rc1+b5",
		"version": "version", "": "", "v": "v", "1:2.0-1": "1:2.0-1",
	} {
		if got := Normalise(text); got != want {
			t.Errorf("Normalise(%q) = %q, want %q", text, got, want)
		}
	}
	for _, tag := range []string{"nightly", "v", "vnext", "release/1.0", "v1.0+build", "v1.0/2", "v1_0"} {
		if v, ok := FromTag(tag); ok {
			t.Errorf("the tag %q became version %q", tag, v)
		}
	}
	for tag, want := range map[string]string{"v1.0": "1.0", "1.0": "1.0", "debian/1.0-1": "1.0-1", "v1.0.0-alpha": "1.0.0~alpha"} {
		if v, ok := FromTag(tag); !ok || v != want {
			t.Errorf("the tag %q became version %q, %t", tag, v, ok)
		}
	}
}

// order is a pair of versions of which dpkg must find the first one lower.
type order struct {
	lower, higher string
	orEqual       bool
	why           string
}

// judge asks the real dpkg about all pairs.
func judge(t *testing.T, orders []order) {
	t.Helper()
	var script bytes.Buffer
	for i, o := range orders {
		relation := "lt"
		if o.orEqual {
			relation = "le"
		}
		fmt.Fprintf(&script, "dpkg --compare-versions '%s' %s '%s' || echo %d\n", o.lower, relation, o.higher, i)
	}
	cmd := exec.Command("sh")
	cmd.Stdin = &script
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var i int
		if _, err := fmt.Sscan(line, &i); err != nil {
			t.Fatalf("dpkg said: %s", line)
		}
		t.Errorf("%s: %s is not lower than %s", orders[i].why, orders[i].lower, orders[i].higher)
	}
}

// history grows a random repository: commits on the main line and on
// branches, merges in both directions, releases, pre-releases, and fixes of
// old releases that are merged back.
type history struct {
	repo
	random  *rand.Rand
	numbers [3]int
	pre     int
	made    map[string]string // version of each commit when it was made
	orders  []order
}

// at derives the version of any commit, for each time of changes given.
func (h *history) at(commit string, changed ...time.Time) []string {
	tag, count, err := repository{h.dir}.base(context.Background(), commit)
	if err != nil {
		h.t.Fatal(err)
	}
	var versions []string
	for _, at := range changed {
		versions = append(versions, version(tag, count, commit[:hashDigits], at))
	}
	return versions
}

func (h *history) clean(commit string) string { return h.at(commit, time.Time{})[0] }

func (h *history) record(commit string) {
	v := h.clean(commit)
	h.made[commit] = v
	for _, parent := range strings.Fields(h.git("log", "-1", "--format=%P", commit)) {
		of := h.at(parent, time.Time{}, time.Unix(1_800_000_000, 0), time.Unix(1_900_000_000, 0))
		h.orders = append(h.orders,
			order{h.made[parent], v, false, "a commit when it was made, after its parent"},
			order{of[0], of[1], false, "changes after their commit"},
			order{of[1], of[2], false, "later changes after earlier ones"},
			order{of[2], v, false, "a commit after changes of its parent"})
	}
}

// tag releases the current commit: the next pre-release, or a higher version.
func (h *history) tag() {
	name := ""
	prereleases := []string{"-alpha", "-alpha2", "-beta", "-beta.1", "-rc", "-rc1", "-rc2", "-rc10"}
	switch {
	case h.pre > 0 && h.pre < len(prereleases) && h.random.IntN(3) > 0:
		name = prereleases[h.pre]
		h.pre += 1 + h.random.IntN(2)
	case h.pre > 0:
		h.pre = 0
	default:
		at := h.random.IntN(3)
		h.numbers[at]++
		clear(h.numbers[at+1:])
		if h.random.IntN(2) == 0 {
			name, h.pre = prereleases[0], 1
		}
	}
	name = fmt.Sprintf("v%d.%d.%d", h.numbers[0], h.numbers[1], h.numbers[2]) + name
	head := h.git("rev-parse", "HEAD")
	before := h.clean(head)
	h.git("tag", name)
	after := h.clean(head)
	h.orders = append(h.orders, order{before, after, false, "the tag " + name + " after the commit it names"})
	if want, _ := FromTag(name); after != want {
		h.t.Errorf("the commit tagged %s has the version %s", name, after)
	}
}

func TestVersionsSortInCommitOrder(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Fatal("dpkg is missing (hint: make test installs it)")
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h := &history{repo: newRepo(t), random: rand.New(rand.NewPCG(seed, 0)), made: map[string]string{}}
			h.record(h.commit())
			branches := []string{"main"}
			for i := range 25 {
				switch h.random.IntN(8) {
				case 0, 1, 2:
					h.record(h.commit())
				case 3:
					name := fmt.Sprint("branch", i)
					h.git("checkout", "-q", "-b", name)
					branches = append(branches, name)
					h.record(h.commit())
				case 4:
					h.git("checkout", "-q", branches[h.random.IntN(len(branches))])
				case 5, 6:
					before := h.git("rev-parse", "HEAD")
					h.git("merge", "-q", "--no-ff", "--no-edit", branches[h.random.IntN(len(branches))])
					if after := h.git("rev-parse", "HEAD"); after != before {
						h.record(after)
					}
				case 7:
					// The main line alone makes new versions; it has all earlier ones.
					h.git("checkout", "-q", "main")
					h.tag()
				}
			}
			judge(t, h.orders)
			// With all tags in place, along every edge of the history.
			var orders []order
			final := map[string]string{}
			for commit := range h.made {
				final[commit] = h.clean(commit)
			}
			for line := range strings.Lines(h.git("log", "--all", "--format=%H %P")) {
				commits := strings.Fields(line)
				for _, parent := range commits[1:] {
					orders = append(orders, order{final[parent], final[commits[0]], false, "an edge of the finished history"})
				}
				orders = append(orders, order{h.made[commits[0]], final[commits[0]], true, "a commit that was tagged later"})
			}
			judge(t, orders)
			if len(h.orders) < 40 {
				t.Errorf("only %d pairs were judged", len(h.orders))
			}
		})
	}
}

// TestAFixOfAnOldReleaseDoesNotLowerTheVersion is the case in which the
// nearest tag is not the highest.
func TestAFixOfAnOldReleaseDoesNotLowerTheVersion(t *testing.T) {
	r := newRepo(t)
	r.commit()
	r.git("tag", "v1.0.0")
	r.git("branch", "old")
	r.commit()
	r.git("tag", "v2.0.0")
	r.commit()
	before := r.version()
	r.git("checkout", "-q", "old")
	for range 5 {
		r.commit()
	}
	r.git("tag", "v1.0.1")
	if got := r.version(); got != "1.0.1" {
		t.Errorf("the fix is version %s", got)
	}
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-ff", "--no-edit", "old")
	if after := r.version(); deb.Compare(before, after) >= 0 || !strings.HasPrefix(after, "2.0.0+7.g") {
		t.Errorf("before the merge %s, after it %s", before, after)
	}
}
