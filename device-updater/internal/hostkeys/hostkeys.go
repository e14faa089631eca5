// Package hostkeys makes the keys by which a device's sshd is known. They
// belong to the device, not to a release: what openssh-server makes when it is
// installed would be the same on all devices of one image.
package hostkeys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"aptfleet/internal/atomicfile"
)

// Kinds are the kinds of keys that sshd of Debian makes, and that the package's
// drop-in names as ssh_host_<kind>_key.
var Kinds = []string{"ed25519", "ecdsa", "rsa"}

// Make fills dir with keys, unless it is there. It is there with all of them or
// not at all, whatever interrupts. run runs ssh-keygen(1).
func Make(ctx context.Context, dir string, run func(ctx context.Context, argv ...string) error) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	work := dir + ".work"
	err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o700))
	for _, kind := range Kinds {
		if err == nil {
			err = run(ctx, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", filepath.Join(work, "ssh_host_"+kind+"_key"))
		}
	}
	if err == nil {
		err = atomicfile.SyncFS(work)
	}
	if err == nil {
		err = os.Rename(work, dir)
	}
	if err == nil {
		err = atomicfile.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return fmt.Errorf("cannot make the SSH host keys of this device: %w", err)
	}
	return nil
}
