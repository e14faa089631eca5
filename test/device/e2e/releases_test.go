package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/protocol"
)

// sample is a package as a manifest of builder describes it. Files are given
// by their content.
type sample struct {
	name, version string
	arch          string // "": all
	depends       []string
	replaces      []string // also Conflicts with and Provides it: the package has a new name
	files         map[string]string
	configs       map[string]string // conffiles
	executables   map[string]string
	scripts       map[string]string // "preinstall", "postinstall", "preremove", "postremove"
}

// release is a set of packages that is shipped together: what the rolling
// repository is to hold when its snapshot is made.
type release struct {
	name     string
	packages []sample
	updater  string // version of a newer one that comes with it; "": none
}

// The application of the sample device: a service that says which version it
// is and appends to its state at every start.
func app(name, version string) sample {
	major, _, _ := strings.Cut(version, ".")
	return sample{
		name: name, version: version,
		files: map[string]string{
			"/usr/share/" + name + "/version": major + "\n",
			"/usr/lib/systemd/system/" + name + ".service": strings.Join([]string{
				"[Unit]", "Description=Sample application",
				"[Service]", "ExecStart=/usr/lib/" + name + "/serve", "StateDirectory=demo",
				"[Install]", "WantedBy=multi-user.target", "",
			}, "\n"),
		},
		executables: map[string]string{
			"/usr/lib/" + name + "/serve":                 "#!/bin/sh\necho " + major + " >>/var/lib/demo/starts\nexec sleep infinity\n",
			"/usr/lib/aptfleet/health.d/required/" + name: "#!/bin/sh\nexec systemctl is-active --quiet " + name + ".service\n",
			"/usr/lib/aptfleet/config.d/" + name:          "#!/bin/sh\nmkdir -p /var/lib/demo && echo \"$*\" >>/var/lib/demo/hooks\n",
		},
	}
}

// added returns a copy of m with one more file, or other content in it.
func added(m map[string]string, path, content string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[path] = content
	return m
}

// needs returns the sample with one more dependency.
func (s sample) needs(name string) sample {
	s.depends = append(slices.Clone(s.depends), name)
	return s
}

func (s sample) file(path, content string) sample {
	s.files = added(s.files, path, content)
	return s
}

func (s sample) config(path, content string) sample {
	s.configs = added(s.configs, path, content)
	return s
}

func (s sample) executable(path, content string) sample {
	s.executables = added(s.executables, path, content)
	return s
}

func (s sample) script(when, text string) sample {
	s.scripts = added(s.scripts, when, text)
	return s
}

// products are what the server knows: devices that anything runs on, and boards
// of two revisions, of which some have a modem.
func products() []protocol.Product {
	return []protocol.Product{
		{Name: "device", Packages: []string{"demo-device"}},
		{Name: "board", Packages: []string{"demo-board"}, Revisions: []string{"A1", "B2"}, Modules: map[string][]string{"lte": {"demo-modem"}}},
	}
}

// productOf returns a product by its name.
func productOf(name string) protocol.Product {
	all := products()
	return all[slices.IndexFunc(all, func(p protocol.Product) bool { return p.Name == name })]
}

// product is the metapackage that a device wants.
func product(version string, apps ...string) sample {
	return metapackage("demo-device", version, apps...)
}

func metapackage(name, version string, apps ...string) sample {
	return sample{name: name, version: version, depends: append([]string{"systemd-sysv", "device-updater", "aptfleet-archive-keyring"}, apps...)}
}

// board are the packages of the other product, module included.
func board(version string, apps ...string) []sample {
	modem := sample{name: "demo-modem", version: version, files: map[string]string{"/usr/share/demo-modem/version": version + "\n"}}
	return []sample{metapackage("demo-board", version, apps...), modem}
}

// breaker is a service that runs a command at every boot before the updater
// starts, and only in a trial: what breaks there was fine when it was
// installed.
func breaker(command string) string {
	return strings.Join([]string{
		"[Unit]", "Description=What is wrong with this release", "DefaultDependencies=no",
		"After=local-fs.target", "Before=sysinit.target aptfleet-updater.service", "ConditionKernelCommandLine=aptfleet.trial=1",
		"[Service]", "Type=oneshot", "ExecStart=" + command,
		"[Install]", "WantedBy=sysinit.target", "",
	}, "\n")
}

