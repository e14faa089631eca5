package apt_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/sign"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main())
	}
	os.Exit(m.Run())
}

// shelf is an archive of hand-made packages, served on loopback.
type shelf struct {
	*apttest.Archive
	t *testing.T
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	return &shelf{apttest.New(t), t}
}

// pkg is a package to make: control fields besides the usual, and files.
type pkg struct {
	name, version, fields string
	files                 map[string]string
	postinst              string
}

// release publishes packages as the contents of a base.
func (s *shelf) release(base string, packages ...pkg) {
	s.t.Helper()
	s.add(base, nil, packages...)
}

// add publishes packages, and stanzas of others, as the contents of a base.
func (s *shelf) add(base string, stanzas []byte, packages ...pkg) {
	s.t.Helper()
	var all []apttest.Package
	for _, p := range packages {
		made := apttest.Package{Name: p.name, Version: p.version, Fields: p.fields, Files: p.files}
		if p.postinst != "" {
			made.Scripts = map[string]string{"postinst": p.postinst}
		}
		all = append(all, made)
	}
	s.Publish(base, stanzas, all)
}

func (s *shelf) private(base string) *apt.Private {
	s.t.Helper()
	p, err := apt.NewPrivate(filepath.Join(s.t.TempDir(), "apt"), apt.Source{
		URL: s.URL + "/" + base, Distribution: "trixie", Components: []string{"main"}, Keyring: s.Keyring,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func names(list []apt.Package) string {
	var all []string
	for _, p := range list {
		all = append(all, p.Name+"="+p.Version)
	}
	return strings.Join(all, " ")
}

// TestSolveDependsOnTheReleaseAlone: the list has essential and required
// packages, what was asked for and what that needs, and nothing recommended.
func TestSolveDependsOnTheReleaseAlone(t *testing.T) {
	s := newShelf(t)
	s.release("one",
		pkg{name: "base", version: "1", fields: "Essential: yes\n"},
		pkg{name: "login", version: "1", fields: "Priority: required\n"},
		pkg{name: "app", version: "1:2.0", fields: "Depends: lib (>= 1) | lib2\nRecommends: extra\n"},
		pkg{name: "lib", version: "1"}, pkg{name: "lib2", version: "1"}, pkg{name: "extra", version: "1"}, pkg{name: "other", version: "1"},
	)
	p := s.private("one")
	if err := p.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := p.Solve(t.Context(), []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(list); got != "app=1:2.0 base=1 lib=1 login=1" {
		t.Errorf("solved to %s", got)
	}
	if inRelease, err := p.InRelease(); err != nil || !bytes.Contains(inRelease, []byte("Codename: trixie")) {
		t.Errorf("InRelease: %q, %v", inRelease, err)
	}
	for _, wanted := range []string{"nowhere", "app-"} {
		if list, err := p.Solve(t.Context(), []string{wanted}); err == nil {
			t.Errorf("%s: solved to %s", wanted, names(list))
		}
	}
}

func TestUpdateRefuses(t *testing.T) {
	stranger, err := sign.Generate("Stranger", "s@aptfleet.example", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	other, err := stranger.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*shelf)
		says  string
	}{
		"another key": {func(s *shelf) { s.Write("keyring.asc", other) }, "sign"},
		"an index": {func(s *shelf) {
			s.Write("one/dists/trixie/main/binary-"+s.Native+"/Packages", []byte("Package: evil\n"))
		}, "one/dists"},
		"no InRelease": {func(s *shelf) {
			if err := os.Remove(filepath.Join(s.Dir, "one/dists/trixie/InRelease")); err != nil {
				s.t.Fatal(err)
			}
		}, "Release"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			s.release("one", pkg{name: "app", version: "1"})
			c.spoil(s)
			if err := s.private("one").Update(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want an error about %s, got %v", c.says, err)
			}
		})
	}
}

// TestDownload: what is already here and good is kept, what is here and is not
// what the index says is fetched again, what is not needed goes.
func TestDownload(t *testing.T) {
	s := newShelf(t)
	s.release("one", pkg{name: "app", version: "1", fields: "Depends: lib\n"}, pkg{name: "lib", version: "1"})
	dir := filepath.Join(t.TempDir(), "apt")
	p, err := apt.NewPrivate(dir, apt.Source{URL: s.URL + "/one", Distribution: "trixie", Components: []string{"main"}, Keyring: s.Keyring})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v: others may enter", info.Mode(), err)
	}
	if err := p.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := p.Solve(t.Context(), []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	plan := apt.MakePlan(list, nil, nil, s.Native)
	forged := filepath.Join(dir, "archives/lib_1_all.deb")
	if err := os.WriteFile(forged, bytes.Repeat([]byte("x"), int(plan.Fetch[1].Size)), 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "archives/old_1_all.deb")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var seen []string
	if err := p.Download(t.Context(), plan, nil, func(f apt.Fetched) { seen = append(seen, fmt.Sprint(f.Files, "/", f.AllFiles)) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 || seen[len(seen)-1] != "2/2" {
		t.Errorf("progress %v", seen)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("an old download stays: %v", err)
	}
	if err := p.Recheck(t.Context(), plan); err != nil {
		t.Error(err)
	}
	// What changes on the disk afterwards is found before it is installed.
	if err := os.WriteFile(forged, bytes.Repeat([]byte("x"), int(plan.Fetch[1].Size)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Recheck(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "lib:all=1") {
		t.Errorf("a changed download: %v", err)
	}
	// A server whose .deb is not what the index says.
	s.Write("one/pool/lib_1_all.deb", bytes.Repeat([]byte("y"), int(plan.Fetch[1].Size)))
	if err := p.Download(t.Context(), plan, nil, nil); err == nil || !strings.Contains(err.Error(), "cannot download packages: ") {
		t.Errorf("a tampered package: %v", err)
	}
	if err := apt.Clean(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "archives/*.deb")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestListsAfterAPowerCut: what was not synced is there, empty.
func TestListsAfterAPowerCut(t *testing.T) {
	s := newShelf(t)
	s.release("one", pkg{name: "app", version: "1"})
	dir := filepath.Join(t.TempDir(), "apt")
	for range 2 {
		p, err := apt.NewPrivate(dir, apt.Source{URL: s.URL + "/one", Distribution: "trixie", Components: []string{"main"}, Keyring: s.Keyring})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		if list, err := p.Solve(t.Context(), []string{"app"}); err != nil || names(list) != "app=1" {
			t.Errorf("solved to %s, %v", names(list), err)
		}
		lists, err := filepath.Glob(filepath.Join(dir, "lists/*_*"))
		if err != nil || len(lists) == 0 {
			t.Fatalf("no lists: %v", err)
		}
		for _, l := range lists {
			if err := os.Truncate(l, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestInstall turns a real trixie root from one release into others: an
// upgrade, a downgrade, a rename that takes a conffile along, a package that
// leaves and one that does not install.
func TestInstall(t *testing.T) {
	root := apttest.Root(t, t.TempDir())
	s := newShelf(t)
	base := apttest.AsIs(t, root)
	app := func(name, version, fields string) pkg {
		return pkg{name: name, version: version, fields: fields, files: map[string]string{
			"etc/app.conf": "of " + version + "\n", "usr/share/app/version": version + "\n",
		}, postinst: "test ! -e /run/systemd/system\ntest -x /usr/sbin/policy-rc.d\n! /usr/sbin/policy-rc.d\ntest \"$SYSTEMD_OFFLINE\" = 1"}
	}
	move := func(stage string, topLevel string, packages ...pkg) (string, error) {
		t.Helper()
		s.add(stage, base, packages...)
		return s.install(root, stage, topLevel)
	}
	out, err := move("1", "app", app("app", "1", "Depends: lib\n"), pkg{name: "lib", version: "1"})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, done := range []string{"app", "lib"} { // apt says how far it is, a line each
		if !regexp.MustCompile(`(?m)^pmstatus:` + done + `:[0-9.]+:Installed ` + done + ` \(.*\)$`).MatchString(out) {
			t.Errorf("it does not say that %s is installed:\n%s", done, out)
		}
	}
	s.has(root, "usr/share/app/version", "1\n")
	if err := os.WriteFile(filepath.Join(root, "etc/app.conf"), []byte("local\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := move("2", "app2", app("app2", "2", "Replaces: app\nConflicts: app\nProvides: app\n")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.has(root, "usr/share/app/version", "2\n")
	s.has(root, "etc/app.conf", "local\n")
	if _, err := os.Stat(filepath.Join(root, "var/lib/dpkg/info/lib.list")); !os.IsNotExist(err) {
		t.Errorf("lib has not left: %v", err)
	}
	if out, err := move("1b", "app", app("app", "1", "Depends: lib\n"), pkg{name: "lib", version: "0.5"}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.has(root, "usr/share/app/version", "1\n")
	states, err := os.ReadFile(filepath.Join(root, "var/lib/apt/extended_states"))
	if err != nil || !bytes.Contains(states, []byte("Package: lib\n")) || bytes.Contains(states, []byte("Package: app\n")) {
		t.Errorf("extended_states: %v\n%s", err, states)
	}
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/policy-rc.d")); !os.IsNotExist(err) {
		t.Errorf("policy-rc.d was left behind: %v", err)
	}
	// A hold is a wish about the running system; the list is exact.
	hold := exec.Command("dpkg", "--root="+root, "--set-selections")
	hold.Stdin = strings.NewReader("app hold\nbase-files hold\n")
	if out, err := hold.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := move("2b", "app", app("app", "2", "Depends: lib\n"), pkg{name: "lib", version: "0.5"}); err != nil {
		t.Errorf("packages on hold: %v\n%s", err, out)
	}
	s.has(root, "usr/share/app/version", "2\n")
	broken := app("app", "3", "")
	broken.postinst = "echo cannot start >&2; exit 1"
	if out, err := move("3", "app", broken); err == nil || !strings.Contains(out, "dpkg: error processing package app") {
		t.Errorf("a package that does not install: %v\n%s", err, out)
	}
}

// install moves root to a base and returns what was printed.
func (s *shelf) install(root, base, topLevel string) (string, error) {
	s.t.Helper()
	ctx := s.t.Context()
	p := s.private(base)
	if err := p.Update(ctx); err != nil {
		s.t.Fatal(err)
	}
	list, err := p.Solve(ctx, []string{topLevel, "apt"})
	if err != nil {
		s.t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		s.t.Fatal(err)
	}
	installed, err := apt.ParseStatus(bytes.NewReader(status))
	if err != nil {
		s.t.Fatal(err)
	}
	plan := apt.MakePlan(list, installed, nil, s.Native)
	if err := p.Download(ctx, plan, status, nil); err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	run := func(ctx context.Context, c sandbox.Command, w io.Writer) error { return sandbox.Run(ctx, c, w) }
	if err := p.Install(ctx, run, root, plan, []string{topLevel}, &out); err != nil {
		return out.String(), err
	}
	return out.String(), apt.Audit(ctx, run, root, list)
}

func (s *shelf) has(root, path, want string) {
	s.t.Helper()
	if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != want {
		s.t.Errorf("%s is %q (%v), want %q", path, got, err, want)
	}
}
