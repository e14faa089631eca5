package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
)

// stateDirs are the directories of a running system that outlive releases, with
// the names they have below state/.
var stateDirs = []stateDir{
	{"var/lib", "var-lib"},
	{"home", "home"},
	{"root", "root"},
	{"srv", "srv"},
	{"var/log", "var-log"},
	{"var/spool", "var-spool"},
	{"usr/local", "usr-local"},
}

type stateDir struct{ path, name string }

// releaseDirs are what belongs to the release within /var/lib: patterns of
// filepath.Match, relative to it. Packages add to them in releaseConf.
var releaseDirs = []string{
	"dpkg", "apt", "ucf", "pam", "shells.state",
	"systemd/deb-systemd-helper-*", "systemd/deb-systemd-user-helper-*", "systemd/catalog",
	"initramfs-tools", "emacsen-common", "xml-core", "sgml-base", "dictionaries-common", "ispell", "aspell",
	"python", "python3", "man-db", "vim", "grub", "os-prober", "polkit-1", "update-rc.d", "usbutils",
}

// releaseConf holds files with more patterns, one a line, '#' for comments.
const releaseConf = "usr/lib/aptfleet/release.d/*.conf"

// State mounts what outlives releases into a running system.
type State struct {
	Root       string // of the running system: "/"
	Sysroot    string // mounted top level
	Deployment int    // that runs

	Clock func() time.Time // of Mount; nil: the machine's
	Warn  func(error)      // of Mount; nil: nobody listens
}

func (s State) warn(err error) {
	if s.Warn != nil {
		s.Warn(err)
	}
}

// Units are the state units of the device.
func (s State) Units() Units { return Units{Sysroot: s.Sysroot, Clock: s.Clock} }

// Mount puts the state over the running system: state/var-lib over /var/lib,
// with the release's own directories bound back, and the other state
// directories, also those that packages declare, over theirs. What the
// deployment brings below them is a seed: copied once where nothing is, never
// overwriting. Before anything is mounted, state units whose epoch is another
// than that of the deployment are kept, or put back. Only root may enter Sysroot
// from then on. Mount may be repeated.
//
// What must not keep a device from booting is given to Warn: declarations that
// are wrong, which then do not count, and a unit that could be neither kept nor
// put back. Nobody can reach the paths of such a unit in this boot.
func (s State) Mount() error {
	if err := s.keepOut(); err != nil {
		return err
	}
	deployment := filepath.Join(s.Sysroot, "deployments", strconv.Itoa(s.Deployment))
	own, err := releasePatterns(deployment)
	if err != nil {
		return err
	}
	declared, wrong := ReadDeclared(deployment)
	closed, troubles := s.Units().Settle(s.Deployment, declared)
	if wrong != nil {
		troubles = append(troubles, wrong)
	}
	for _, trouble := range troubles {
		s.warn(trouble)
	}
	dirs := slices.Clone(stateDirs)
	for _, p := range declared.Paths {
		dirs = append(dirs, stateDir{strings.TrimPrefix(p, "/"), placeName(p)})
	}
	if err := s.seed(deployment, dirs, declared, own, closed); err != nil {
		return err
	}
	if err := s.identify(deployment); err != nil {
		return err
	}
	for _, d := range dirs {
		target := filepath.Join(s.Root, d.path)
		source := filepath.Join(s.Sysroot, "state", d.name)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("cannot mount state: %w", err)
		}
		if err := bindOnce(source, target); err != nil {
			return err
		}
	}
	for _, name := range own {
		source := filepath.Join(deployment, "var/lib", name)
		if err := placeFor(source, filepath.Join(s.Sysroot, "state/var-lib", name)); err != nil {
			return fmt.Errorf("cannot mount state: %w", err)
		}
		if err := bindOnce(source, filepath.Join(s.Root, "var/lib", name)); err != nil {
			return err
		}
	}
	for _, path := range closed {
		if err := plainWay(s.Root, path); err != nil {
			s.warn(fmt.Errorf("cannot close %s off: %w", path, err))
		} else if err := s.closeOff(path); err != nil {
			return err
		}
	}
	return nil
}

// closeOff puts something empty, which nobody can write to, over a path of the
// running system, if there is such a path.
func (s State) closeOff(path string) error {
	target := filepath.Join(s.Root, path)
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot close %s off: %w", path, err)
	}
	empty := filepath.Join(s.Sysroot, "kept/closed")
	if !info.IsDir() {
		empty += ".file"
		err = os.WriteFile(empty, nil, 0)
	} else {
		err = os.MkdirAll(empty, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot close %s off: %w", path, err)
	}
	if err := bindOnce(empty, target); err != nil {
		return err
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("cannot close %s off: %w", path, err)
	}
	return nil
}

