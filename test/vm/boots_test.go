package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/rig"
)

const (
	pipeline = "vm"
	stage    = "canary"

	// patience is for one boot or one update on an emulated processor of a busy
	// machine.
	patience = 20 * time.Minute
)

// tell is a program of the device. Once a second it tells what is booted and
// what the updater thinks of it.
const tell = `#!/bin/sh
while sleep 1; do
	root=$(awk '$5 == "/" { print $4 }' /proc/self/mountinfo)
	trial=$(grep -c aptfleet.trial=1 /proc/cmdline)
	view=$(device-updater status --json | tr -d ' \n' | sed 's/.*"phase":"\([A-Z_]*\)".*"committed":\([0-9]*\).*/phase=\1 committed=\2/')
	echo "release=$(cat /usr/share/vm-device/release) root=$root trial=$trial kernel=$(uname -r) $view" > /dev/ttyS1
done
`

const tellUnit = `[Unit]
Description=Tells the test what is booted
After=local-fs.target
[Service]
ExecStart=/usr/lib/vm-device/tell
Restart=always
[Install]
WantedBy=multi-user.target
`

// factory is a server with releases of a real system, and the image of a new
// device.
type factory struct {
	server   *rig.Server
	bin      string
	dir      string
	kernels  []string // packages, from the oldest
	releases map[string]protocol.Snapshot
}

// newFactory makes the pipeline: Debian's kernels for clouds and what a system
// needs, mirrored, and a repository with the updater.
func newFactory(t *testing.T) *factory {
	f := &factory{dir: t.TempDir(), releases: map[string]protocol.Snapshot{}}
	f.bin = filepath.Join(f.dir, "bin")
	must(t, rig.Build(t.Context(), f.bin, "", "repo-manager", "builder", "device-updater"))
	url, keyring, err := debian.Mirror()
	must(t, err)
	certificates, err := os.ReadFile(keyring)
	must(t, err)
	f.server, err = rig.Start(t.Context(), rig.Config{Program: filepath.Join(f.bin, "repo-manager"), Data: filepath.Join(f.dir, "data")})
	must(t, err)
	t.Cleanup(func() { must(t, f.server.Stop()) })
	api := f.server.API
	_, err = api.CreatePipeline(t.Context(), protocol.Pipeline{Name: pipeline, Distribution: "trixie", Architectures: []string{"amd64"}, Stages: []string{"dev", stage}})
	must(t, err)
	_, err = api.CreateRepository(t.Context(), pipeline, "apps", 1)
	must(t, err)
	_, err = api.CreateMirror(t.Context(), pipeline, "debian", protocol.Mirror{
		Suites:     []protocol.MirrorSuite{{URL: url, Suite: "trixie", Components: []string{"main"}, Keyring: certificates}},
		Filter:     `Name (~ ^linux-image-[0-9.]+\+deb13-cloud-amd64$) | systemd-sysv | initramfs-tools | udev | kmod | zstd | libpam-systemd`,
		FilterDeps: true,
	})
	must(t, err)
	change, err := api.UpdateMirror(t.Context(), pipeline, "debian", protocol.MirrorUpdate{})
	must(t, err)
	change, err = api.Wait(t.Context(), change.ID, nil)
	must(t, err)
	if change.Status != "done" {
		t.Fatalf("mirror: %s", change.Error)
	}
	all, err := api.Packages(t.Context(), pipeline, client.PackageQuery{Ref: "dev"})
	must(t, err)
	for _, p := range all {
		if strings.HasPrefix(p.Name, "linux-image-") && p.Architecture == "amd64" && !slices.Contains(f.kernels, p.Name) {
			f.kernels = append(f.kernels, p.Name)
		}
	}
	slices.SortFunc(f.kernels, deb.Compare)
	if len(f.kernels) < 2 {
		t.Fatalf("the mirror has no two kernels for clouds: %v", f.kernels)
	}
	f.add(t, filepath.Join("../../device-updater", "aptfleet.yaml"), "1.0")
	return f
}

// add builds a package and uploads it.
func (f *factory) add(t *testing.T, manifest, version string) {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(f.bin, "builder"), "build", manifest, "--version", version, "--output", out)
	cmd.Env = append(os.Environ(), "APTFLEET_BIN="+f.bin)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	must(t, err)
	for _, path := range debs {
		body, err := os.ReadFile(path)
		must(t, err)
		_, err = f.server.API.Upload(t.Context(), pipeline, "apps", client.File{Name: filepath.Base(path), Body: bytes.NewReader(body), Size: int64(len(body))})
		must(t, err)
	}
}

