package product_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"aptfleet/internal/bom"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// sample is a small release with all ways to be in a bill.
var sample = []pkg{
	{"base 1", "Essential: yes\nPriority: required\nPre-Depends: libbase\n"},
	{"libbase 1", ""},
	{"login 1", "Priority: required\n"},
	{"app 1:2.0-1", "Source: app-source (2.0-1)\nDepends: lib (>= 1), virtual | missing\nRecommends: extra\n"},
	{"lib 1", "Depends: deep\n"}, {"lib 0.5", ""},
	{"deep 1", ""},
	{"provider 3", "Provides: virtual (= 1)\n"},
	{"extra 1", ""},
	{"modem 1 all", "Depends: ppp\n"}, {"ppp 1", ""},
	{"other 1", ""},
}

func TestBillOfMaterials(t *testing.T) {
	w := newWorld(t).run()
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}, Modules: map[string][]string{"lte": {"modem"}}})
	w.create(product.Product{Name: "full", Packages: []string{"app"}, Recommends: true})
	b := w.bom("gateway", state)
	const plain = `app:amd64=1:2.0-1 top-level
base:amd64=1 essential
deep:amd64=1 needed by lib (Depends)
lib:amd64=1 needed by app (Depends)
libbase:amd64=1 needed by base (Pre-Depends)
login:amd64=1 required
provider:amd64=3 needed by app (Depends)`
	if got := lines(b); got != plain {
		t.Errorf("got\n%s\nwant\n%s", got, plain)
	}
	if b.Download() != 7000 || b.Installed() != 7*10240 {
		t.Errorf("%d bytes to download, %d installed", b.Download(), b.Installed())
	}
	if d := b.Details[0]; d.Component != "apps" || d.Source != "app-source" || d.SourceVersion != "2.0-1" || len(d.Needs) != 2 {
		t.Errorf("app is %+v", d)
	}
	again, err := bom.Decode(b.Text)
	if err != nil || again.State != state.String() || again.Product != "gateway" || bom.Sum(b.Text) != b.SHA256 {
		t.Errorf("the text is %q: %v", b.Text, err)
	}
	if published, err := os.ReadFile(w.bill(b.SHA256)); err != nil || string(published) != string(b.Text) {
		t.Errorf("published: %q, %v", published, err)
	}
	with := strings.Replace(plain, "provider:", "modem:all=1 module lte\nppp:amd64=1 needed by modem (Depends)\nprovider:", 1)
	if got := lines(w.bom("gateway", state, "lte")); got != with {
		t.Errorf("with a module got\n%s\nwant\n%s", got, with)
	}
	if got := lines(w.bom("full", state)); !strings.Contains(got, "extra:amd64=1 needed by app (Recommends)") {
		t.Errorf("with recommended packages\n%s", got)
	}
	// The same question once more is answered from what is kept.
	if third := w.bom("gateway", state); third.Made != b.Made || string(third.Text) != string(b.Text) {
		t.Error("it was computed again")
	}
}

// An architecture of which this machine is not, and packages of several
// components: the highest version wins.
func TestAnotherArchitecture(t *testing.T) {
	w := newWorld(t).run()
	state := w.state(pkg{"app 1 arm64", "Depends: lib\n"}, pkg{"lib 1 arm64", ""}, pkg{"lib 2 arm64", ""}, pkg{"app 9 amd64", ""}, pkg{"base 1 all", "Priority: required\n"})
	w.create(product.Product{Name: "board", Architecture: "arm64", Packages: []string{"app"}})
	if got := lines(w.bom("board", state)); got != "app:arm64=1 top-level\nbase:all=1 required\nlib:arm64=2 needed by app (Depends)" {
		t.Errorf("got\n%s", got)
	}
}

