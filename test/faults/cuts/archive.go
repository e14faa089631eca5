package cuts

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/sign"
	"aptfleet/test/debian"
)

// What the archive is called, and what a device wants of it.
const (
	pipeline     = "demo"
	stage        = "dev"
	distribution = "trixie"
	component    = "main"
	product      = "app"
)

// archive is an archive on loopback with one stage.
type archive struct {
	dir    string // what is served
	url    string
	arch   string // Debian's name of this machine's architecture
	base   []byte // stanzas of what every device has from its factory, and nobody can fetch
	key    *sign.Key
	date   time.Time // of the newest InRelease
	server *http.Server
}

// openArchive serves an empty archive.
func openArchive(ctx context.Context, dir string) (*archive, error) {
	arch, err := debian.Architecture(ctx)
	if err != nil {
		return nil, err
	}
	key, err := sign.Generate("Archive", "archive@aptfleet.example", time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot serve the archive: %w", err)
	}
	a := &archive{dir: dir, url: "http://" + listener.Addr().String(), arch: arch, key: key, date: time.Now().Add(-10 * time.Minute)}
	a.server = &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	// It ends when it is closed.
	go func() { _ = a.server.Serve(listener) }()
	return a, nil
}

func (a *archive) close() error { return a.server.Close() }

// pkg is a package to make.
type pkg struct {
	name, version string
	fields        string            // more of the control file, each line with its end
	files         map[string]string // content by path without a slash; those in etc/ are conffiles
	scripts       map[string]string // "postinst" and so on, without the first line
}

// executable reports whether the file at path is a program.
func executable(path string) bool {
	return strings.HasPrefix(path, "usr/bin/") || strings.Contains(path, "/health.d/") || path == "usr/lib/systemd/systemd"
}

// deb makes the package below dir.
func (p pkg) deb(ctx context.Context, dir string) (path string, err error) {
	tree := filepath.Join(dir, p.name)
	put := func(name, content string, mode os.FileMode) error {
		path := filepath.Join(tree, name)
		return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode))
	}
	var conffiles, sums string
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		mode := os.FileMode(0o644)
		if executable(name) {
			mode = 0o755
		}
		err = errors.Join(err, put(name, p.files[name], mode))
		if strings.HasPrefix(name, "etc/") {
			conffiles += "/" + name + "\n"
		} else {
			sums += fmt.Sprintf("%x  %s\n", md5.Sum([]byte(p.files[name])), name)
		}
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: A <a@aptfleet.example>\nDescription: x\n%s", p.name, p.version, p.fields)
	err = errors.Join(err, put("DEBIAN/control", control, 0o644), put("DEBIAN/md5sums", sums, 0o644))
	if conffiles != "" {
		err = errors.Join(err, put("DEBIAN/conffiles", conffiles, 0o644))
	}
	for name, text := range p.scripts {
		err = errors.Join(err, put("DEBIAN/"+name, "#!/bin/sh\nset -e\n"+text+"\n", 0o755))
	}
	path = filepath.Join(dir, p.name+"_"+p.version+"_all.deb")
	return path, errors.Join(err, run(ctx, "dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, path))
}

// release makes packages and offers them as the state; it returns the .debs,
// in dir.
func (a *archive) release(ctx context.Context, dir, state string, packages []pkg) ([]string, error) {
	var index bytes.Buffer
	var debs []string
	for _, p := range packages {
		deb, err := p.deb(ctx, dir)
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(deb)
		if err != nil {
			return nil, err
		}
		control, err := exec.CommandContext(ctx, "dpkg-deb", "-f", deb).Output()
		if err != nil {
			return nil, fmt.Errorf("cannot read package %s: %w", deb, err)
		}
		debs = append(debs, deb)
		if err := a.write(pipeline+"/states/"+state+"/pool/"+filepath.Base(deb), content); err != nil {
			return nil, err
		}
		fmt.Fprintf(&index, "%sFilename: pool/%s\nSize: %d\nSHA256: %x\n\n", control, filepath.Base(deb), len(content), sha256.Sum256(content))
	}
	index.Write(a.base)
	// An update that finds an older date than it has seen refuses it.
	a.date = a.date.Add(time.Second)
	for _, base := range []string{"states/" + state, stage} {
		if err := a.publish(base, state, index.Bytes()); err != nil {
			return nil, err
		}
	}
	return debs, nil
}

func (a *archive) publish(base, state string, index []byte) error {
	path := component + "/binary-" + a.arch + "/Packages"
	text := fmt.Sprintf("Origin: Aptfleet\nCodename: %s\nLabel: %s\nSuite: %s\nAptfleet-State: %s\nDate: %s\nArchitectures: %s\nComponents: %s\nSHA256:\n %x %d %s\n",
		distribution, pipeline, base, state, a.date.UTC().Format(time.RFC1123), a.arch, component, sha256.Sum256(index), len(index), path)
	signed, err := a.key.ClearSign([]byte(text), a.date)
	if err != nil {
		return err
	}
	dists := pipeline + "/" + base + "/dists/" + distribution + "/"
	return errors.Join(a.write(dists+path, index), a.write(dists+"InRelease", signed))
}

func (a *archive) write(name string, content []byte) error {
	path := filepath.Join(a.dir, name)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644))
}

