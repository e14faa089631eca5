package merge_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/rootfs"
)

// files describes a tree: path → content. A content that starts with "->" is a
// symbolic link, "/" is an empty directory, a "0600 " prefix is the mode.
type files map[string]string

func plant(t *testing.T, tree files) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range tree {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case content == "/":
			err = os.MkdirAll(path, 0o755)
		case strings.HasPrefix(content, "->"):
			err = os.Symlink(content[2:], path)
		case strings.HasPrefix(content, "0600 "):
			err = os.WriteFile(path, []byte(content[5:]), 0o600)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func harvest(t *testing.T, dir string) files {
	t.Helper()
	tree := files{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel := strings.TrimPrefix(path, dir+"/")
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
				return err
			}
			tree[rel] = "/"
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			tree[rel] = "->" + to
			return err
		default:
			content, err := os.ReadFile(path)
			prefix := ""
			if info.Mode().Perm() == 0o600 {
				prefix = "0600 "
			}
			tree[rel] = prefix + string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// paths names conflicts.
func paths(conflicts []merge.Conflict) string {
	var all []string
	for _, c := range conflicts {
		all = append(all, c.Path)
	}
	return strings.Join(all, " ")
}

func TestTrees(t *testing.T) {
	for _, c := range []struct {
		name                    string
		base, running, new, got files
		conflicts               string
	}{
		{
			"untouched: the release's",
			files{"a": "1"}, files{"a": "1"}, files{"a": "2"}, files{"a": "2"}, "",
		}, {
			"changed locally", files{"a": "1"}, files{"a": "local"}, files{"a": "1"}, files{"a": "local"}, "",
		}, {
			"changed by both alike", files{"a": "1"}, files{"a": "2"}, files{"a": "2"}, files{"a": "2"}, "",
		}, {
			"changed by both", files{"a": "1"}, files{"a": "local"}, files{"a": "2"},
			files{"a": "local", "a.aptfleet-new": "2"}, "a",
		}, {
			"added locally", files{}, files{"d/a": "local"}, files{}, files{"d/a": "local"}, "",
		}, {
			"added by both", files{}, files{"a": "local"}, files{"a": "2"}, files{"a": "local", "a.aptfleet-new": "2"}, "a",
		}, {
			"added by the release", files{}, files{}, files{"a": "2"}, files{"a": "2"}, "",
		}, {
			"removed locally", files{"d/a": "1", "b": "1"}, files{"b": "1"}, files{"d/a": "1", "b": "1"}, files{"b": "1"}, "",
		}, {
			"removed locally, changed by the release", files{"a": "1", "b": ""}, files{"b": ""}, files{"a": "2", "b": ""},
			files{"b": "", "a.aptfleet-new": "2"}, "a",
		}, {
			"removed by the release", files{"a": "1"}, files{"a": "1"}, files{}, files{}, "",
		}, {
			"removed by the release, changed locally", files{"a": "1"}, files{"a": "local"}, files{}, files{"a": "local"}, "a",
		}, {
			"mode", files{"a": "1"}, files{"a": "0600 1"}, files{"a": "1"}, files{"a": "0600 1"}, "",
		}, {
			"link", files{"a": "->x"}, files{"a": "->local"}, files{"a": "->x"}, files{"a": "->local"}, "",
		}, {
			"file became a link", files{"a": "1"}, files{"a": "->local"}, files{"a": "1"}, files{"a": "->local"}, "",
		}, {
			"link changed by both", files{"a": "->x"}, files{"a": "->local"}, files{"a": "->y"}, files{"a": "->local", "a.aptfleet-new": "->y"}, "a",
		}, {
			"directory became a file locally", files{"a/b": "1"}, files{"a": "local"}, files{"a/b": "1"}, files{"a": "local"}, "",
		}, {
			"file became a directory locally", files{"a": "1"}, files{"a/b": "local"}, files{"a": "1"}, files{"a/b": "local"}, "",
		}, {
			"locally emptied directory that the release fills", files{"d/a": "1"}, files{}, files{"d/a": "1", "d/b": "2"}, files{"d/b": "2"}, "",
		}, {
			"link to a directory became a directory locally",
			files{"d": "->e", "e/a": "1", "e/b": "1"}, files{"d/a": "1", "d/b": "local", "e/a": "1", "e/b": "1"}, files{"d": "->e", "e/a": "1", "e/b": "1"},
			files{"d/a": "1", "d/b": "local", "e/a": "1", "e/b": "1"}, "",
		}, {
			"directory became a link in the release, untouched", files{"d/a": "1", "e/a": "2"}, files{"d/a": "1", "e/a": "2"}, files{"d": "->e", "e/a": "2"},
			files{"d": "->e", "e/a": "2"}, "",
		}, {
			"made by programs", files{"ld.so.cache": "1"}, files{"ld.so.cache": "local"}, files{"ld.so.cache": "2"}, files{"ld.so.cache": "2"}, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := plant(t, c.new)
			result, err := merge.Trees(plant(t, c.base), plant(t, c.running), target)
			if err != nil {
				t.Fatal(err)
			}
			if got := harvest(t, target); fmt.Sprint(got) != fmt.Sprint(c.got) {
				t.Errorf("got %v, want %v", got, c.got)
			}
			if got := paths(result.Conflicts); got != c.conflicts {
				t.Errorf("conflicts %q, want %q", got, c.conflicts)
			}
		})
	}
}

// TestALinkIsNotFollowed: the release made a directory with local changes a
// link out of its tree. Nothing is written there, and there is no switch.
func TestALinkIsNotFollowed(t *testing.T) {
	outside := plant(t, files{"a": "1"})
	target := plant(t, files{"d": "->" + outside})
	_, err := merge.Trees(plant(t, files{"d/a": "1"}), plant(t, files{"d/a": "local"}), target)
	if err == nil || !strings.Contains(err.Error(), "the release made d a symbolic link") {
		t.Errorf("%v", err)
	}
	if got := harvest(t, outside); fmt.Sprint(got) != fmt.Sprint(files{"a": "1"}) {
		t.Errorf("outside of the tree there is %v now", got)
	}
}

// TestExtendedAttributes are local changes like any other: access control lists
// are kept in them.
func TestExtendedAttributes(t *testing.T) {
	base, running, target := plant(t, files{"a": "1", "d/b": "1"}), plant(t, files{"a": "1", "d/b": "1"}), plant(t, files{"a": "1", "d/b": "1"})
	set := func(path, value string) {
		t.Helper()
		if err := unix.Lsetxattr(path, "user.note", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set(filepath.Join(running, "a"), "local")
	set(filepath.Join(running, "d"), "local")
	set(filepath.Join(base, "d/b"), "release")
	set(filepath.Join(target, "d/b"), "release")
	if _, err := merge.Trees(base, running, target); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"a": "local", "d": "local", "d/b": ""} {
		attrs, err := rootfs.Xattrs(filepath.Join(target, path))
		if err != nil || string(attrs["user.note"]) != want {
			t.Errorf("%s: %q, want %q (%v)", path, attrs, want, err)
		}
	}
}

func TestAccounts(t *testing.T) {
	const root = "root:x:0:0:root:/root:/bin/sh\n"
	for _, c := range []struct{ name, file, base, running, new, got string }{
		{
			"added by both sides", "passwd", root,
			root + "alice:x:1000:1000::/home/alice:/bin/sh\n",
			root + "app:x:999:999::/:/usr/sbin/nologin\n",
			root + "app:x:999:999::/:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/sh\n",
		}, {
			"changed locally", "passwd", root + "a:x:5:5::/:/bin/sh\n", root + "a:x:5:5::/:/bin/bash\n", root + "a:x:5:5::/:/bin/sh\nb:x:6:6::/:/bin/sh\n",
			root + "a:x:5:5::/:/bin/bash\nb:x:6:6::/:/bin/sh\n",
		}, {
			"removed locally", "passwd", root + "a:x:5:5::/:/bin/sh\n", root, root + "a:x:5:5::/:/bin/sh\nb:x:6:6::/:/bin/sh\n", root + "b:x:6:6::/:/bin/sh\n",
		}, {
			"removed by the release", "passwd", root + "a:x:5:5::/:/bin/sh\n", root + "a:x:5:5::/:/bin/sh\nc:x:7:7::/:/bin/sh\n", root, root + "c:x:7:7::/:/bin/sh\n",
		}, {
			"password set locally", "shadow", "root:*:1::::::\n", "root:$y$hash:2::::::\n", "root:*:1::::::\napp:!:3::::::\n", "root:$y$hash:2::::::\napp:!:3::::::\n",
		}, {
			"members from both", "group", "dialout:x:20:\n", "dialout:x:20:alice\n", "dialout:x:20:app\n", "dialout:x:20:alice,app\n",
		}, {
			"administrators and members from both", "gshadow", "dialout:*::\n", "dialout:*:root:alice\n", "dialout:*::app\n", "dialout:*:root:alice,app\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := plant(t, files{c.file: c.new})
			result, err := merge.Trees(plant(t, files{c.file: c.base}), plant(t, files{c.file: c.running}), target)
			if err != nil {
				t.Fatal(err)
			}
			if got := harvest(t, target)[c.file]; got != c.got || len(result.Conflicts) > 0 {
				t.Errorf("got\n%swant\n%sconflicts %v", got, c.got, result.Conflicts)
			}
		})
	}
}

func TestTwoAccountsWithOneNumber(t *testing.T) {
	const root = "root:x:0:0:root:/root:/bin/sh\n"
	_, err := merge.Trees(
		plant(t, files{"passwd": root}),
		plant(t, files{"passwd": root + "alice:x:999:999::/:/bin/sh\n"}),
		plant(t, files{"passwd": root + "app:x:999:999::/:/bin/sh\n"}),
	)
	if err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("want an error that names the number, got %v", err)
	}
}

