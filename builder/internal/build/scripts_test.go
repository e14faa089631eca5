package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/debwriter"
)

// TestJoinScriptKeepsBothHalves runs joined scripts with a real shell.
func TestJoinScriptKeepsBothHalves(t *testing.T) {
	const generated = "case \"$1\" in\nconfigure)\n\techo ours\n\t;;\nesac\n"
	for name, test := range map[string]struct {
		script, want string
		code         int
	}{
		"plain":                {"#!/bin/sh\necho user $1\n", "user configure\nours\n", 0},
		"exit 0":               {"#!/bin/sh\nset -e\necho user\nexit 0\n", "user\nours\n", 0},
		"exit early":           {"#!/bin/sh\n[ \"$1\" = remove ] || exit 0\necho not reached\n", "ours\n", 0},
		"failing":              {"#!/bin/sh\necho user\nexit 7\n", "user\n", 7},
		"failing under -e":     {"#!/bin/sh -e\necho user\nfalse\necho not reached\n", "user\n", 1},
		"set -e":               {"#!/bin/sh\nset -e\nfalse\necho not reached\n", "", 1},
		"a failure it ignores": {"#!/bin/sh\nfalse\necho user\n", "user\nours\n", 0},
		"variables":            {"#!/bin/sh\nset -u\nstatus=3\nset -- other\necho user\n", "user\nours\n", 0},
		"a case":               {"#!/bin/sh\ncase $1 in configure) echo user;; esac", "user\nours\n", 0},
		"a comment last":       {"#!/bin/sh\necho user\n# the end", "user\nours\n", 0},
		"a here document":      {"#!/bin/sh\ncat <<EOF\nuser\nEOF\n", "user\nours\n", 0},
		"bash":                 {"#!/usr/bin/env bash\na=(user)\necho ${a[0]}\n", "user\nours\n", 0},
		"a placeholder":        {"#!/bin/sh\nset -e\necho before\n#DEBHELPER#\necho after\n", "before\nours\nafter\n", 0},
		"nothing":              {"#!/bin/sh", "ours\n", 0},
	} {
		joined, err := joinScript([]byte(test.script), generated)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, joined, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(path, "configure", "").Output()
		code := 0
		if err != nil {
			code = err.(*exec.ExitError).ExitCode()
		}
		if string(out) != test.want || code != test.code {
			t.Errorf("%s: output %q, status %d; want %q, %d\n%s", name, out, code, test.want, test.code, joined)
		}
	}
	if joined, err := joinScript([]byte("#!/usr/bin/perl\nprint 1;\n"), ""); err != nil || string(joined) != "#!/usr/bin/perl\nprint 1;\n" {
		t.Errorf("a script of another language, with nothing to join: %q, %v", joined, err)
	}
	for _, bad := range []string{"", "echo\n", "#!/bin/sh\r\necho\r\n", "#!\n"} {
		if joined, err := joinScript([]byte(bad), generated); err == nil {
			t.Errorf("%q became %q", bad, joined)
		}
	}
}

// The units of the comparison with debhelper: a service, one without
// [Install], a template, a socket, a timer and a path.
var compared = map[string]string{
	"hello.service":       "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
	"hello-once.service":  "[Service]\nType=oneshot\nExecStart=/bin/true\n",
	"hello-each@.service": "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
	"hello.socket":        "[Socket]\nListenStream=/run/hello\n[Install]\nWantedBy=sockets.target\n",
	"hello.timer":         "[Timer]\nOnBootSec=1\n  [Install]\nWantedBy=timers.target\n",
	"hello-watch.path":    "[Path]\nPathExists=/x\nUnit=hello-once.service\n",
	"hello-group.target":  "[Unit]\nDescription=x\n[install]\nWantedBy=multi-user.target\n",
}

// configurations are files that systemd's helpers read at installation.
var configurations = []string{"usr/lib/sysusers.d/hello.conf", "usr/lib/tmpfiles.d/hello.conf", "usr/lib/tmpfiles.d/more.conf"}

