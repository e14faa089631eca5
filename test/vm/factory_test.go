package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/bom"
	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/rig"
)

const (
	pipeline = "vm"
	product  = "vm"
	stage    = "canary"
	serial   = "VM-0001"
)

// kernels are the packages of Debian's kernels for clouds, which are small, by
// release of Debian.
var kernels = map[string]string{
	"trixie":   `^linux-image-[0-9.]+\+deb13-cloud-amd64$`,
	"bookworm": `^linux-image-[0-9.]+-[0-9]+-cloud-amd64$`,
}

// tell is a program of the device. Every few seconds it tells what is booted and
// what the updater has on the disk: how far it is, of how many releases it knows
// that they failed, and whether what runs is what is committed. It does without
// the updater's own status: to start such a program takes an emulated processor
// seconds, which the update would lack.
const tell = `#!/bin/sh
while sleep 3; do
	root=$(awk '$5 == "/" { print $4 }' /proc/self/mountinfo)
	trial=$(grep -c aptfleet.trial=1 /proc/cmdline)
	phase=$(tail -n 1 /sysroot/updater/journal 2>/dev/null | sed 's/.*"phase":"\([A-Z_]*\)".*/\1/')
	case $phase in ""|FAILED) phase=IDLE ;; esac
	committed=$(sed -n 's/^committed=//p' /boot-control/committed.env)
	home=no
	[ "$root" = "/deployments/$committed" ] && home=yes
	efi=no
	[ -d /sys/firmware/efi ] && efi=yes
	failed=$(grep -c '"reason"' /sysroot/updater/failed.json 2>/dev/null)
	echo "release=$(cat /usr/share/vm-device/release) root=$root trial=$trial kernel=$(uname -r) efi=$efi phase=$phase committed=$committed" \
		"home=$home failed=${failed:-0} updater=$(systemctl is-active aptfleet-updater.service)" > /dev/ttyS1
done
`

const tellUnit = `[Unit]
Description=Tells the test what is booted
After=local-fs.target
[Service]
ExecStart=/usr/lib/vm-device/tell
Restart=always
Nice=10
[Install]
WantedBy=multi-user.target
`

// journalUnit tells each record of the updater's journal at once.
const journalUnit = `[Unit]
Description=Tells the test what the updater writes down
After=local-fs.target
[Service]
ExecStart=/bin/sh -c 'exec tail -n 0 -F /sysroot/updater/journal >/dev/ttyS1 2>/dev/null'
Restart=always
[Install]
WantedBy=multi-user.target
`

// factory is a server with releases of a real system, and the image of a new
// device.
type factory struct {
	server   *rig.Server
	archive  string // URL of the archive as this machine reaches it
	suite    string // of Debian
	bin      string
	dir      string
	kernels  []string // packages, from the oldest
	releases map[string]protocol.Snapshot
}