// TestNumbersThatAreSharedByIntent do not stop an update.
func TestNumbersThatAreSharedByIntent(t *testing.T) {
	const root = "root:x:0:0:root:/root:/bin/sh\n"
	const local = root + "toor:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nalias:x:1000:1000::/:/bin/sh\n"
	const release = root + "app:x:999:999::/:/bin/sh\napp-ro:x:999:999::/:/bin/sh\n"
	for _, c := range []struct{ running, new string }{{local, root}, {root, release}, {local, release}} {
		if _, err := merge.Trees(plant(t, files{"passwd": root}), plant(t, files{"passwd": c.running}), plant(t, files{"passwd": c.new})); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingIsLost: a local change is either in the result, or it was the same
// as the release's; the release's version of a conflict is beside it; without
// local changes the result is the release.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		side := func(name string) files {
			tree := files{"keep": "k"}
			for _, path := range []string{"a", "b", "d/c", "d/e"} {
				if v := rapid.IntRange(0, 3).Draw(r, name+path); v > 0 {
					tree[path] = fmt.Sprint(v)
				}
			}
			return tree
		}
		base, running, fresh := side("base "), side("running "), side("new ")
		target := plant(t, fresh)
		result, err := merge.Trees(plant(t, base), plant(t, running), target)
		if err != nil {
			r.Fatal(err)
		}
		got := harvest(t, target)
		for _, path := range []string{"a", "b", "d/c", "d/e"} {
			want := fresh[path]
			if running[path] != base[path] {
				want = running[path]
			}
			if got[path] != want {
				r.Errorf("%s is %q, want %q (base %v, running %v, new %v)", path, got[path], want, base, running, fresh)
			}
			conflict := running[path] != base[path] && fresh[path] != base[path] && running[path] != fresh[path]
			if reported := slices.ContainsFunc(result.Conflicts, func(c merge.Conflict) bool { return c.Path == path }); conflict != reported {
				r.Errorf("%s: conflict %v, reported %v", path, conflict, result.Conflicts)
			}
			if beside, ok := got[path+merge.Suffix]; ok != (conflict && fresh[path] != "") || ok && beside != fresh[path] {
				r.Errorf("%s: %q lies beside it", path, beside)
			}
		}
	})
}