// stanzas returns those of everything installed in root, as an index has them.
func stanzas(root string) ([]byte, error) {
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for i, stanza := range strings.Split(strings.TrimSpace(string(status)), "\n\n") {
		lines := slices.DeleteFunc(strings.Split(stanza, "\n"), func(l string) bool { return strings.HasPrefix(l, "Status: ") })
		fmt.Fprintf(&out, "%s\nFilename: pool/none%d.deb\nSize: 1\nSHA256: %064x\n\n", strings.Join(lines, "\n"), i, i+1)
	}
	return out.Bytes(), nil
}

// updaterFiles must be in every release. The updater itself is shown over its
// program when a device runs.
var updaterFiles = []string{
	"usr/lib/systemd/system/aptfleet-updater.service",
	"usr/lib/systemd/system/multi-user.target.wants/aptfleet-updater.service",
	"usr/lib/systemd/system/aptfleet-state.service",
	"usr/lib/systemd/system/local-fs.target.requires/aptfleet-state.service",
	"usr/lib/systemd/system/aptfleet-trial.timer",
	"usr/lib/systemd/system/aptfleet-trial.service",
	"usr/lib/systemd/system/sysinit.target.wants/aptfleet-trial.timer",
	"usr/lib/systemd/system/emergency.service.d/aptfleet.conf",
	"usr/lib/systemd/system/rescue.service.d/aptfleet.conf",
}

// packages are those of release n: an application with files of many sizes, a
// configuration file, a script, what it brings into the state, data that migrate,
// firmware, and a check that a bad release does not pass; another kernel each
// time; and the updater.
func packages(n int, bad bool) []pkg {
	version := fmt.Sprintf("%d.0", n)
	app := pkg{
		name: product, version: version, fields: "Depends: demo-kernel, device-updater\n",
		files: map[string]string{
			"etc/app.conf":                           "of = " + version + "\n",
			"etc/app/other.conf":                     "the same in each\n",
			"usr/share/app/version":                  version + "\n",
			"var/lib/app/seed-" + version:            "what release " + version + " brings\n",
			"usr/lib/aptfleet/health.d/required/app": "#!/bin/sh\nexit 0\n",
		},
		scripts: map[string]string{"postinst": "echo made by the script of " + version + " >/usr/share/app/made\nchmod 0640 /usr/share/app/made"},
	}
	if bad {
		app.files["usr/lib/aptfleet/health.d/required/app"] = "#!/bin/sh\necho the pump does not answer\nexit 1\n"
	}
	maps.Copy(app.files, brings(n, version))
	for size := 16; size <= 4<<20; size *= 4 {
		app.files[fmt.Sprintf("usr/lib/app/data-%d", size)] = filling(version, size)
	}
	kernel := "6.1.0-" + fmt.Sprint(n)
	updater := pkg{name: "device-updater", version: "1.0", files: map[string]string{
		"usr/bin/device-updater":  "#!/bin/sh\necho device-updater 1.0\n",
		"usr/lib/systemd/systemd": "stands for PID 1\n", // what a loader looks for
	}}
	for _, name := range updaterFiles {
		updater.files[name] = "x\n"
	}
	return []pkg{app, updater, {
		name: "demo-kernel", version: version,
		files: map[string]string{
			"boot/vmlinuz-" + kernel:                         filling("kernel "+version, 300_000),
			"boot/initrd.img-" + kernel:                      filling("initrd "+version, 500_000),
			"usr/lib/modules/" + kernel + "/modules.builtin": "x\n",
			"usr/lib/aptfleet/kernel.d/demo.conf":            "quiet release=" + version + "\n",
		},
	}}
}

// filling is text of a size in bytes that no other version has.
func filling(version string, size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%x\n", sha256.Sum256(fmt.Appendf(nil, "%s %d", version, i)))
	}
	return b.String()[:size]
}

// stateID is the id of the state of release n.
func stateID(n int) string { return fmt.Sprintf("%064x", n) }

// run runs a program; what it prints becomes part of the error.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
