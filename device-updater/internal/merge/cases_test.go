package merge_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/rootfs"
)

// words are what the scripts of these tests say.
const words = `set -e
fail() { echo "$*" >&2; exit 1; }
is() { [ "$(cat "$1")" = "$2" ] || fail "$1 is $(cat "$1"), not $2"; }
mode() { [ "$(stat -c %a "$1")" = "$2" ] || fail "$1 has mode $(stat -c %a "$1"), not $2"; }
owner() { [ "$(stat -c %u:%g "$1")" = "$2" ] || fail "$1 belongs to $(stat -c %u:%g "$1"), not $2"; }
no() { [ ! -e "$1" ] && [ ! -L "$1" ] || fail "$1 is there"; }
leads() { [ "$(readlink "$1")" = "$2" ] || fail "$1 leads to $(readlink "$1"), not $2"; }
dir() { [ -d "$1" ] && [ ! -L "$1" ] || fail "$1 is not a directory"; }
`

// roots are three roots that begin alike, as those of a device do.
type roots struct {
	t                     *testing.T
	base, running, target string
}

// begin makes the base with a script that runs in its /etc.
func begin(t *testing.T, script string) *roots {
	t.Helper()
	dir := t.TempDir()
	r := &roots{t, filepath.Join(dir, "base"), filepath.Join(dir, "running"), filepath.Join(dir, "target")}
	if err := os.MkdirAll(filepath.Join(r.base, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.in(r.base, script)
	r.copy(r.base, r.running)
	r.copy(r.base, r.target)
	return r
}

func (r *roots) copy(from, to string) {
	r.t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
}

func (r *roots) in(root, script string) {
	r.t.Helper()
	cmd := exec.Command("sh", "-c", words+script)
	cmd.Dir = filepath.Join(root, "etc")
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Errorf("%s\n%v: %s", script, err, out)
	}
}

func (r *roots) merge() (merge.Result, error) {
	return merge.Trees(filepath.Join(r.base, "etc"), filepath.Join(r.running, "etc"), filepath.Join(r.target, "etc"))
}

// next makes what was merged the running root, and begins another update.
func (r *roots) next() {
	r.t.Helper()
	for _, root := range []string{r.base, r.running} {
		if err := os.RemoveAll(root); err != nil {
			r.t.Fatal(err)
		}
	}
	r.copy(r.target, r.base)
	r.copy(r.target, r.running)
}

// told writes conflicts as "path kind", with "+" where the release's version
// lies beside it.
func told(conflicts []merge.Conflict) string {
	var all []string
	for _, c := range conflicts {
		text := c.Path
		if c.Account != "" {
			text += ":" + c.Account
		}
		text += " " + string(c.Kind)
		if c.Beside == c.Path+merge.Suffix {
			text += "+"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func listing(t *testing.T, root string) string {
	t.Helper()
	var b bytes.Buffer
	if err := rootfs.WriteManifest(t.Context(), &b, root, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCases: what people do between staging and the reboot, and what the release
// did to the same files.
func TestCases(t *testing.T) {
	long := strings.Repeat("n", 250)
	for _, c := range []struct{ name, base, here, release, want, conflicts string }{
		{"edit, edit", "echo 1 >a", "echo mine >a", "echo 2 >a", "is a mine; is a.aptfleet-new 2", "a edited+"},
		{"edit, nothing", "echo 1 >a", "echo mine >a", "", "is a mine; no a.aptfleet-new", ""},
		{"nothing, edit", "echo 1 >a", "", "echo 2 >a", "is a 2", ""},
		{"the same edit", "echo 1 >a", "echo 2 >a", "echo 2 >a", "is a 2", ""},
		{"delete, edit", "echo 1 >a", "rm a", "echo 2 >a", "no a; is a.aptfleet-new 2", "a deleted+"},
		{"edit, delete", "echo 1 >a", "echo mine >a", "rm a", "is a mine; no a.aptfleet-new", "a dropped"},
		{"delete, delete", "echo 1 >a", "rm a", "rm a", "no a", ""},
		{"new on both sides, equal", "", "echo 1 >a", "echo 1 >a", "is a 1", ""},
		{"new on both sides, different", "", "echo 1 >a", "echo 2 >a", "is a 1; is a.aptfleet-new 2", "a edited+"},

		{"mode", "echo 1 >a", "chmod 600 a", "", "mode a 600", ""},
		{"mode here, content there", "echo 1 >a", "chmod 600 a", "echo 2 >a", "mode a 600; is a 2", ""},
		{"content here, mode there", "echo 1 >a", "echo mine >a", "chmod 600 a", "mode a 600; is a mine", ""},
		{"mode, mode", "echo 1 >a", "chmod 600 a", "chmod 640 a", "mode a 600; no a.aptfleet-new", "a attributes"},
		{"mode and content, mode", "echo 1 >a", "chmod 600 a; echo mine >a", "chmod 640 a", "mode a 600; is a mine; no a.aptfleet-new", "a attributes"},
		{"edit, edit and mode", "echo 1 >a", "echo mine >a", "echo 2 >a; chmod 600 a", "mode a 600; is a mine; is a.aptfleet-new 2; mode a.aptfleet-new 600", "a edited+"},
		{"owner", "echo 1 >a", "chown 5:6 a", "", "owner a 5:6", ""},
		{"owner here, mode there", "echo 1 >a", "chown 5:6 a", "chmod 600 a", "owner a 5:6; mode a 600", ""},
		{"owner, owner", "echo 1 >a", "chown 5:6 a", "chown 7:8 a", "owner a 5:6", "a attributes"},
		{"a directory's mode", "mkdir d", "chmod 700 d", "echo 2 >d/a", "mode d 700; is d/a 2", ""},
		{"a directory's mode on both sides", "mkdir d", "chmod 700 d", "chmod 750 d", "mode d 700", "d attributes"},

		{"link", "ln -s x a", "ln -sfn mine a", "", "leads a mine", ""},
		{"link, link", "ln -s x a", "ln -sfn mine a", "ln -sfn y a", "leads a mine; leads a.aptfleet-new y", "a edited+"},
		{"link, gone", "ln -s x a", "ln -sfn mine a", "rm a", "leads a mine", "a dropped"},
		{"a link's owner", "ln -s x a", "chown -h 5:6 a", "", "owner a 5:6; leads a x", ""},
		{"file to link", "echo 1 >a", "ln -sf mine a", "", "leads a mine", ""},
		{"file to link, edit", "echo 1 >a", "ln -sf mine a", "echo 2 >a", "leads a mine; is a.aptfleet-new 2", "a edited+"},
		{"edit, file to link", "echo 1 >a", "echo mine >a", "ln -sf there a", "is a mine; leads a.aptfleet-new there", "a edited+"},
		{"file to directory", "echo 1 >a", "rm a; mkdir a; echo mine >a/b", "", "is a/b mine", ""},
		{"file to directory, edit", "echo 1 >a", "rm a; mkdir a; echo mine >a/b", "echo 2 >a", "is a/b mine; is a.aptfleet-new 2", "a edited+"},
		{"edit, file to directory", "echo 1 >a", "echo mine >a", "rm a; mkdir a; echo 2 >a/b", "is a mine; is a.aptfleet-new/b 2", "a edited+"},
		{"directory to link", "mkdir d e; echo 1 >d/a", "rm -r d; ln -s e d", "", "leads d e; no d.aptfleet-new", ""},
		{"directory to link, edit in it", "mkdir d e; echo 1 >d/a", "rm -r d; ln -s e d", "echo 2 >d/a", "leads d e; no e/a; is d.aptfleet-new/a 2", "d edited+"},
		{"directory to link, new in it", "mkdir d e; echo 1 >d/a", "rm -r d; ln -s e d", "echo 2 >d/b", "leads d e; is d.aptfleet-new/b 2", "d edited+"},
		{"directory to file, edit in it", "mkdir d; echo 1 >d/a", "rm -r d; echo mine >d", "echo 2 >d/a", "is d mine; is d.aptfleet-new/a 2", "d edited+"},
		{"link to directory, link", "mkdir e; ln -s e d", "rm d; mkdir d; echo mine >d/a", "ln -sfn f d", "is d/a mine; leads d.aptfleet-new f", "d edited+"},
		{"nothing, directory to link", "mkdir d; echo 1 >d/a", "", "rm -r d; ln -s e d", "leads d e", ""},
		{"directory deleted, edit in it", "mkdir d; echo 1 >d/a; echo 1 >d/b", "rm -r d", "echo 2 >d/a", "no d/a; no d/b; is d/a.aptfleet-new 2", "d/a deleted+"},
		{"directory deleted, its mode", "mkdir d; echo 1 >d/a", "rm -r d", "chmod 700 d", "no d", ""},
		{"edit in a directory that is deleted there", "mkdir -m 700 d; echo 1 >d/a; echo 1 >d/b", "echo mine >d/a", "rm -r d", "mode d 700; is d/a mine; no d/b", "d/a dropped"},
		{"edit in deep directories that are new", "", "mkdir -m 700 d; mkdir -m 710 d/e; echo mine >d/e/a", "", "mode d 700; mode d/e 710; is d/e/a mine", ""},

		{"an alternative is chosen", "mkdir alternatives ../usr; touch ../usr/a ../usr/b; ln -s /usr/a alternatives/x", "ln -sfn /usr/b alternatives/x", "", "leads alternatives/x /usr/b", ""},
		{
			"an alternative is chosen, and the release has it no more", "mkdir alternatives ../usr; touch ../usr/a ../usr/b; ln -s /usr/a alternatives/x", "ln -sfn /usr/b alternatives/x",
			"rm ../usr/b", "leads alternatives/x /usr/a", "alternatives/x gone",
		},
		{
			"an alternative is chosen on both sides", "mkdir alternatives ../usr; touch ../usr/a ../usr/b ../usr/c; ln -s /usr/a alternatives/x", "ln -sfn /usr/b alternatives/x",
			"ln -sfn /usr/c alternatives/x", "leads alternatives/x /usr/b; leads alternatives/x.aptfleet-new /usr/c", "alternatives/x edited+",
		},
		{"a service is enabled", "mkdir -p systemd/system", "mkdir systemd/system/a.wants; ln -s /lib/x.service systemd/system/a.wants/", "", "leads systemd/system/a.wants/x.service /lib/x.service", ""},
		{"a service is disabled", "mkdir -p systemd/system/a.wants; ln -s /lib/x.service systemd/system/a.wants/", "rm -r systemd/system/a.wants", "", "no systemd/system/a.wants", ""},
		{
			"a service is disabled, another comes", "mkdir -p systemd/system/a.wants; ln -s /lib/x.service systemd/system/a.wants/", "rm -r systemd/system/a.wants",
			"ln -s /lib/y.service systemd/system/a.wants/", "no systemd/system/a.wants/x.service; leads systemd/system/a.wants/y.service /lib/y.service", "",
		},
		{"a service is masked", "mkdir -p systemd/system", "ln -s /dev/null systemd/system/x.service", "", "leads systemd/system/x.service /dev/null", ""},
		{"machine-id is the machine's", "echo 1234 >machine-id", "", "echo uninitialized >machine-id", "is machine-id 1234", ""},
		{"machine-id that is gone", "echo 1234 >machine-id", "", "rm machine-id", "is machine-id 1234", ""},
		{"made by programs", "echo 1 >ld.so.cache; echo 1 >passwd-", "echo 2 >ld.so.cache; echo 2 >passwd-; echo 1 >.pwd.lock", "rm passwd-", "is ld.so.cache 1; no passwd-; no .pwd.lock", ""},

		{"odd names", `n=$(printf 'a \n\377"'); echo 1 >"$n"`, `n=$(printf 'a \n\377"'); echo mine >"$n"; echo mine >-rf`, `n=$(printf 'a \n\377"'); echo 2 >"$n"`, `n=$(printf 'a \n\377"'); is "$n" mine; is "$n.aptfleet-new" 2; is ./-rf mine`, "a \n\xff\" edited+"},
		{"a name that is too long", "echo 1 >" + long, "echo mine >" + long, "echo 2 >" + long, "is " + long + " mine", long + " edited"},
		{"hard links", "echo 1 >a; ln a b", "echo mine >a", "", "is a mine; is b mine", ""},
		{"hard links of the release", "echo 1 >a; ln a b", "rm a; echo mine >a", "", "is a mine; is b 1", ""},
		{"a pipe", "", "mkfifo -m 600 p", "", "[ -p p ]; mode p 600", ""},
		{"a device", "mknod n c 1 3", "rm n; mknod n c 1 5", "", `[ "$(stat -c %t:%T n)" = 1:5 ]`, ""},
		{"a device, another", "mknod n c 1 3", "rm n; mknod n c 1 5", "rm n; mknod n c 1 7", `[ "$(stat -c %t:%T n)" = 1:5 ]; [ "$(stat -c %t:%T n.aptfleet-new)" = 1:7 ]`, "n edited+"},
		{"an empty file", "echo 1 >a", ": >a", "", `[ -e a ]; is a ""`, ""},

		{"the release's version was deleted", "echo mine >a; echo 2 >a.aptfleet-new", "rm a.aptfleet-new", "", "is a mine; no a.aptfleet-new", ""},
		{"the two were merged", "echo mine >a; echo 2 >a.aptfleet-new", "echo both >a; rm a.aptfleet-new", "", "is a both; no a.aptfleet-new", ""},
		{"the two were made equal", "echo mine >a; echo 2 >a.aptfleet-new", "cp a.aptfleet-new a", "", "is a 2; no a.aptfleet-new", ""},
		{"nobody looked", "echo mine >a; echo 2 >a.aptfleet-new", "", "", "is a mine; is a.aptfleet-new 2", "a unresolved+"},
		{"nobody looked, a newer one", "echo mine >a; echo 2 >a.aptfleet-new", "echo more >a", "echo 3 >a", "is a more; is a.aptfleet-new 3", "a edited+"},
		{"nobody looked, the release's own", "echo mine >a; echo 2 >a.aptfleet-new", "", "echo 3 >a", "is a 3; no a.aptfleet-new", ""},
		{"nobody looked, dpkg has a newer one", "echo mine >a; echo 2 >a.aptfleet-new", "", "echo 3 >a.dpkg-dist", "is a mine; no a.aptfleet-new; is a.dpkg-dist 3", ""},
		{"nobody looked, the file is gone", "echo mine >a; echo 2 >a.aptfleet-new", "", "rm a", "no a; no a.aptfleet-new", ""},
		{"deleted here, and nobody looked", "echo 2 >a.aptfleet-new", "", "", "no a; is a.aptfleet-new 2", "a unresolved+"},
		{"a directory beside, and nobody looked", "echo mine >a; mkdir a.aptfleet-new; echo 2 >a.aptfleet-new/b", "", "", "is a.aptfleet-new/b 2", "a unresolved+"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := begin(t, c.base)
			r.in(r.running, c.here)
			r.in(r.target, c.release)
			result, err := r.merge()
			if err != nil {
				t.Fatal(err)
			}
			r.in(r.target, c.want)
			if got := told(result.Conflicts); got != c.conflicts {
				t.Errorf("conflicts: %q, want %q", got, c.conflicts)
			}
			before := listing(t, filepath.Join(r.target, "etc"))
			if before != string(result.Manifest) {
				t.Errorf("the list of files is\n%s, not\n%s", result.Manifest, before)
			}
			if _, err := r.merge(); err != nil {
				t.Error(err)
			}
			if after := listing(t, filepath.Join(r.target, "etc")); after != before {
				t.Errorf("merged twice:\n%swas\n%s", after, before)
			}
		})
	}
}

// TestCasesThatStopASwitch leave it to a new clone of the root as it then is.
func TestCasesThatStopASwitch(t *testing.T) {
	const alice, app = "alice:x:999:999::/:/bin/sh", "app:x:999:999::/:/bin/sh"
	for _, c := range []struct{ name, base, here, release, says string }{
		{"edit below a directory that is a link now", "mkdir d e; echo 1 >d/a", "echo mine >d/a", "rm -r d; ln -s e d", "the release made d a symbolic link"},
		{"edit below a directory that is a file now", "mkdir d; echo 1 >d/a", "echo mine >d/a", "rm -r d; echo 2 >d", "the release made d a file"},
		{"one number for two users", "echo root:x:0:0::/:/bin/sh >passwd", "echo " + alice + " >>passwd", "echo " + app + " >>passwd", "app and alice would both have number 999"},
		{"one number for two groups", "echo root:x:0: >group", "echo a:x:7: >>group", "echo b:x:7: >>group", "would both have number 7"},
		{"one range for two users", ": >subuid", "echo a:100000:65536 >>subuid", "echo b:165535:65536 >>subuid", "a and b would share numbers from 165535"},
		{"users that were lost", "echo root:x:0:0::/:/bin/sh >passwd", ": >passwd", "echo " + app + " >>passwd", "root would be missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := begin(t, c.base)
			r.in(r.running, c.here)
			r.in(r.target, c.release)
			if _, err := r.merge(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %q", err, c.says)
			}
		})
	}
}

// TestManyReleases: a conflict that nobody looks at is told at each of them, and
// leaves one file.
func TestManyReleases(t *testing.T) {
	r := begin(t, "echo 1 >a; echo 1 >b; echo 1 >c")
	for release := 2; release < 7; release++ {
		r.in(r.running, fmt.Sprintf("echo mine %d >a; echo mine >>b; echo x >local-%d", release, release))
		r.in(r.target, fmt.Sprintf("echo %d >a; echo %d >c", release, release))
		result, err := r.merge()
		if err != nil {
			t.Fatal(err)
		}
		if got := told(result.Conflicts); got != "a edited+" {
			t.Errorf("release %d: %q", release, got)
		}
		r.in(r.target, fmt.Sprintf("is a 'mine %d'; is a.aptfleet-new %d; is c %d; [ $(ls | wc -l) = %d ]", release, release, release, 4+release-1))
		r.next()
	}
	for release := 7; release < 9; release++ {
		r.in(r.target, fmt.Sprintf("echo %d >c", release))
		if result, err := r.merge(); err != nil || told(result.Conflicts) != "a unresolved+" {
			t.Errorf("release %d: %+v, %v", release, result.Conflicts, err)
		}
		r.in(r.target, "is a 'mine 6'; is a.aptfleet-new 6")
		r.next()
	}
	r.in(r.running, "rm a.aptfleet-new")
	if result, err := r.merge(); err != nil || told(result.Conflicts) != "" {
		t.Errorf("after it was resolved: %+v, %v", result.Conflicts, err)
	}
	r.in(r.target, "no a.aptfleet-new; is a 'mine 6'")
}