// release ships a version of the device's package and names the state.
func (f *factory) release(t *testing.T, version, kernel string, files map[string]string) {
	t.Helper()
	work := t.TempDir()
	files = with(files, map[string]string{
		"/usr/share/vm-device/release":               version,
		"/usr/lib/vm-device/tell":                    tell,
		"/usr/lib/systemd/system/vm-tell.service":    tellUnit,
		"/usr/lib/systemd/network/20-wired.network":  "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
		"/usr/lib/aptfleet/kernel.d/10-console.conf": "console=ttyS0,115200n8 mitigations=off nokaslr audit=0\n",
	})
	links := map[string]string{
		"/usr/lib/systemd/system/multi-user.target.wants/vm-tell.service":          "../vm-tell.service",
		"/usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service": "../systemd-networkd.service",
	}
	var contents []map[string]any
	for path, text := range files {
		source := filepath.Join(work, strings.ReplaceAll(path, "/", "_"))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		must(t, os.WriteFile(source, []byte(text), mode))
		contents = append(contents, map[string]any{"src": source, "dst": path})
	}
	for path, target := range links {
		contents = append(contents, map[string]any{"src": target, "dst": path, "type": "symlink"})
	}
	manifest, err := yaml.Marshal(map[string]any{
		"name": "vm-device", "section": "admin", "priority": "optional", "maintainer": "Test <test@aptfleet.example>",
		"homepage": "https://aptfleet.example/", "license": "MIT", "description": "what the virtual device has\nAll of it.\n",
		"depends":  []string{"device-updater", "aptfleet-archive-keyring", kernel, "initramfs-tools", "systemd-sysv", "udev", "kmod", "zstd"},
		"contents": contents,
	})
	must(t, err)
	path := filepath.Join(work, "aptfleet.yaml")
	must(t, os.WriteFile(path, manifest, 0o644))
	f.add(t, path, version)
	f.releases[version], err = f.server.API.CreateSnapshot(t.Context(), pipeline, protocol.NewSnapshot{Note: version})
	must(t, err)
}

func with(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for name, text := range m {
			all[name] = text
		}
	}
	return all
}

func (f *factory) promote(t *testing.T, version string) {
	t.Helper()
	_, err := f.server.API.Promote(t.Context(), pipeline, stage, protocol.Promote{Snapshot: f.releases[version].ID, Reason: t.Name()})
	must(t, err)
}

// image lets `builder image` make the disk of a device that has a release.
func (f *factory) image(t *testing.T, version string) string {
	t.Helper()
	settings, err := yaml.Marshal(map[string]any{
		"archive": strings.Replace(f.server.Public, "127.0.0.1", "10.0.2.2", 1), "pipeline": pipeline, "follow": stage,
		"components": []string{"apps", "debian"}, "keyring": "/usr/share/keyrings/aptfleet-archive-keyring.pgp", "packages": []string{"vm-device"},
		"poll": "2s", "reboot": "auto", "trial": map[string]any{"tries": 2, "timeout": "6m", "observe": "5s"},
	})
	must(t, err)
	file := filepath.Join(f.dir, "device.yaml")
	must(t, os.WriteFile(file, settings, 0o600))
	_, err = f.server.API.CreateUser(t.Context(), "factory", []string{"viewer"})
	must(t, err)
	token, err := f.server.API.CreateToken(t.Context(), protocol.NewToken{User: "factory"})
	must(t, err)
	image := filepath.Join(f.dir, "device.img")
	cmd := exec.CommandContext(t.Context(), filepath.Join(f.bin, "builder"), "image", "--snapshot", f.releases[version].ID,
		"--package", "vm-device", "--settings", file, "--output", image, "--serial", "--verbose")
	cmd.Env = append(os.Environ(), "APTFLEET_SERVER="+f.server.Admin, "APTFLEET_TOKEN="+token.Secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("builder image: %v\n%s", err, out)
	}
	return image
}

// boot is what the loader said it starts.
var bootLine = regexp.MustCompile(`aptfleet: boot (\d+)( aptfleet\.trial=1)?`)

// boots lists what the loader started since it was at offset of the console.
func bootsSince(d *Device, offset int) []string {
	var all []string
	for _, m := range bootLine.FindAllStringSubmatch(d.Console()[offset:], -1) {
		line := m[1]
		if m[2] != "" {
			line += " trial"
		}
		all = append(all, line)
	}
	return all
}

// device makes a device of a test, which ends with it.
func newTestDevice(t *testing.T, image string) *Device {
	t.Helper()
	d, err := NewDevice(t.Context(), t.TempDir(), image)
	must(t, err)
	t.Cleanup(func() {
		if err := d.Cut(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			console := d.Console()
			t.Logf("the console's last words:\n%s", console[max(0, len(console)-6000):])
			told := d.Told()
			t.Logf("told:\n%s", strings.Join(told[max(0, len(told)-10):], "\n"))
		}
	})
	return d
}

// await waits until the device tells a line with all the words after it told
// the first skip lines.
func await(t *testing.T, d *Device, skip int, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, d.Until(ctx, strings.Join(words, " "), func() bool {
		told := d.Told()
		return slices.ContainsFunc(told[min(skip, len(told)):], func(line string) bool {
			fields := strings.Fields(line)
			return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(fields, w) })
		})
	}))
}

func version(kernel string) string { return "kernel=" + strings.TrimPrefix(kernel, "linux-image-") }