// TestScriptsActAsDebhelpers builds the same package with debhelper and runs
// the maintainer scripts of both in all the ways that dpkg calls them, with
// stand-ins that record what would happen to the units.
func TestScriptsActAsDebhelpers(t *testing.T) {
	for _, program := range []string{"dh_installsystemd", "dh_installdeb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing (hint: make test installs debhelper)", program)
		}
	}
	for name, test := range map[string]struct {
		arguments []string
		policy    manifest.UnitPolicy
	}{
		"default":    {nil, manifest.UnitPolicy{Enable: true, Start: true, Restart: true}},
		"no enable":  {[]string{"--no-enable"}, manifest.UnitPolicy{Enable: false, Start: true, Restart: true}},
		"no start":   {[]string{"--no-start", "--restart-after-upgrade"}, manifest.UnitPolicy{Enable: true, Start: false, Restart: true}},
		"no restart": {[]string{"--no-restart-after-upgrade", "--no-stop-on-upgrade"}, manifest.UnitPolicy{Enable: true, Start: true, Restart: false}},
		"by hand":    {[]string{"--no-enable", "--no-start", "--no-stop-on-upgrade"}, manifest.UnitPolicy{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &manifest.Manifest{Scripts: map[string]string{}, Systemd: manifest.Systemd{Default: test.policy}}
			var entries []debwriter.Entry
			for unit, text := range compared {
				entries = append(entries, memoryEntry("/usr/lib/systemd/system/"+unit, []byte(text)))
			}
			for _, name := range configurations {
				entries = append(entries, memoryEntry("/"+name, []byte("# nothing\n")))
			}
			units, err := findUnits(m, entries)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := maintainerScripts(m, "", serviceSnippets(units, entries))
			if err != nil {
				t.Fatal(err)
			}
			theirs := debhelperScripts(t, test.arguments)
			total := 0
			for _, call := range []string{
				"preinst install", "preinst upgrade 1.0", "postinst configure", "postinst configure 1.0", "postinst abort-upgrade 1.0", "postinst abort-remove",
				"postinst abort-deconfigure in-favour x 1", "postinst triggered x", "prerm upgrade 2.0", "prerm remove", "prerm failed-upgrade 1.0", "prerm deconfigure in-favour x 1",
				"postrm upgrade 2.0", "postrm remove", "postrm purge", "postrm failed-upgrade 1.0", "postrm abort-install", "postrm disappear x 1",
			} {
				worlds := []world{{true, true}}
				if name == "default" || name == "no enable" {
					worlds = append(worlds, world{true, false}, world{false, true})
				}
				for _, world := range worlds {
					got, want := world.play(t, ours, call), world.play(t, theirs, call)
					if got != want {
						t.Errorf("%s, %+v: ours does\n%sdebhelper's does\n%s", call, world, got, want)
					}
					total += strings.Count(want, "\n")
				}
			}
			if total < 8 {
				t.Errorf("only %d actions were compared", total)
			}
		})
	}
}

// debhelperScripts returns the maintainer scripts that debhelper writes.
func debhelperScripts(t *testing.T, arguments []string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("debian/control", "Source: hello\nMaintainer: A <a@test.example>\nBuild-Depends: debhelper-compat (= 13)\n\nPackage: hello\nArchitecture: all\nDescription: x\n y\n")
	write("debian/changelog", "hello (1.0) unstable; urgency=medium\n\n  * x\n\n -- A <a@test.example>  Thu, 01 Jan 2026 00:00:00 +0000\n")
	for unit, text := range compared {
		write("debian/hello/lib/systemd/system/"+unit, text)     // Debian 12 looks here
		write("debian/hello/usr/lib/systemd/system/"+unit, text) // and Debian 13 here
	}
	for _, name := range configurations {
		write("debian/hello/"+name, "# nothing\n")
	}
	for _, args := range [][]string{{"dh_installsysusers"}, {"dh_installtmpfiles"}, append([]string{"dh_installsystemd"}, arguments...), {"dh_installdeb"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	scripts := map[string][]byte{}
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm"} {
		if text, err := os.ReadFile(filepath.Join(dir, "debian/hello/DEBIAN", name)); err == nil {
			scripts[name] = text
		}
	}
	return scripts
}

// world is what a maintainer script finds.
type world struct {
	running bool // systemd runs
	enabled bool // the administrator has not disabled the unit
}

// play runs one call of a maintainer script and returns what it did to units,
// a line each, in order. Queries that change nothing are left out.
func (w world) play(t *testing.T, scripts map[string][]byte, call string) string {
	t.Helper()
	words := strings.Fields(call)
	script, exists := scripts[words[0]]
	if !exists {
		return ""
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	systemd := filepath.Join(dir, "systemd")
	if w.running {
		if err := os.Mkdir(systemd, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	status := 0
	if !w.enabled {
		status = 1
	}
	for _, program := range []string{"deb-systemd-helper", "deb-systemd-invoke", "systemctl", "systemd-sysusers", "systemd-tmpfiles"} {
		fake := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *was-enabled*) exit %d;; *debian-installed*) exit 0;; esac\nverb=$1; shift\n[ \"$verb\" = --system ] && verb=$1 && shift\n[ $# -gt 0 ] || set -- all\nfor unit; do echo \"%s $verb $unit\" >>%s; done\n", status, program, log)
		if err := os.WriteFile(filepath.Join(dir, program), []byte(fake), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.NewReplacer("/run/systemd/system", systemd, "/usr/bin/deb-systemd-helper", filepath.Join(dir, "deb-systemd-helper")).Replace(string(script))
	path := filepath.Join(dir, "script")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", append([]string{path}, words[1:]...)...)
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", call, err, out, text)
	}
	done, err := os.ReadFile(log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(done)
}
