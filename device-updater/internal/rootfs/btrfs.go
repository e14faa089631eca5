// Package rootfs works on the roots of deployments: btrfs subvolumes below one
// mounted top level, the manifest of their files, and the state that is
// mounted into them.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of <linux/btrfs.h>.
const (
	ioctlSnapCreateV2 = 0x50009417 // _IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)
	ioctlSubvolCreate = 0x5000940e // _IOW(0x94, 14, struct btrfs_ioctl_vol_args)
	ioctlSnapDestroy  = 0x5000940f // _IOW(0x94, 15, struct btrfs_ioctl_vol_args)
	ioctlRootRef      = 0xd000943d // _IOWR(0x94, 61, struct btrfs_ioctl_get_subvol_rootref_args)
	ioctlSync         = 0x9408     // _IO(0x94, 8)

	flagReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY

	// rootInode is the number of every subvolume's own directory
	// (BTRFS_FIRST_FREE_OBJECTID).
	rootInode = 256
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2.
type volArgsV2 struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// rootRefArgs is struct btrfs_ioctl_get_subvol_rootref_args.
type rootRefArgs struct {
	minTree uint64
	refs    [255]struct{ tree, dir uint64 }
	items   uint8
	_       [7]uint8
}

// Btrfs is the mounted top level of a btrfs file system. Paths given to its
// methods are relative to it.
type Btrfs struct{ top string }

// Open checks that top is a btrfs file system.
func Open(top string) (*Btrfs, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(top, &st); err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", top, err)
	}
	if uint32(st.Type) != unix.BTRFS_SUPER_MAGIC {
		return nil, fmt.Errorf("cannot use %s: it is not on btrfs", top)
	}
	return &Btrfs{top}, nil
}

// Path returns the absolute path of a relative one.
func (b *Btrfs) Path(rel string) string { return filepath.Join(b.top, rel) }

// Snapshot makes subvolume dst as it is in src at this moment. Parents of dst
// are made. dst must not exist.
func (b *Btrfs) Snapshot(src, dst string, readOnly bool) error {
	fail := func(err error) error { return fmt.Errorf("cannot snapshot %s as %s: %w", src, dst, err) }
	if err := os.MkdirAll(filepath.Dir(b.Path(dst)), 0o755); err != nil {
		return fail(err)
	}
	if err := b.subvolume(src); err != nil {
		return fail(err)
	}
	if _, err := os.Lstat(b.Path(dst)); err == nil {
		return fail(fs.ErrExist)
	}
	if err := snapshot(b.Path(src), b.Path(dst), readOnly); err != nil {
		return fail(err)
	}
	return nil
}

// Delete removes the subvolume and those nested in it. One that is not there
// is fine.
func (b *Btrfs) Delete(ctx context.Context, rel string) error {
	if _, err := os.Lstat(b.Path(rel)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := b.subvolume(rel); err != nil {
		return fmt.Errorf("cannot delete %s: %w", rel, err)
	}
	// Looking for others inside takes long, and there hardly ever are any.
	err := b.destroy(rel)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	nested, err := b.Nested(ctx, rel)
	if err != nil {
		return fmt.Errorf("cannot delete %s: %w", rel, err)
	}
	for i := len(nested) - 1; i >= 0; i-- {
		if err := b.destroy(filepath.Join(rel, nested[i])); err != nil {
			return err
		}
	}
	return b.destroy(rel)
}

func (b *Btrfs) destroy(rel string) error {
	parent, err := os.Open(filepath.Dir(b.Path(rel)))
	if err != nil {
		return fmt.Errorf("cannot delete %s: %w", rel, err)
	}
	defer parent.Close()
	var args volArgs
	copy(args.name[:len(args.name)-1], filepath.Base(rel))
	if err := ioctl(parent, ioctlSnapDestroy, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("cannot delete subvolume %s: %w", rel, err)
	}
	return nil
}

// Rename moves a subvolume; dst must not exist.
func (b *Btrfs) Rename(src, dst string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, b.Path(src), unix.AT_FDCWD, b.Path(dst), unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", src, dst, err)
	}
	return nil
}

// Exists reports whether rel is a subvolume.
func (b *Btrfs) Exists(rel string) bool { return b.subvolume(rel) == nil }

// List returns the names in a directory, sorted; none if there is no such
// directory.
func (b *Btrfs) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(b.Path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", dir, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Nested returns the subvolumes inside rel, relative to it, parents before
// their children. A snapshot of rel would hold them as empty directories.
func (b *Btrfs) Nested(ctx context.Context, rel string) ([]string, error) {
	var found []string
	root := b.Path(rel)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.IsDir() || path == root {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if st.Ino == rootInode {
			found = append(found, strings.TrimPrefix(path, root+"/"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot look for subvolumes in %s: %w", rel, err)
	}
	return found, nil
}

// Sync commits the file system: what was written before is on the medium, for
// a boot loader that never replays the log tree too.
func (b *Btrfs) Sync() error {
	top, err := os.Open(b.top)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", b.top, err)
	}
	defer top.Close()
	if err := ioctl(top, ioctlSync, nil); err != nil {
		return fmt.Errorf("cannot sync %s: %w", b.top, err)
	}
	return nil
}

// Free returns how many bytes can still be written.
func (b *Btrfs) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(b.top, &st); err != nil {
		return 0, fmt.Errorf("cannot tell the free space of %s: %w", b.top, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func (b *Btrfs) subvolume(rel string) error {
	var st unix.Stat_t
	if err := unix.Lstat(b.Path(rel), &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: b.Path(rel), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Ino != rootInode {
		return fmt.Errorf("%s is not a subvolume", b.Path(rel))
	}
	return nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
