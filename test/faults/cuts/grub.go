package cuts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"aptfleet/internal/grub"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/lossydisk"
	"aptfleet/test/vm"
)

// whole is the whole disk.
var whole = lossydisk.Part{Size: diskSize}

// keep saves a disk for those who want to look at it.
func keep(disk *lossydisk.Disk, path string) error {
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), disk.Save(path, whole))
}

// makeLoader makes a disk with the GRUB of every device, which prints what it
// would boot and is reset.
func (w *world) makeLoader(ctx context.Context) error {
	image, err := grub.Make(ctx, grub.BIOS, "serial --unit=0 --speed=115200\nterminal_output serial\nset aptfleet_print=1")
	if err != nil {
		return err
	}
	path := filepath.Join(w.dir, "loader")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	const size = 2 << 20
	if err := errors.Join(f.Truncate(size), image.Install(f, 1, size-512), f.Close()); err != nil {
		return err
	}
	w.loader = path
	return nil
}

var printed = regexp.MustCompile(`aptfleet: boot (\d+) (aptfleet\.trial=1)?`)

// askGRUB lets GRUB decide about an image, and the loader of this package about
// a copy of it. It returns what they do not agree about, "" if nothing: what
// boots, and the bytes of boot control afterwards.
func (w *world) askGRUB(ctx context.Context, i *image) (difference string, err error) {
	if w.loader == "" {
		if err := w.makeLoader(ctx); err != nil {
			return "", err
		}
	}
	ours, blocks, err := w.ask(ctx, i.disk.Clone())
	if err != nil || ours == "" {
		return "", err
	}
	control, system := filepath.Join(w.dir, "control.img"), filepath.Join(w.dir, "system.img")
	if err := errors.Join(i.disk.Save(control, controlPart), i.disk.Save(system, systemPart)); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var console bytes.Buffer
	machine := vm.Machine{Memory: 64, Disks: []vm.Disk{{Path: w.loader}, {Path: control}, {Path: system}}}
	if err := machine.Run(limited, &console); err != nil {
		return "", fmt.Errorf("cannot ask GRUB: %w: %s", err, console.String())
	}
	theirs := "nothing"
	if said := printed.FindStringSubmatch(console.String()); said != nil {
		theirs = "boot " + said[1]
		if said[2] != "" {
			theirs += " trial"
		}
	}
	if theirs != ours {
		return fmt.Sprintf("GRUB says %s, the loader %s: %s", theirs, ours, bytes.TrimSpace(console.Bytes())), nil
	}
	for name, want := range blocks {
		have, err := exec.CommandContext(ctx, "debugfs", "-R", "cat "+name, control).Output()
		if err != nil {
			return "", fmt.Errorf("cannot read what GRUB left: %w", err)
		}
		if !bytes.Equal(have, want) {
			return fmt.Sprintf("GRUB leaves %q in %s, the loader %q", have, name, want), nil
		}
	}
	return "", nil
}

// ask lets the loader of this package decide about a disk. It returns what it
// says and the boot-control files that it leaves; "" if they cannot be mounted,
// which is for the judge to say.
func (w *world) ask(ctx context.Context, disk *lossydisk.Disk) (said string, blocks map[string][]byte, err error) {
	d, err := attach(ctx, disk, w.live)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if d.mountControl(ctx) != nil {
		return "", nil, nil
	}
	said = "nothing"
	if decision, err := d.decide(ctx); err == nil {
		said = decision.String()
	}
	blocks = make(map[string][]byte)
	for _, name := range []string{bootcontrol.CommittedFile, bootcontrol.TrialFile} {
		if blocks[name], err = os.ReadFile(filepath.Join(d.control(), name)); err != nil {
			return "", nil, nil
		}
	}
	return said, blocks, nil
}