// TestNothingIsLostWhateverItIs is the same for trees of files, links and
// directories in each other's place: what is new here is in the result, what the
// release has is in its place, beside it, or was the same before; or there is no
// result.
func TestNothingIsLostWhateverItIs(t *testing.T) {
	all := []string{"a", "b", "d", "d/c", "d/e", "d/e/f"}
	stopped := 0
	rapid.Check(t, func(r *rapid.T) {
		side := func(name string) files {
			tree := files{"keep": "k"}
			var add func(path string)
			add = func(path string) {
				switch what := rapid.SampledFrom([]string{"", "1", "2", "0600 1", "->x", "->y", "/"}).Draw(r, name+path); what {
				case "":
				case "/":
					tree[path] = what
					for _, below := range all {
						if filepath.Dir(below) == path {
							add(below)
						}
					}
				default:
					tree[path] = what
				}
			}
			add("a")
			add("b")
			add("d")
			return tree
		}
		base, running, fresh := side("base "), side("running "), side("new ")
		trees := []string{plant(t, base), plant(t, running), plant(t, fresh)}
		before := [3]files{harvest(t, trees[0]), harvest(t, trees[1]), harvest(t, trees[2])}
		result, err := merge.Trees(trees[0], trees[1], trees[2])
		if err != nil {
			stopped++
			if !strings.Contains(err.Error(), "the release made") {
				r.Fatal(err)
			}
			return
		}
		got := harvest(t, trees[2])
		// beside are the places where the release's version of path may lie.
		beside := func(path string) (places []string) {
			for p := path; p != "."; p = filepath.Dir(p) {
				places = append(places, p+merge.Suffix+strings.TrimPrefix(path, p))
			}
			return places
		}
		for path, content := range before[1] {
			changed := before[0][path] != content
			text := strings.TrimPrefix(content, "0600 ")
			if changed && content != "/" && strings.TrimPrefix(got[path], "0600 ") != text && strings.TrimPrefix(before[0][path], "0600 ") != text {
				r.Errorf("%s was changed here to %q and is %q (base %v, running %v, new %v, got %v)", path, content, got[path], before[0], before[1], before[2], got)
			}
		}
		for path, content := range before[2] {
			text := strings.TrimPrefix(content, "0600 ")
			if content == "/" || before[0][path] == content || before[1][path] == content || strings.TrimPrefix(got[path], "0600 ") == text {
				continue
			}
			there := slices.ContainsFunc(beside(path), func(p string) bool { return strings.TrimPrefix(got[p], "0600 ") == text })
			mode := strings.TrimPrefix(before[0][path], "0600 ") == text // only that was changed
			if !mode && (!there || len(result.Conflicts) == 0) {
				r.Errorf("%s of the release is %q and lies nowhere (base %v, running %v, new %v, got %v, conflicts %v)", path, content, before[0], before[1], before[2], got, result.Conflicts)
			}
		}
		manifest := string(result.Manifest)
		if result, err = merge.Trees(trees[0], trees[1], trees[2]); err != nil || string(result.Manifest) != manifest {
			r.Errorf("merged twice: %v\n%swas\n%s(base %v, running %v, new %v)", err, result.Manifest, manifest, before[0], before[1], before[2])
		}
	})
	t.Logf("%d were no switch", stopped)
}
