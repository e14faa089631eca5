package build_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/builder/internal/build"
	"aptfleet/builder/internal/gitversion"
)

// source is a source directory under construction.
type source struct {
	t   testing.TB
	dir string
}

func newSource(t testing.TB, manifest string, files map[string]string) source {
	t.Helper()
	s := source{t, t.TempDir()}
	s.write("aptfleet.yaml", manifest)
	for name, content := range files {
		s.write(name, content)
	}
	return s
}

// write makes a file; names below bin/ and scripts are executable.
func (s source) write(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	mode := os.FileMode(0o644)
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
		s.t.Fatal(err)
	}
}

func noEnvironment(string) (string, bool) { return "", false }

// build makes the package and returns where it is.
func (s source) build(version string) build.Result {
	s.t.Helper()
	r, err := build.Build(context.Background(), build.Options{Source: s.dir, Version: version, Output: s.t.TempDir(), Env: noEnvironment})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// refuse builds and wants an error that says so, and no file.
func (s source) refuse(want string) {
	s.t.Helper()
	out := s.t.TempDir()
	_, err := build.Build(context.Background(), build.Options{Source: s.dir, Version: "1.0", Output: out, Env: noEnvironment})
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("got %v, want %q", err, want)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		s.t.Errorf("left behind: %v, %v", left, err)
	}
}

// run runs a program that make test installs, and returns its output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing (hint: make test installs it)", name)
	}
	return exec.Command(name, args...)
}

const header = "name: hello\narch: all\nmaintainer: A Tester <a@test.example>\nhomepage: https://hello.example/\nlicense: GPL-3.0-or-later\ndescription: |\n  says hello\n  and nothing more, in two lines\n"

// rich has something of everything.
const rich = header + `version: 1.2.3
depends: [init-system-helpers (>= 1.5)]
contents:
  - {src: bin/*, dst: /usr/bin}
  - {src: hello.service, dst: /usr/lib/systemd/system/}
  - {src: hello.timer, dst: /usr/lib/systemd/system/}
  - {src: hello.conf, dst: /etc/hello.conf, type: config}
  - {src: tree, dst: /usr/share/hello/tree, type: tree}
  - {src: data/**/*.txt, dst: /usr/share/hello/data}
  - {src: ../../bin/hello, dst: /usr/lib/hello/hello, type: symlink}
  - {dst: /var/lib/hello, type: dir, file_info: {mode: 0750}}
scripts: {postinstall: postinst, preremove: prerm}
deb:
  triggers: {interest_noawait: [/usr/share/hello-plugins]}
`

var richFiles = map[string]string{
	"bin/hello":       "#!/bin/sh\necho hello\n",
	"hello.service":   "[Unit]\nDescription=hello\n[Service]\nType=oneshot\nExecStart=/usr/bin/hello\n[Install]\nWantedBy=multi-user.target\n",
	"hello.timer":     "[Unit]\nDescription=hello now and then\n[Timer]\nOnBootSec=1h\n[Install]\nWantedBy=timers.target\n",
	"hello.conf":      "greeting=hello\n",
	"tree/a/b":        "b\n",
	"tree/c":          "#!/bin/sh\necho c\n",
	"data/one.txt":    "1\n",
	"data/deep/2.txt": "2\n",
	"data/no.md":      "no\n",
	"postinst":        "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\necho configured >/var/lib/hello/state\nexit 0\n",
	"prerm":           "#!/bin/sh\nset -e\nrm -f /var/lib/hello/state\n",
}