// newFactory makes the pipeline: Debian's kernels for clouds and what a system
// needs, mirrored, a repository with the updater, and a product. A device is
// registered by its serial number.
func newFactory(t *testing.T, suite string) *factory {
	f := &factory{suite: suite, dir: t.TempDir(), releases: map[string]protocol.Snapshot{}}
	f.bin = filepath.Join(f.dir, "bin")
	must(t, rig.Build(t.Context(), f.bin, "", "repo-manager", "builder", "device-updater"))
	url, keyring, err := debian.Mirror()
	must(t, err)
	certificates, err := os.ReadFile(keyring)
	must(t, err)
	listen := freePort(t)
	f.archive = "http://" + listen
	f.server, err = rig.Start(t.Context(), rig.Config{
		Program: filepath.Join(f.bin, "repo-manager"), Data: filepath.Join(f.dir, "data"),
		// Devices know this machine's loopback by another name.
		Settings: []string{"url: http://" + strings.Replace(listen, "127.0.0.1", "10.0.2.2", 1)}, Args: []string{"--listen", listen},
	})
	must(t, err)
	t.Cleanup(func() { must(t, f.server.Stop()) })
	api := f.server.API
	_, err = api.CreatePipeline(t.Context(), protocol.Pipeline{Name: pipeline, Distribution: suite, Architectures: []string{"amd64"}, Stages: []string{"dev", stage}})
	must(t, err)
	_, err = api.CreateRepository(t.Context(), pipeline, "apps", 1)
	must(t, err)
	_, err = api.CreateMirror(t.Context(), pipeline, "debian", protocol.Mirror{
		Suites:     []protocol.MirrorSuite{{URL: url, Suite: suite, Components: []string{"main"}, Keyring: certificates}},
		Filter:     `Name (~ ` + kernels[suite] + `) | systemd-sysv | initramfs-tools | udev | kmod | zstd | libpam-systemd`,
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
	_, err = api.CreateProduct(t.Context(), pipeline, protocol.Product{Name: product, Architecture: "amd64", Packages: []string{"vm-device"}})
	must(t, err)
	_, err = api.Register(t.Context(), []protocol.Registration{{Serial: serial, Pipeline: pipeline, Product: product, Stage: stage}})
	must(t, err)
	return f
}

// freePort is an address of this machine's loopback as virtual devices reach it.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

// older and newer are the two kernels between which devices change.
func (f *factory) older() string { return f.kernels[len(f.kernels)-2] }
func (f *factory) newer() string { return f.kernels[len(f.kernels)-1] }

// manufactured makes a factory whose release "1" has one of its kernels, and a new
// device of that release, which is off.
func manufactured(t *testing.T, suite string, kernel func(*factory) string, efi bool) (*factory, *Device) {
	t.Helper()
	f := newFactory(t, suite)
	f.release(t, "1", kernel(f), nil)
	f.promote(t, "1")
	return f, newTestDevice(t, f.image(t, "1"), efi)
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
		"/usr/lib/systemd/system/vm-journal.service": journalUnit,
		"/usr/lib/systemd/network/20-wired.network":  "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
		"/usr/lib/aptfleet/kernel.d/10-console.conf": "console=ttyS0,115200n8 mitigations=off nokaslr audit=0\n",
		// An emulated processor collects and compresses slowly.
		"/usr/share/initramfs-tools/conf.d/vm-device":    "COMPRESS=zstd\nCOMPRESSLEVEL=1\nMODULES=list\n",
		"/usr/share/initramfs-tools/modules.d/vm-device": "btrfs\nvirtio_blk\nvirtio_pci\n",
	})
	links := map[string]string{
		"/usr/lib/systemd/system/multi-user.target.wants/vm-tell.service":          "../vm-tell.service",
		"/usr/lib/systemd/system/multi-user.target.wants/vm-journal.service":       "../vm-journal.service",
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

// bill is the bill of materials of the product in a release.
func (f *factory) bill(t *testing.T, version string) []byte {
	t.Helper()
	text, err := f.server.API.BOMText(t.Context(), pipeline, product, nil, f.releases[version].ID, "text")
	must(t, err)
	return text
}

// image lets `builder image` make the disk of a device that has a release: its
// packages are the bill of materials of the product there.
func (f *factory) image(t *testing.T, version string) string {
	t.Helper()
	settings, err := yaml.Marshal(map[string]any{
		"server": strings.Replace(f.archive, "127.0.0.1", "10.0.2.2", 1), "insecure": true, "serial": serial, "product": product,
		"poll": "2s", "reboot": "auto", "trial": map[string]any{"tries": 2, "timeout": "15m", "observe": "5s"},
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
		"--product", product, "--archive", f.archive, "--settings", file, "--output", image, "--efi", "--serial", "--verbose")
	cmd.Env = append(os.Environ(), "APTFLEET_SERVER="+f.server.Admin, "APTFLEET_TOKEN="+token.Secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("builder image: %v\n%s", err, out)
	}
	return image
}

// runs waits until the server knows that the device runs a release as its bill
// of materials says, committed and healthy.
func (f *factory) runs(t *testing.T, d *Device, version string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := bom.Sum(f.bill(t, version))
	var known protocol.Device
	err := d.Until(ctx, "the server know that it runs release "+version, func() bool {
		var err error
		known, err = f.server.API.Device(ctx, serial)
		return err == nil && known.State == protocol.DeviceOK && known.Has != nil && known.Has.Snapshot == f.releases[version].ID && known.Has.BOM == want
	})
	if err != nil {
		t.Fatal(errors.Join(err, fmt.Errorf("it is known as %s, has %+v, want %s: %s", known.State, known.Has, want, known.WhyNot)))
	}
}
