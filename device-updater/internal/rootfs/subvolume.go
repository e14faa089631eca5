package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// snapshot makes path to a snapshot of the subvolume at from.
func snapshot(from, to string, readOnly bool) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	parent, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer parent.Close()
	args := volArgsV2{fd: int64(source.Fd())}
	if readOnly {
		args.flags = flagReadOnly
	}
	if copy(args.name[:len(args.name)-1], filepath.Base(to)) != len(filepath.Base(to)) {
		return errors.New("the name is too long")
	}
	return ioctl(parent, ioctlSnapCreateV2, unsafe.Pointer(&args))
}

// makeSubvolume makes an empty subvolume at path, or where there is no btrfs a
// directory. Its mode is 0755 less the umask, or narrower.
func makeSubvolume(path string) error {
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	if !onBtrfs(parent) {
		return os.Mkdir(path, 0o700)
	}
	var args volArgs
	if copy(args.name[:len(args.name)-1], filepath.Base(path)) != len(filepath.Base(path)) {
		return errors.New("the name is too long")
	}
	return ioctl(parent, ioctlSubvolCreate, unsafe.Pointer(&args))
}

func onBtrfs(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && uint32(st.Type) == unix.BTRFS_SUPER_MAGIC
}

// wholeSubvolume reports whether a snapshot of path would have all that is in
// it: path is a subvolume, and has none in it.
func wholeSubvolume(path string) bool {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Ino != rootInode {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var args rootRefArgs
	return onBtrfs(f) && ioctl(f, ioctlRootRef, unsafe.Pointer(&args)) == nil && args.items == 0
}