// TestTwoBuildsAreIdentical builds one commit in two clones that differ in
// directory, umask, times and permissions of group and others.
func TestTwoBuildsAreIdentical(t *testing.T) {
	s := newSource(t, rich, richFiles)
	if err := os.Symlink("c", filepath.Join(s.dir, "tree", "link")); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"GIT_CONFIG_GLOBAL": os.DevNull, "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@test.example", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@test.example", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z"} {
		t.Setenv(name, value)
	}
	run(t, "git", "-C", s.dir, "init", "-q")
	run(t, "git", "-C", s.dir, "add", ".")
	run(t, "git", "-C", s.dir, "commit", "-q", "-m", "all")
	for _, compression := range []string{"gzip", "zstd", "xz", "none"} {
		var packages [][]byte
		for _, umask := range []int{0o022, 0o077} {
			old := syscall.Umask(umask)
			clone := filepath.Join(t.TempDir(), fmt.Sprint("clone", umask))
			run(t, "git", "clone", "-q", s.dir, clone)
			text := strings.Replace(rich, "deb:\n", "deb:\n  compression: "+compression+"\n", 1)
			if err := os.WriteFile(filepath.Join(clone, "other.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "git", "-C", clone, "-c", "core.excludesFile=/dev/null", "add", "other.yaml")
			run(t, "git", "-C", clone, "commit", "-q", "-m", "compression", "--date=2026-01-02T03:04:05Z")
			r, err := build.Build(context.Background(), build.Options{Source: filepath.Join(clone, "other.yaml"), Output: t.TempDir(), Env: noEnvironment})
			syscall.Umask(old)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(r.File)
			if err != nil {
				t.Fatal(err)
			}
			if r.Size != int64(len(data)) || r.Commit == "" || strings.Contains(r.Commit, "dirty") {
				t.Errorf("the result is %+v", r)
			}
			packages = append(packages, data)
			time.Sleep(10 * time.Millisecond) // for other times of files
		}
		if !bytes.Equal(packages[0], packages[1]) {
			t.Errorf("%s: two builds of one commit differ", compression)
		}
	}
}

// TestLintianFindsNoErrors: what lintian calls an error would be one.
func TestLintianFindsNoErrors(t *testing.T) {
	args := []string{"--fail-on", "error", "--tag-display-limit", "0"}
	for name, s := range map[string]source{
		"a rich package":      newSource(t, strings.Replace(rich, "name: hello", "name: hello-rich", 1), richFiles),
		"one with a revision": newSource(t, strings.Replace(rich, "version: 1.2.3", "version: 1.2.3\nrelease: 1\nepoch: 2", 1), richFiles),
		"a metapackage":       newSource(t, strings.Replace(header, "name: hello", "name: hello-meta", 1)+"version: 1.0\nsection: metapackages\ndepends: [adduser]\n", nil),
		"demo-app":            {t, "../../../examples/demo-app"},
		"demo-device":         {t, "../../../examples/demo-device"},
	} {
		r := s.build("")
		if len(r.Warnings) > 0 {
			t.Errorf("%s: warnings %q", name, r.Warnings)
		}
		args = append(args, r.File)
	}
	args = append(args, updaterPackage(t))
	if out, err := command(t, "lintian", args...).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// updaterPackage builds the package of device-updater, with the program as a
// release has it.
func updaterPackage(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	compile := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin+"/", "aptfleet/device-updater")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("cannot build device-updater: %v\n%s", err, out)
	}
	run(t, filepath.Join(bin, "device-updater"), "man", filepath.Join(bin, "man8"))
	r, err := build.Build(t.Context(), build.Options{
		Source: "../../../device-updater", Version: "1.0", Output: t.TempDir(),
		Env: func(name string) (string, bool) { return bin, name == "APTFLEET_BIN" },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.File
}

// TestAnInterruptedBuildLeavesNothing interrupts the packing of a terabyte.
func TestAnInterruptedBuildLeavesNothing(t *testing.T) {
	s := newSource(t, header+"version: 1\ncontents: [{src: big, dst: /usr/share/big}]\n", map[string]string{"big": ""})
	if err := os.Truncate(filepath.Join(s.dir, "big"), 1<<40); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	out := t.TempDir()
	if _, err := build.Build(ctx, build.Options{Source: s.dir, Output: out, Env: noEnvironment}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestContents(t *testing.T) {
	s := newSource(t, rich, richFiles)
	listing := run(t, "dpkg-deb", "--contents", s.build("").File)
	for _, want := range []string{
		"-rwxr-xr-x root/root        21 2020-01-01 00:00 ./usr/bin/hello\n",
		"./usr/lib/systemd/system/hello.service\n",
		"-rw-r--r-- root/root        15 2020-01-01 00:00 ./etc/hello.conf\n",
		"./usr/share/hello/tree/a/b\n",
		"-rwxr-xr-x root/root        17 2020-01-01 00:00 ./usr/share/hello/tree/c\n",
		"./usr/share/hello/data/one.txt\n",
		"./usr/share/hello/data/deep/2.txt\n",
		"./usr/lib/hello/hello -> ../../bin/hello\n",
		"drwxr-x--- root/root         0 2020-01-01 00:00 ./var/lib/hello/\n",
		"./usr/share/doc/hello/changelog.gz\n",
		"./usr/share/doc/hello/copyright\n",
	} {
		if !strings.Contains(listing, want) {
			t.Errorf("the package lacks %q:\n%s", want, listing)
		}
	}
	if strings.Contains(listing, "no.md") {
		t.Errorf("a file that does not match is in it:\n%s", listing)
	}
}

func TestBuildRefuses(t *testing.T) {
	content := func(lines string) source {
		return newSource(t, header+"contents:\n"+lines, map[string]string{"a": "a", "b": "b", "d/x": "x", "script": "#!/usr/bin/python3\n", "none": "exit 0\n", "u.service": "[Install]\n"})
	}
	for lines, want := range map[string]string{
		"  - {src: absent, dst: /usr/share/a}":                                                     "aptfleet.yaml:10: stat ",
		"  - {src: '*.none', dst: /usr/share/a}":                                                   "aptfleet.yaml:10: the pattern *.none matches no file",
		"  - {src: '[', dst: /usr/share/a}":                                                        "the pattern \"[\" is malformed",
		"  - {src: '{a,b}*', dst: /usr/share/a}":                                                   "alternatives {…} in a pattern are not supported",
		"  - {src: a, dst: /etc/a}":                                                                "aptfleet.yaml:10: /etc/a is a plain file below /etc",
		"  - {src: d, dst: /etc/d}":                                                                "/etc/d/x is a plain file below /etc",
		"  - {src: a, dst: /usr/share/a, type: tree}":                                              "a is no directory",
		"  - {src: a, dst: /usr/share/a}\n  - {src: b, dst: /usr/share/a}":                         "aptfleet.yaml:11: /usr/share/a is already taken by line 10",
		"  - {src: a, dst: /usr/a}\n  - {src: b, dst: /usr/a/b}":                                   "/usr/a/b lies below /usr/a, which is no directory",
		"  - {src: /dev/null, dst: /usr/share/a}":                                                  "is neither a plain file nor a directory",
		"  []\nscripts: {postinstall: absent}":                                                     "cannot use the postinst script absent",
		"  []\nscripts: {postinstall: none}":                                                       "its first line must be #!/bin/sh",
		"  - {src: u.service, dst: /lib/systemd/system/u.service}\nscripts: {postinstall: script}": "which can be joined to a shell script only",
		"  []\naptfleet: {systemd: {units: {a.service: {start: false}}}}":                          "the package has no such unit",
		"  - {src: u.service, dst: /lib/systemd/system/u.service}\n  - {src: u.service, dst: /usr/lib/systemd/system/u.service}": "it is in both",
	} {
		content(lines).refuse(want)
	}
	newSource(t, header+"versio: 1\n", nil).refuse("aptfleet.yaml:9: the key versio is unknown (did you mean version?)")
	empty := source{t, t.TempDir()}
	empty.refuse("it has no aptfleet.yaml")
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"version: v1.2.3":                               "1.2.3",
		"version: 1.3.0-rc1":                            "1.3.0~rc1",
		"version: 1.3.0\nprerelease: beta1\nepoch: 2":   "2:1.3.0~beta1",
		"version: 1.0\nrelease: 3\nversion_metadata: x": "1.0+x-3",
	} {
		if got := newSource(t, header+text+"\n", nil).build("").Version; got != want {
			t.Errorf("%q gives %s, want %s", text, got, want)
		}
	}
	s := newSource(t, header+"version: 1.0\nepoch: 5\n", nil)
	if r := s.build("v2.0-rc2"); r.Version != "2.0~rc2" || filepath.Base(r.File) != "hello_2.0~rc2_all.deb" {
		t.Errorf("an explicit version gives %+v", r)
	}
	s = newSource(t, header, nil)
	_, err := build.Build(context.Background(), build.Options{Source: s.dir, Output: t.TempDir(), Env: noEnvironment})
	if !errors.Is(err, gitversion.ErrNoRepository) || !strings.Contains(err.Error(), "cannot find a version for hello") {
		t.Errorf("without any version: %v", err)
	}
	s.t = t
	if _, err := build.Build(context.Background(), build.Options{Source: s.dir, Version: "not a version", Output: t.TempDir(), Env: noEnvironment}); err == nil || !strings.Contains(err.Error(), "cannot parse version") {
		t.Errorf("a bad version: %v", err)
	}
}

func TestSourceDateEpoch(t *testing.T) {
	s := newSource(t, rich, richFiles)
	for epoch, want := range map[string]string{"86400": "1970-01-02 00:00 ./usr/bin/hello\n", "": "", "x": "", "-1": ""} {
		env := func(name string) (string, bool) { return epoch, name == "SOURCE_DATE_EPOCH" }
		r, err := build.Build(context.Background(), build.Options{Source: s.dir, Output: t.TempDir(), Env: env})
		if (err == nil) != (want != "") {
			t.Errorf("SOURCE_DATE_EPOCH=%q: %v", epoch, err)
		}
		if err == nil {
			if listing := run(t, "dpkg-deb", "--contents", r.File); !strings.Contains(listing, want) {
				t.Errorf("SOURCE_DATE_EPOCH=%s: %s", epoch, listing)
			}
		}
	}
}

// TestMemoryIsBounded compares what packing nothing and a quarter of a
// gigabyte allocates in all.
func TestMemoryIsBounded(t *testing.T) {
	s := newSource(t, header+"version: 1\ncontents: [{src: big, dst: /usr/share/big}]\ndeb: {compression: zstd}\n", map[string]string{"big": ""})
	var marks [3]runtime.MemStats
	runtime.ReadMemStats(&marks[0])
	s.build("")
	runtime.ReadMemStats(&marks[1])
	if err := os.Truncate(filepath.Join(s.dir, "big"), 256<<20); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	r, err := build.Build(context.Background(), build.Options{Source: s.dir, Output: t.TempDir(), Env: noEnvironment, Progress: func(d, all int64) { done, total = d, all }})
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&marks[2])
	if done != total || total < 256<<20 || total > 257<<20 {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	empty, big := marks[1].TotalAlloc-marks[0].TotalAlloc, marks[2].TotalAlloc-marks[1].TotalAlloc
	if big > empty+32<<20 {
		t.Errorf("%d MB were allocated for 256 MB of content, %d MB for none", big>>20, empty>>20)
	}
	if got := run(t, "dpkg-deb", "--field", r.File, "Installed-Size"); got != "262152\n" {
		t.Errorf("Installed-Size is %s", got)
	}
}