// dropIn replaces what the updater's service runs.
func dropIn(command string) string {
	return "[Service]\nType=simple\nExecStart=\nExecStart=" + command + "\n"
}

const (
	appUnit = "/usr/lib/systemd/system/demo-app.service"
	appRun  = "/usr/lib/demo-app/serve"

	updaterDropIn = "/usr/lib/systemd/system/aptfleet-updater.service.d/zz-broken.conf"
)

func service(lines ...string) string {
	return "[Unit]\nDescription=Sample application\n[Service]\n" + strings.Join(lines, "\n") +
		"\n[Install]\nWantedBy=multi-user.target\n"
}

// moveConfig is how a Debian package moves a conffile
// (dpkg-maintscript-helper(1)): the same line in three scripts.
const moveConfig = "#!/bin/sh\nset -e\n" +
	"dpkg-maintscript-helper mv_conffile /etc/demo-app.conf /etc/demo-service/main.conf 4.0~ demo-service -- \"$@\"\n"

// releases are all that the tests ship. Versions 1 to 4 are good: 2 changes a
// conffile, 3 renames the application's package, 4 moves the conffile. The
// others are broken in the way their name says.
func releases() []release {
	three := app("demo-service", "3.0").config("/etc/demo-app.conf", "greeting = hello\nvolume = 3\n")
	three.replaces = []string{"demo-app"}
	plainTwo := app("demo-app", "2.0").config("/etc/demo-app.conf", "greeting = hello\nvolume = 3\n").
		script("postinstall", "#!/bin/sh\nset -e\nsleep 1\n") // so that a power cut finds INSTALL at work on any machine
	four := app("demo-service", "4.0").config("/etc/demo-service/main.conf", "greeting = hello\nvolume = 4\n").
		script("preinstall", moveConfig).script("postinstall", moveConfig).script("postremove", moveConfig)
	four.replaces = []string{"demo-app"}
	all := []release{
		{"1", append(board("1.0", "demo-app"), product("1.0", "demo-app"), app("demo-app", "1.0").config("/etc/demo-app.conf", "greeting = hello\n")), ""},
	}
	good := app("demo-app", "9.0")
	bad := map[string]sample{
		"unhealthy":       good.executable("/usr/lib/aptfleet/health.d/required/demo-app", "#!/bin/sh\necho the pump does not answer\nexit 1\n"),
		"no-start":        good.file(appUnit, service("ExecStart=/usr/lib/demo-app/missing")),
		"crash":           good.executable(appRun, "#!/bin/sh\nsleep 20\nexit 7\n"),
		"hang":            good.file(appUnit, service("Type=notify", "TimeoutStartSec=infinity", "ExecStart="+appRun, "StateDirectory=demo")),
		"fstab":           good.script("postinstall", "#!/bin/sh\nset -e\necho 'none /mnt nosuchfs defaults 0 0' >>/etc/fstab\n"),
		"updater-deleted": good.file("/usr/lib/systemd/system/demo-breaker.service", breaker("/bin/rm /usr/bin/device-updater")),
		"updater-exits":   good.file(updaterDropIn, dropIn("/bin/true")),
		"updater-hangs":   good.file(updaterDropIn, dropIn("/bin/sleep infinity")),
		"firewall": good.needs("nftables").file("/usr/share/demo-app/rules.nft", "table inet app {\n\tchain out {\n\t\ttype filter hook output priority 0; policy drop;\n\t\toif lo accept\n\t}\n}\n").
			file("/usr/lib/systemd/system/demo-breaker.service", breaker("/usr/sbin/nft -f /usr/share/demo-app/rules.nft")),
		"boot-check": good.file("/usr/lib/systemd/system/demo-check.service", strings.Join([]string{
			"[Unit]", "Description=Check of a boot", "After=multi-user.target", "Before=boot-complete.target",
			"[Service]", "Type=oneshot", "RemainAfterExit=yes", "ExecStart=/bin/sh -c 'echo the valve is stuck; exit 1'",
			"[Install]", "RequiredBy=boot-complete.target", "",
		}, "\n")),
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		broken := bad[name]
		// Other bytes need another version: an archive holds one of each.
		broken.version = "9.0+" + strings.ReplaceAll(name, "-", ".")
		all = append(all, release{name, []sample{product("9.0", "demo-app"), broken}, ""})
	}
	one, two := ledger("1.1", "1"), ledger("2.2", "2")
	unhealthy, alone := two.executable("/usr/lib/aptfleet/health.d/required/demo-app", "#!/bin/sh\necho the ledger does not balance\nexit 1\n"), two.file(updaterDropIn, dropIn("/bin/true"))
	unhealthy.version, alone.version = "2.2+unhealthy", "2.2+no.updater"
	for _, r := range []struct {
		name string
		app  sample
	}{{"db-1", one}, {"db-2-unhealthy", unhealthy}, {"db-2-no-updater", alone}, {"db-2", two}} {
		all = append(all, release{name: r.name, packages: []sample{product(r.app.version, "demo-app"), r.app}})
	}
	// The good ones come last, because a rolling repository keeps the packages
	// that a later release no longer wants; and after them those with another
	// updater.
	return append(all,
		release{"2", append(board("2.0", "demo-app"), product("2.0", "demo-app"), plainTwo), ""},
		release{"3", append(board("3.0", "demo-service"), product("3.0", "demo-service"), three), ""},
		release{"4", append(board("4.0", "demo-service"), product("4.0", "demo-service"), four), ""},
		release{"updater-newer", []sample{product("5.0", "demo-app"), app("demo-app", "5.0")}, "2.0"},
		release{"updater-stuck", []sample{product("5.1", "demo-app"), app("demo-app", "5.1")}, "2.1"},
	)
}

