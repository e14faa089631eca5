package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// half is the name of a copy that is not finished.
const half = ".aptfleet-seed"

// inode is what hard links to one file have in common.
type inode struct{ dev, ino uint64 }

// copier copies files with all that they have: content with its holes, owner,
// mode, times, extended attributes, and the hard links among those that it
// copies. On one btrfs file system a copy shares its blocks with the original.
type copier struct {
	linked map[inode]string       // where the first of several names was copied to
	dirs   map[string]unix.Stat_t // what was made of directories
	divide map[string]bool        // directories that become subvolumes
}

func newCopier() *copier {
	return &copier{linked: make(map[inode]string), dirs: make(map[string]unix.Stat_t), divide: make(map[string]bool)}
}

// tree copies what lies at from, and everything below it, to to, which must not
// exist. Subvolumes within come out as directories.
func (c *copier) tree(from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		return c.copyAs(path, target, target)
	})
	if err != nil {
		return err
	}
	return c.finish()
}

// finish gives directories their times: what is made in one changes them.
func (c *copier) finish() error {
	for path, st := range c.dirs {
		if err := setTimes(path, &st); err != nil {
			return err
		}
	}
	clear(c.dirs)
	return nil
}

// node copies one file, link or empty directory. It appears whole or not at
// all, whatever interrupts the boot: what is there is never copied again.
func (c *copier) node(from, to string) error {
	unfinished := filepath.Join(filepath.Dir(to), half)
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.RemoveAll(unfinished)); err != nil {
		return err
	}
	if err := c.copyAs(from, unfinished, to); err != nil {
		return err
	}
	return os.Rename(unfinished, to)
}

// copyAs copies one node, which will be known as final.
func (c *copier) copyAs(from, to, final string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: from, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.linked[key]; ok {
			// Two subvolumes cannot have one file.
			if err := os.Link(first, to); !errors.Is(err, unix.EXDEV) {
				return err
			}
		}
		c.linked[key] = final
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		c.dirs[final] = st
		if c.divide[final] {
			err = makeSubvolume(to)
		} else {
			err = os.Mkdir(to, 0o700)
		}
	case unix.S_IFREG:
		err = copyContent(from, to)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default:
		err = unix.Mknod(to, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	attrs, err := Xattrs(from)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if err := unix.Lsetxattr(to, name, value, 0); err != nil {
			return &fs.PathError{Op: "lsetxattr " + name, Path: to, Err: err}
		}
	}
	if kind != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	return setTimes(to, &st)
}

func setTimes(path string, st *unix.Stat_t) error {
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// copyContent makes to a file with the content of from. A name that the copy is
// given later does not reach the disk before the content does.
func copyContent(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// A file that is not copied on write (chattr +C), as databases are, stays
	// so; that can only be said of an empty file.
	if flags, err := unix.IoctlGetUint32(int(in.Fd()), unix.FS_IOC_GETFLAGS); err == nil && flags&fsNoCow != 0 {
		if err := unix.IoctlSetPointerInt(int(out.Fd()), unix.FS_IOC_SETFLAGS, int(fsNoCow)); err != nil {
			return &fs.PathError{Op: "chattr +C", Path: to, Err: err}
		}
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	return errors.Join(copyData(out, in), out.Sync())
}

const fsNoCow = 0x00800000 // FS_NOCOW_FL of <linux/fs.h>

// copyData copies what is not a hole.
func copyData(out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for end := int64(0); end < info.Size(); {
		start, err := in.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		if end, err = in.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
	}
	return nil
}