// A device with a real loader and a real kernel, made by builder: whatever is
// wrong with a deployment on trial, or with boot control, it ends in the
// committed deployment.
func TestRealBoots(t *testing.T) {
	if os.Getenv("APTFLEET_LONG") == "" {
		t.Skip("a dozen boots on an emulated processor take some ten minutes: make test-long")
	}
	f := newFactory(t)
	f.release(t, "1", f.kernels[len(f.kernels)-1], nil)
	f.promote(t, "1")
	d := newTestDevice(t, f.image(t, "1"))
	must(t, d.On())
	await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", version(f.kernels[len(f.kernels)-1]), "phase=IDLE", "committed=1")
	must(t, d.Cut())

	for _, c := range []struct {
		name   string
		damage func(t *testing.T, control, top string) // a deployment 9 is there, on trial with two tries
		boots  []string
	}{
		{"kernel is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/vmlinuz-*") }, []string{"9 trial", "1"}},
		{"initrd is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/initrd.img-*") }, []string{"9 trial", "1"}},
		{"entry is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/aptfleet/entry.cfg") }, []string{"9 trial", "1"}},
		{"init is missing", func(t *testing.T, _, top string) { remove(t, top, "usr/lib/systemd/systemd") }, []string{"1"}},
		{"kernel panics", func(t *testing.T, _, top string) {
			entry := filepath.Join(top, "deployments/9/boot/aptfleet/entry.cfg")
			text, err := os.ReadFile(entry)
			must(t, err)
			must(t, os.WriteFile(entry, []byte(strings.Replace(string(text), `set options="`, `set options="init=/bin/false `, 1)), 0o644))
		}, []string{"9 trial", "9 trial", "1"}},
		{"grubenv is empty", func(t *testing.T, control, _ string) {
			must(t, os.Truncate(filepath.Join(control, bootcontrol.TrialFile), 0))
		}, []string{"1"}},
		{"grubenv is zeros", func(t *testing.T, control, _ string) {
			must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), make([]byte, bootcontrol.BlockSize), 0o600))
		}, []string{"1"}},
		{"tries are used up", func(t *testing.T, control, _ string) {
			must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), bootcontrol.NewBlock("trial=9", "tries=0"), 0o600))
		}, []string{"1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestDevice(t, d.path("disk"))
			must(t, d.Open(t.Context(), func(control, top string) error {
				command(t, "btrfs", "subvolume", "snapshot", filepath.Join(top, "deployments/1"), filepath.Join(top, "deployments/9"))
				must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), bootcontrol.NewBlock("trial=9", "tries=2"), 0o600))
				c.damage(t, control, top)
				return nil
			}))
			must(t, d.On())
			await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", "phase=IDLE", "committed=1")
			if boots := bootsSince(d, 0); !slices.Equal(boots, c.boots) {
				t.Errorf("the loader started %v, want %v", boots, c.boots)
			}
		})
	}
}

// A device updates to another kernel and back, with the initrd built inside the
// clone, and gives a release up that is not healthy.
func TestUpdateToAnotherKernel(t *testing.T) {
	if os.Getenv("APTFLEET_LONG") == "" {
		t.Skip("three updates on an emulated processor take a quarter of an hour: make test-long")
	}
	f := newFactory(t)
	older, newer := f.kernels[len(f.kernels)-2], f.kernels[len(f.kernels)-1]
	f.release(t, "1", older, nil)
	f.promote(t, "1")
	d := newTestDevice(t, f.image(t, "1"))
	must(t, d.On())
	await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", version(older), "phase=IDLE", "committed=1")
	t.Log("booted")

	f.release(t, "2", newer, nil)
	f.promote(t, "2")
	await(t, d, 0, "release=2", "root=/deployments/2", "trial=1", version(newer), "phase=IDLE", "committed=2")
	t.Log("updated to another kernel")

	// A release that is never healthy.
	f.release(t, "3", newer, map[string]string{"/usr/lib/aptfleet/health.d/required/50-bad": "#!/bin/sh\necho no\nexit 1\n"})
	f.promote(t, "3")
	await(t, d, 0, "release=3", "root=/deployments/3", "trial=1")
	offset, told := len(d.Console()), len(d.Told())
	await(t, d, told, "release=2", "root=/deployments/2", "trial=0", "phase=IDLE", "committed=2")
	if boots := bootsSince(d, offset); !slices.Equal(boots, []string{"2"}) {
		t.Errorf("after the unhealthy trial the loader started %v", boots)
	}
	t.Log("gave an unhealthy release up")

	// Back to the first kernel.
	f.release(t, "4", older, nil)
	f.promote(t, "4")
	await(t, d, told, "release=4", version(older), "phase=IDLE", "committed=4")
	t.Log("went back to the older kernel")
}

// remove deletes files of deployment 9.
func remove(t *testing.T, top, pattern string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(top, "deployments/9", pattern))
	must(t, err)
	if len(found) == 0 {
		t.Fatal(fmt.Errorf("there is no %s", pattern))
	}
	for _, path := range found {
		must(t, os.Remove(path))
	}
}