// build makes the .deb with builder and returns its path.
func (s sample) build(ctx context.Context, builder, dir string) (string, error) {
	work := filepath.Join(dir, fmt.Sprintf("%s-%s", s.name, s.version))
	manifest := map[string]any{
		"name": s.name, "version": s.version, "arch": cmp.Or(s.arch, "all"), "section": "misc", "priority": "optional",
		"maintainer": "Aptfleet Tests <tests@aptfleet.example>", "description": "sample of a release\n Made by a test.",
		"depends": s.depends,
	}
	if len(s.replaces) > 0 {
		manifest["replaces"], manifest["conflicts"], manifest["provides"] = s.replaces, s.replaces, s.replaces
	}
	put := func(path, content string, mode os.FileMode) (string, error) {
		file := filepath.Join(work, "files", path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		return file, os.WriteFile(file, []byte(content), mode)
	}
	var contents []map[string]any
	for _, kind := range []struct {
		files map[string]string
		kind  string
		mode  os.FileMode
	}{{s.files, "", 0o644}, {s.configs, "config", 0o644}, {s.executables, "", 0o755}} {
		for path, content := range kind.files {
			file, err := put(path, content, kind.mode)
			if err != nil {
				return "", err
			}
			entry := map[string]any{"src": file, "dst": path}
			if kind.kind != "" {
				entry["type"] = kind.kind
			}
			contents = append(contents, entry)
		}
	}
	if contents != nil {
		manifest["contents"] = contents
	}
	scripts := map[string]string{}
	for when, text := range s.scripts {
		file, err := put("scripts/"+when, text, 0o755)
		if err != nil {
			return "", err
		}
		scripts[when] = file
	}
	if len(scripts) > 0 {
		manifest["scripts"] = scripts
	}
	b, err := yaml.Marshal(manifest)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(work, "aptfleet.yaml")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return "", err
	}
	return buildPackage(ctx, builder, path, s.version, filepath.Join(work, "out"))
}

// buildPackage runs builder on a manifest, with more variables for it, and
// returns the .deb it made.
func buildPackage(ctx context.Context, builder, manifest, version, out string, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, builder, "build", manifest, "--version", version, "--output", out)
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w: %s", manifest, err, text)
	}
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("cannot find the package built from %s: %d files, %v", manifest, len(debs), err)
	}
	return debs[0], nil
}
