// Package grub makes GRUB the boot loader of a device: its configuration,
// which decides what boots, and the core image that carries it.
//
// The configuration is grub.cfg in this directory, the same for every device
// and release. It lies in an archive inside the core image, so nothing that an
// update touches can keep the loader from its rules.
package grub

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Config is the script that decides what boots.
//
//go:embed grub.cfg
var Config []byte

// Labels of the file systems that the script looks for.
const (
	SystemLabel  = "aptfleet"      // btrfs, with deployments/
	ControlLabel = "aptfleet-boot" // boot control, without a journal
)

// MakeControl is the command, without a device, that makes the file system of
// boot control. GRUB replays no journal. Without checksums a superblock of which
// a power cut left one sector of two, when it was mounted, can be mounted again:
// only times and counters differ, all in the first.
func MakeControl() []string {
	return []string{"mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-L", ControlLabel}
}

// Platform is a GRUB platform, as grub-mkimage names it.
type Platform string

// The platforms that a core image can be made for.
const (
	BIOS Platform = "i386-pc"
	EFI  Platform = "x86_64-efi"
)

// modules that the script, the disks and the consoles need.
var modules = strings.Fields(`normal test regexp loadenv search search_label probe configfile linux echo sleep reboot true
	serial terminal part_gpt part_msdos btrfs ext2 fat memdisk tar minicmd`)

// own are the modules that only one platform has.
var own = map[Platform][]string{BIOS: {"biosdisk"}, EFI: {"efi_gop", "chain"}}

// sectorSize is that of BIOS and GPT, in bytes.
const sectorSize = 512

// Image is a loader, ready to be written to a disk.
type Image struct {
	Boot []byte // boot sector; nil for EFI
	Core []byte // for BIOS from a sector on, for EFI a program
}

// Make builds the image with grub-mkimage, which Debian has in grub-common,
// and the platform's modules, in grub-pc-bin or grub-efi-amd64-bin. early are
// lines of GRUB script that run before the configuration, e.g. to choose a
// console; they may be empty.
func Make(ctx context.Context, platform Platform, early string) (_ Image, err error) {
	fail := func(err error) (Image, error) {
		return Image{}, fmt.Errorf("cannot make the boot loader for %s: %w", platform, err)
	}
	dir, err := os.MkdirTemp("", "aptfleet-grub-")
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	archive, err := memdisk()
	if err != nil {
		return fail(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string][]byte{"memdisk.tar": archive, "early.cfg": []byte(early + "\nnormal (memdisk)/grub.cfg\nreboot\n")} {
		if err := os.WriteFile(path(name), text, 0o600); err != nil {
			return fail(err)
		}
	}
	args := []string{"--format=" + string(platform), "--prefix=(memdisk)/", "--config=" + path("early.cfg"), "--memdisk=" + path("memdisk.tar"), "--output=" + path("core")}
	cmd := exec.CommandContext(ctx, "grub-mkimage", append(append(args, modules...), own[platform]...)...)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("grub-mkimage: %w: %s", err, bytes.TrimSpace(out)))
	}
	var image Image
	if image.Core, err = os.ReadFile(path("core")); err != nil {
		return fail(err)
	}
	if platform == BIOS {
		if image.Boot, err = os.ReadFile(filepath.Join("/usr/lib/grub", string(platform), "boot.img")); err != nil {
			return fail(err)
		}
	}
	return image, nil
}

// memdisk is a tar archive with the configuration.
func memdisk() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: "grub.cfg", Mode: 0o644, Size: int64(len(Config)), Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.Write(Config)
	}
	return out.Bytes(), errors.Join(err, w.Close())
}

// What a boot sector says, and what of it belongs to the disk
// (grub-core/boot/i386/pc/boot.S and include/grub/i386/pc/boot.h of GRUB).
const (
	bootDriveCheck = 0x66  // two bytes; nops: the BIOS's word for the drive counts
	bootSector     = 0x5c  // where the core image begins, uint64
	diskParts      = 0x1b8 // disk signature and partition table…
	diskPartsEnd   = 0x1fe // …up to the mark of a boot sector
	coreNextSector = 0x1f4 // in the core image: where the rest of it begins, uint64
)

// Install writes a BIOS image: the boot sector into sector 0, of which the
// disk's signature and partition table stay, and the core image from sector
// lba on, where room bytes are free (the BIOS boot partition). The core image
// is written first: a disk that lost its power between the two boots as before.
func (i Image) Install(disk interface {
	io.ReaderAt
	io.WriterAt
}, lba uint64, room int64) error {
	fail := func(err error) error { return fmt.Errorf("cannot install the boot loader: %w", err) }
	if len(i.Boot) != sectorSize || len(i.Core) <= sectorSize {
		return fail(errors.New("it is not one for a BIOS"))
	}
	if int64(len(i.Core)) > room {
		return fail(fmt.Errorf("it has %d bytes, the partition has %d", len(i.Core), room))
	}
	old := make([]byte, sectorSize)
	if _, err := disk.ReadAt(old, 0); err != nil {
		return fail(err)
	}
	boot, core := bytes.Clone(i.Boot), bytes.Clone(i.Core)
	copy(boot[diskParts:diskPartsEnd], old[diskParts:diskPartsEnd])
	copy(boot[bootDriveCheck:], []byte{0x90, 0x90})
	binary.LittleEndian.PutUint64(boot[bootSector:], lba)
	binary.LittleEndian.PutUint64(core[coreNextSector:], lba+1)
	if _, err := disk.WriteAt(core, int64(lba)*sectorSize); err != nil {
		return fail(err)
	}
	if _, err := disk.WriteAt(boot, 0); err != nil {
		return fail(err)
	}
	return nil
}
