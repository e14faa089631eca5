package cuts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/grub"
	"aptfleet/test/debian"
	"aptfleet/test/lossydisk"
)

// excluded is left out of devices: it would only be read again and again.
var excluded = []string{"usr/share/locale", "usr/share/doc", "usr/share/man", "usr/share/info"}

// manufacture makes the device, with release 1.
func (w *world) manufacture(ctx context.Context) (err error) {
	tar, err := debian.Root(ctx, debian.Spec{Suite: distribution})
	if err != nil {
		return err
	}
	certificate, err := w.archive.key.Certificate()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"keyring.asc": string(certificate), "device.yaml": w.settings(), "systemctl": systemctl} {
		if err := os.WriteFile(filepath.Join(w.lend, name), []byte(content), 0o755); err != nil {
			return err
		}
	}
	w.disk = lossydisk.NewDisk(diskSize)
	d, err := attach(ctx, w.disk, w.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := errors.Join(d.disk.FormatPart(ctx, controlPart, grub.MakeControl()...), d.disk.FormatPart(ctx, systemPart, makeSystem...)); err != nil {
		return err
	}
	if err := errors.Join(d.mountControl(ctx), d.mountTop(ctx)); err != nil {
		return err
	}
	root := deploymentRoot(d.top(), 1)
	if err := errors.Join(os.Mkdir(filepath.Dir(root), 0o755), run(ctx, "btrfs", "subvolume", "create", root), debian.Unpack(ctx, tar, root)); err != nil {
		return err
	}
	if w.archive.base, err = stanzas(root); err != nil {
		return err
	}
	if err := w.install(ctx, root); err != nil {
		return err
	}
	data := filepath.Join(d.top(), "state/var-lib/app/data")
	err = errors.Join(
		os.MkdirAll(filepath.Dir(data), 0o755), os.WriteFile(data, []byte(filling("what the application keeps", 200_000)), 0o640),
		run(ctx, w.Program, "init", "--sysroot", d.top(), "--boot-control", d.control(), "--deployment", "1", "--state", stateID(1)),
		atomicfile.SyncFS(d.top()),
	)
	if err != nil {
		return err
	}
	if _, _, err := w.start(ctx, d, 1, false, w.random, updater("check")); err != nil {
		return err
	}
	return d.off()
}

// install puts into a root what a factory does.
func (w *world) install(ctx context.Context, root string) error {
	rules := ""
	for _, path := range excluded {
		if err := errors.Join(os.RemoveAll(filepath.Join(root, path)), os.Mkdir(filepath.Join(root, path), 0o755)); err != nil {
			return err
		}
		rules += "path-exclude=/" + path + "/*\n"
	}
	debs, err := w.archive.release(ctx, filepath.Join(w.dir, "release-1"), stateID(1), packages(1, false))
	if err != nil {
		return err
	}
	parcel := filepath.Join(root, "parcel")
	err = errors.Join(
		os.WriteFile(filepath.Join(root, "etc/dpkg/dpkg.cfg.d/excluded"), []byte(rules), 0o644),
		os.WriteFile(filepath.Join(root, "etc/machine-id"), []byte(strings.Repeat("5ea1", 8)+"\n"), 0o444),
		os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("device\n"), 0o644),
		os.Mkdir(filepath.Join(root, "sysroot"), 0o700), os.Mkdir(filepath.Join(root, "boot-control"), 0o700), os.Mkdir(parcel, 0o700),
	)
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := run(ctx, "cp", deb, parcel); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "chroot", root, "sh", "-c", "dpkg --force-unsafe-io -i /parcel/*.deb")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return os.RemoveAll(parcel)
}
