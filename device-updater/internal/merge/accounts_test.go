package merge_test

import (
	"slices"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/merge"
)

// accountsOf writes lines of /etc into files: a line that begins with "s " goes
// into shadow, "p " passwd, "g " group, "G " gshadow, "u " subuid, "U " subgid.
func accountsOf(lines ...string) files {
	names := map[string]string{"p": "passwd", "s": "shadow", "g": "group", "G": "gshadow", "u": "subuid", "U": "subgid"}
	tree := files{}
	for _, name := range names {
		tree[name] = ""
	}
	for _, line := range lines {
		kind, line, _ := strings.Cut(line, " ")
		tree[names[kind]] += line + "\n"
	}
	return tree
}

// TestAccountCases: each account is one thing in two files.
func TestAccountCases(t *testing.T) {
	const (
		a, as  = "p a:x:5:5:A:/a:/bin/sh", "s a:*:1:0:99999:7:::"
		b, bs  = "p b:x:6:6:B:/b:/bin/sh", "s b:*:1:0:99999:7:::"
		hashed = "s a:$y$hash:2:0:99999:7:::"
	)
	for _, c := range []struct {
		name                     string
		base, here, release, got []string
		conflicts                string
	}{
		{"nothing here", []string{a, as}, []string{a, as}, []string{b, bs}, []string{b, bs}, ""},
		{"new on both sides", nil, []string{a, as}, []string{b, bs}, []string{b, bs, a, as}, ""},
		{"the same on both sides", nil, []string{a, as}, []string{a, as}, []string{a, as}, ""},
		{"one name for two accounts", nil, []string{"p a:x:5:5:A:/a:/bin/sh"}, []string{"p a:x:7:7:A:/a:/bin/sh"}, []string{"p a:x:5:5:A:/a:/bin/sh"}, "passwd:a edited"},
		{"shell here, home there", []string{a}, []string{"p a:x:5:5:A:/a:/bin/zsh"}, []string{"p a:x:5:5:A:/srv/a:/bin/sh"}, []string{"p a:x:5:5:A:/srv/a:/bin/zsh"}, ""},
		{"shell on both sides", []string{a}, []string{"p a:x:5:5:A:/a:/bin/zsh"}, []string{"p a:x:5:5:A:/a:/bin/false"}, []string{"p a:x:5:5:A:/a:/bin/zsh"}, "passwd:a edited"},
		{"password here, aging there", []string{a, as}, []string{a, "s a:$y$hash:1:0:99999:7:::"}, []string{a, "s a:*:1:0:90:7:::"}, []string{a, "s a:$y$hash:1:0:90:7:::"}, ""},
		{"deleted here", []string{a, as, b, bs}, []string{b, bs}, []string{a, as, b, bs}, []string{b, bs}, ""},
		{"deleted here, changed by the release", []string{a, as, b, bs}, []string{b, bs}, []string{"p a:x:5:5:A:/a:/bin/false", as, b, bs}, []string{b, bs}, "passwd:a deleted"},
		{"deleted here, its password changed by the release", []string{a, as, b, bs}, []string{b, bs}, []string{a, hashed, b, bs}, []string{b, bs}, "passwd:a deleted"},
		{"deleted by the release", []string{a, as, b, bs}, []string{a, as, b, "s b:$y$mine:2:0:99999:7:::"}, []string{b, bs}, []string{b, "s b:$y$mine:2:0:99999:7:::"}, ""},
		{"changed here, deleted by the release", []string{a, as, b, bs}, []string{"p a:x:5:5:A:/a:/bin/zsh", as, b, bs}, []string{b, bs}, []string{b, bs, "p a:x:5:5:A:/a:/bin/zsh", as}, "passwd:a dropped"},
		{"its password changed here, deleted by the release", []string{a, as, b, bs}, []string{a, hashed, b, bs}, []string{b, bs}, []string{b, bs, a, hashed}, "passwd:a dropped"},
		{"a secret without an account", []string{a, as}, []string{a, as, "s ghost:*:1::::::"}, []string{a, as}, []string{a, as, "s ghost:*:1::::::"}, ""},
		{"members on both sides", []string{"g g:x:20:"}, []string{"g g:x:20:a"}, []string{"g g:x:20:b"}, []string{"g g:x:20:a,b"}, ""},
		{"a member leaves here, one comes there", []string{"g g:x:20:a,c"}, []string{"g g:x:20:c"}, []string{"g g:x:20:a,c,b"}, []string{"g g:x:20:c,b"}, ""},
		{"a member leaves there, one comes here", []string{"g g:x:20:a,c"}, []string{"g g:x:20:a,c,b"}, []string{"g g:x:20:c"}, []string{"g g:x:20:c,b"}, ""},
		{"one member more each, in both files", []string{"g g:x:20:", "G g:*::"}, []string{"g g:x:20:a", "G g:*:a:a"}, []string{"g g:x:20:b", "G g:*::b"}, []string{"g g:x:20:a,b", "G g:*:a:a,b"}, ""},
		{"two ranges of one user", []string{"u a:100000:65536"}, []string{"u a:100000:65536", "u a:300000:10"}, []string{"u a:100000:65536", "u b:200000:10"}, []string{"u a:100000:65536", "u b:200000:10", "u a:300000:10"}, ""},
		{"the last range goes", []string{"u a:100000:65536"}, nil, []string{"u a:100000:65536"}, nil, ""},
		{"another range", []string{"U a:100000:65536"}, []string{"U a:200000:65536"}, []string{"U a:100000:65536"}, []string{"U a:200000:65536"}, ""},
		{
			"lines that are none", []string{a, "p # note: one"}, []string{a, "p # note: one", "p # note: mine", "p +::::::", "p garbage"}, []string{a, "p # note: one", b},
			[]string{a, "p # note: one", b, "p # note: mine", "p +::::::", "p garbage"}, "",
		},
		{"a line twice", []string{a, a, b}, []string{a, a, b, "p c:x:8:8::/:/bin/sh"}, []string{a, a, b}, []string{a, a, b, "p c:x:8:8::/:/bin/sh"}, ""},
		{"two lines of one name", []string{a}, []string{a, "p a:x:0:0::/:/bin/sh"}, []string{a, b}, []string{a, b, "p a:x:0:0::/:/bin/sh"}, ""},
		{"too few fields", []string{"p a:x:5"}, []string{"p a:x:5:5"}, []string{"p a:x:5", b}, []string{b, "p a:x:5:5"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := plant(t, accountsOf(c.release...))
			base, running := plant(t, accountsOf(c.base...)), plant(t, accountsOf(c.here...))
			for range 2 {
				result, err := merge.Trees(base, running, target)
				if err != nil {
					t.Fatal(err)
				}
				got := harvest(t, target)
				for name, want := range accountsOf(c.got...) {
					if got[name] != want {
						t.Errorf("%s is\n%swant\n%s", name, got[name], want)
					}
				}
				if s := told(result.Conflicts); s != c.conflicts {
					t.Errorf("conflicts: %q, want %q", s, c.conflicts)
				}
				c.conflicts = told(mustMerge(t, base, running, target).Conflicts) // of what is merged already
			}
		})
	}
}