// Why a product cannot be installed, in the words of apt and of dose-debcheck.
// The verdict is kept: it is a function of the state.
func TestVerdicts(t *testing.T) {
	w := newWorld(t).run()
	for name, c := range map[string]struct {
		packages  []pkg
		topLevel  []string
		apt, dose []string
	}{
		"missing dependency": {
			[]pkg{{"app 1", "Depends: lib\n"}}, []string{"app"},
			[]string{"app : Depends: lib but it is not installable"}, []string{"unsat-dependency: lib"},
		},
		"conflict between top-level packages": {
			[]pkg{{"app 1", "Conflicts: other\n"}, {"other 1", ""}}, []string{"app", "other"},
			[]string{"app : Conflicts: other"}, []string{"conflict:", "other", "app"},
		},
		"version constraint": {
			[]pkg{{"app 1", "Depends: lib (>= 2)\n"}, {"lib 1", ""}}, []string{"app"},
			[]string{"app : Depends: lib (>= 2) but it is not going to be installed"}, []string{"unsat-dependency: lib:amd64 (>= 2)"},
		},
		"missing top-level package": {
			[]pkg{{"app 1", ""}}, []string{"app", "nowhere"},
			[]string{"Unable to locate package nowhere"}, []string{"unsat-dependency: nowhere"},
		},
		"a package of another architecture": {
			[]pkg{{"app 1 arm64", ""}, {"xx 1", ""}}, []string{"app"},
			[]string{"Unable to locate package app"}, []string{"unsat-dependency: app"},
		},
		"deep below": {
			[]pkg{{"app 1", "Depends: aa\n"}, {"aa 1", "Depends: bb\n"}, {"bb 1", "Depends: cc\n"}}, []string{"app"},
			[]string{"bb : Depends: cc but it is not installable"}, []string{"depchain", "unsat-dependency: cc"},
		},
		"two providers and none chosen": {
			[]pkg{{"pp 1", "Provides: mail\n"}, {"qq 1", "Provides: mail\n"}}, []string{"mail"},
			[]string{"mail' has no installation candidate"}, []string{"dose-debcheck finds packages that could be installed together"},
		},
		"a required package that conflicts": {
			[]pkg{{"app 1", "Conflicts: login\n"}, {"login 1", "Priority: required\n"}}, []string{"app"},
			[]string{"login"}, []string{"conflict:", "login"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			state := w.state(c.packages...)
			product := w.create(product.Product{Name: strings.ReplaceAll(strings.ToLower(name), " ", "-"), Packages: c.topLevel})
			b := w.bom(product.Name, state)
			if b.Verdict == nil {
				t.Fatalf("there is a bill:\n%s", lines(b))
			}
			for _, want := range c.apt {
				if !strings.Contains(b.Verdict.Apt, want) {
					t.Errorf("apt's explanation lacks %q:\n%s", want, b.Verdict.Apt)
				}
			}
			for _, want := range c.dose {
				if !strings.Contains(b.Verdict.Dose, want) {
					t.Errorf("dose's explanation lacks %q:\n%s", want, b.Verdict.Dose)
				}
			}
			if b.Verdict.Summary == "" || strings.Contains(b.Verdict.Summary, "\n") {
				t.Errorf("summary %q", b.Verdict.Summary)
			}
			if again := w.bom(product.Name, state); again.Made != b.Made || *again.Verdict != *b.Verdict {
				t.Error("it was computed again")
			}
		})
	}
}

// A pipeline without repositories and mirrors offers a state without components.
func TestVerdictOfNothing(t *testing.T) {
	w := newWorld(t).run()
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	nothing, err := snapshots.New(t.Context(), w.chunks, nil)
	must(t, err)
	b := w.bom("gateway", nothing.ID())
	if b.Verdict == nil || b.Verdict.Apt != "Unable to locate package app" || !strings.Contains(b.Verdict.Dose, "unsat-dependency: app") {
		t.Errorf("%+v", b.Verdict)
	}
}

// Without dose-debcheck there is one explanation, and how to get the other.
func TestVerdictWithoutDose(t *testing.T) {
	w := newWorld(t).run()
	bin := t.TempDir()
	for _, program := range []string{"apt-get", "dpkg"} {
		path, err := exec.LookPath(program)
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(bin, program)))
	}
	t.Setenv("PATH", bin)
	state := w.state(pkg{"app 1", "Depends: lib\n"})
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	if v := w.bom("gateway", state).Verdict; v == nil || !strings.Contains(v.Apt, "lib") || !strings.Contains(v.Dose, "dose-distcheck") {
		t.Errorf("verdict %+v", v)
	}
	// Without apt there is nothing but the next step, and that is no verdict.
	t.Setenv("PATH", t.TempDir())
	_, err := w.BOM(t.Context(), "demo", "gateway", nil, w.state(pkg{"app 2", ""}))
	var known *release.Error
	if !errors.As(err, &known) || !strings.Contains(known.Text, "no apt-get") || known.Hint == "" {
		t.Errorf("without apt: %v", err)
	}
}

// The service user of a server is not root.
func TestAsAnybody(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: the other tests are run as somebody else already")
	}
	dir, err := os.MkdirTemp("", "aptfleet-anybody-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o777))
	program, err := os.ReadFile(os.Args[0])
	must(t, err)
	test := filepath.Join(dir, "test")
	must(t, os.WriteFile(test, program, 0o755))
	cmd := exec.Command(test, "-test.run=^(TestBillOfMaterials|TestVerdicts)$")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
