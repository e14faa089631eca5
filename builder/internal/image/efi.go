package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"aptfleet/internal/grub"
)

// removable is where firmware that remembers no entry looks for a loader (UEFI
// specification, "Removable Media Boot Behavior"): nothing of a device's own
// memory decides what it boots.
const removable = "EFI/BOOT/BOOTX64.EFI"

// installEFI makes the EFI system partition: FAT, with the loader in the place
// for removable media.
func (b *builder) installEFI(ctx context.Context) error {
	loader, err := grub.Make(ctx, grub.EFI, b.Loader)
	if err != nil {
		return err
	}
	core := filepath.Join(b.dir, "efi")
	if err := os.WriteFile(core, loader.Core, 0o600); err != nil {
		return err
	}
	partition := fmt.Sprintf("%s@@%d", b.disk, b.systemEnd()*sector)
	err = b.run(ctx, nil, "mformat", "-i", partition, "-T", fmt.Sprint(efiSize), "-F", "-v", "EFI", "::")
	for _, dir := range []string{"EFI", "EFI/BOOT"} {
		if err == nil {
			err = b.run(ctx, nil, "mmd", "-i", partition, "::/"+dir)
		}
	}
	if err == nil {
		err = b.run(ctx, nil, "mcopy", "-i", partition, core, "::/"+removable)
	}
	return errors.Join(err, os.Remove(core))
}