func mustMerge(t *testing.T, base, running, target string) merge.Result {
	t.Helper()
	result, err := merge.Trees(base, running, target)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// TestAccountFilesThatAreNotThere: without a file in the base its lines are all
// new; one that was deleted stays deleted.
func TestAccountFilesThatAreNotThere(t *testing.T) {
	target := plant(t, files{"subuid": "b:2:1\n"})
	result := mustMerge(t, plant(t, files{}), plant(t, files{"subuid": "a:1:1\n"}), target)
	if got := harvest(t, target)["subuid"]; got != "b:2:1\na:1:1\n" || len(result.Conflicts) > 0 {
		t.Errorf("%q, %+v", got, result)
	}
	target = plant(t, files{"gshadow": "g:*::\n", "x": ""})
	result = mustMerge(t, plant(t, files{"gshadow": "g:*::\n", "x": ""}), plant(t, files{"x": ""}), target)
	if _, there := harvest(t, target)["gshadow"]; there || len(result.Conflicts) > 0 {
		t.Errorf("gshadow came back: %+v", result)
	}
}

// TestTheModeOfAccountFiles is merged like that of any file.
func TestTheModeOfAccountFiles(t *testing.T) {
	r := begin(t, "echo a:*:1:::::: >shadow; chmod 640 shadow")
	r.in(r.running, "echo b:*:1:::::: >>shadow; chown 5:6 shadow")
	r.in(r.target, "echo c:*:1:::::: >>shadow; chmod 600 shadow")
	if result, err := r.merge(); err != nil || len(result.Conflicts) > 0 {
		t.Errorf("%+v, %v", result, err)
	}
	r.in(r.target, "mode shadow 600; owner shadow 5:6; [ $(wc -l <shadow) = 3 ]")
}

// FuzzAccounts merges anything. What is new here is never lost, without a change
// here the release stands, and what is merged stays as it is.
func FuzzAccounts(f *testing.F) {
	const root, shadow = "root:x:0:0::/:/bin/sh\n", "root:*:1:0:99999:7:::\n"
	f.Add(root, root+"a:x:1:1::/:/bin/sh\n", root+"b:x:2:2::/:/bin/sh\n", shadow, shadow+"a:*:1::::::\n", shadow)
	f.Add(root, root+"# x: y\n+\n", "", shadow, "root:$:::::::\n", shadow+shadow)
	f.Add("a:1:\n:::\n\n", "a:x:5:5:A:/a:/bin/zsh\n", "a:x:5:5:A:/a:/bin/false\n", "", "a\r\n", "\x00a")
	f.Fuzz(func(t *testing.T, passwdBase, passwdHere, passwdThere, shadowBase, shadowHere, shadowThere string) {
		base, here, there := [2]string{passwdBase, shadowBase}, [2]string{passwdHere, shadowHere}, [2]string{passwdThere, shadowThere}
		merged, _ := merge.MergeAccounts(base, here, there)
		for i := range merged {
			lines := strings.Split(merged[i], "\n")
			for _, line := range strings.Split(here[i], "\n") {
				name, _, _ := strings.Cut(line, ":")
				isNew := !strings.Contains(base[0]+"\n"+base[1]+"\n"+there[0]+"\n"+there[1], name)
				if isNew && !slices.Contains(lines, line) {
					t.Errorf("%q is lost: %q", line, merged[i])
				}
			}
		}
		// Of two lines with one name, which is the account depends on what is left.
		if again, _ := merge.MergeAccounts(base, here, merged); again != merged && !twice(there[0]) && !twice(there[1]) && !twice(here[0]) && !twice(here[1]) {
			t.Errorf("merged twice it is %q, was %q", again, merged)
		}
		if same, conflicts := merge.MergeAccounts(base, base, there); conflicts > 0 || !sameLines(same[0], there[0]) || !sameLines(same[1], there[1]) {
			t.Errorf("without a change here it is %q with %d conflicts, not %q", same, conflicts, there)
		}
	})
}

// twice reports whether a name has two lines.
func twice(text string) bool {
	seen := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		name, _, _ := strings.Cut(line, ":")
		if seen[name] && line != "" {
			return true
		}
		seen[name] = true
	}
	return false
}

// sameLines compares what two texts say, without empty lines and repetitions.
func sameLines(a, b string) bool {
	set := func(s string) []string {
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		return slices.DeleteFunc(slices.Compact(lines), func(l string) bool { return l == "" })
	}
	return slices.Equal(set(a), set(b))
}
