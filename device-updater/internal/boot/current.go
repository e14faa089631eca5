package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Current returns the deployment that is mounted as the root, from the
// kernel's list of mounts (proc(5), /proc/self/mountinfo): the root of the
// mount on "/" is "/deployments/<n>". The command line is no witness: it says
// what somebody wanted.
func Current(mountinfo io.Reader) (int, error) {
	root, found := "", false
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		// id parent major:minor root mountpoint options …; a later mount on
		// the same point hides the earlier.
		fields := strings.Fields(lines.Text())
		if len(fields) >= 5 && fields[4] == "/" {
			root, found = fields[3], true
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("cannot read the list of mounts: %w", err)
	}
	if !found {
		return 0, errors.New("cannot tell the booted deployment: nothing is mounted on /")
	}
	name, ok := strings.CutPrefix(root, "/deployments/")
	if !ok {
		return 0, fmt.Errorf("cannot tell the booted deployment: the root is %s of its file system, not /deployments/<n>", root)
	}
	// One whose trial did not end was renamed while it ran, so that no loader
	// finds it.
	n, err := number(strings.TrimSuffix(name, ".work"))
	if err != nil {
		return 0, fmt.Errorf("cannot tell the booted deployment: %s %w", root, err)
	}
	return n, nil
}

// CurrentOfProcess is Current of the calling process.
func CurrentOfProcess() (int, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return 0, fmt.Errorf("cannot tell the booted deployment: %w", err)
	}
	defer f.Close()
	return Current(f)
}

// List returns the numbers of the deployments below sysroot that a loader
// could boot, ascending.
func List(sysroot string) ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(sysroot, "deployments"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list deployments: %w", err)
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= 0 && e.IsDir() {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}