// keepOut lets nobody but root into the top level: old releases lie below it,
// with programs that their successors mended. Where that is so already it
// writes nothing: a full disk must not keep a device from booting.
func (s State) keepOut() error {
	info, err := os.Stat(s.Sysroot)
	if err == nil && info.Mode().Perm() != 0o700 {
		err = os.Chmod(s.Sysroot, 0o700)
	}
	if err != nil {
		return fmt.Errorf("cannot keep others out of %s: %w", s.Sysroot, err)
	}
	return nil
}

// machineIDPattern is what machine-id(5) says a valid file holds.
var machineIDPattern = regexp.MustCompile(`^[0-9a-f]{32}\n?$`)

// identify keeps the master copy of the machine's id when there is none yet.
func (s State) identify(deployment string) error {
	master := filepath.Join(s.Sysroot, "identity/machine-id")
	if _, err := os.Lstat(master); err == nil {
		return nil
	}
	id, err := os.ReadFile(filepath.Join(deployment, "etc/machine-id"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !machineIDPattern.Match(id) {
		return nil // this boot has none that lasts
	}
	if err != nil {
		return fmt.Errorf("cannot keep the machine's id: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(master), 0o755); err != nil {
		return fmt.Errorf("cannot keep the machine's id: %w", err)
	}
	if err := atomicfile.Write(master, id, 0o444); err != nil {
		return fmt.Errorf("cannot keep the machine's id: %w", err)
	}
	return nil
}

// CheckIdentity returns an error if the running system has another id than the
// master copy. Without a master copy there is nothing to compare.
func (s State) CheckIdentity() error {
	master, err := os.ReadFile(filepath.Join(s.Sysroot, "identity/machine-id"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot compare the machine's id: %w", err)
	}
	id, err := os.ReadFile(filepath.Join(s.Root, "etc/machine-id"))
	if err != nil {
		return fmt.Errorf("cannot compare the machine's id: %w", err)
	}
	if strings.TrimSpace(string(id)) != strings.TrimSpace(string(master)) {
		return fmt.Errorf("/etc/machine-id is %s and this machine is %s", strings.TrimSpace(string(id)), strings.TrimSpace(string(master)))
	}
	return nil
}

// releasePatterns returns the names within the deployment's /var/lib that
// belong to the release, sorted; none lies within another.
func releasePatterns(deployment string) ([]string, error) {
	patterns := slices.Clone(releaseDirs)
	files, err := filepath.Glob(filepath.Join(deployment, releaseConf))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		more, err := readPatterns(file)
		if err != nil {
			return nil, fmt.Errorf("cannot tell what belongs to the release: %w", err)
		}
		patterns = append(patterns, more...)
	}
	var own []string
	lib := filepath.Join(deployment, "var/lib")
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(lib, pattern))
		if err != nil {
			return nil, fmt.Errorf("cannot tell what belongs to the release: %q: %w", pattern, err)
		}
		for _, path := range found {
			own = append(own, strings.TrimPrefix(path, lib+"/"))
		}
	}
	slices.Sort(own)
	own = slices.Compact(own)
	return slices.DeleteFunc(own, func(name string) bool {
		return slices.ContainsFunc(own, func(other string) bool { return strings.HasPrefix(name, other+"/") })
	}), nil
}

func readPatterns(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var patterns []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, ok := strings.CutPrefix(line, "/var/lib/")
		if !ok || name == "" || slices.Contains(strings.Split(name, "/"), "..") {
			return nil, fmt.Errorf("%s: %q is not below /var/lib/", file, line)
		}
		patterns = append(patterns, name)
	}
	return patterns, lines.Err()
}

// placeFor makes a directory or empty file to bind source over.
func placeFor(source, place string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	have, err := os.Lstat(place)
	switch {
	case err == nil && have.IsDir() == info.IsDir() && have.Mode()&fs.ModeSymlink == 0:
		return nil
	case err == nil:
		if err := os.RemoveAll(place); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(place, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	return os.WriteFile(place, nil, 0o600)
}

// bindOnce binds source over target unless that is so already.
func bindOnce(source, target string) error {
	var a, b unix.Stat_t
	if err := unix.Stat(source, &a); err != nil {
		return fmt.Errorf("cannot mount %s: %w", source, err)
	}
	if err := unix.Stat(target, &b); err == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		mounted, err := isMountPoint(target)
		if err != nil || mounted {
			return err
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s on %s: %w", source, target, err)
	}
	return nil
}

// isMountPoint looks for path in the kernel's list of mounts.
func isMountPoint(path string) (bool, error) {
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("cannot read the list of mounts: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) >= 5 && fields[4] == path {
			return true, nil
		}
	}
	return false, nil
}
