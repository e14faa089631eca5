package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"aptfleet/test/device"
)

// stager is one way to bring an update to a machine.
type stager struct {
	tool    string
	command []string
	// root is where the new system is afterwards, below the top level.
	root string
}

var (
	stageByApt      = stager{"apt", []string{"apt-get", "-q", "dist-upgrade"}, "deployments/1"}
	stageByAptfleet = stager{"aptfleet", []string{"device-updater", "update"}, "pristine/2"}
)

// cageEnv is the environment of commands in a cage. The updater keeps apt from
// changing the running root unless it is told not to.
var cageEnv = []string{"APTFLEET_ANYWAY=1", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

// cage runs a command in the first deployment of a machine that is off, as its
// root, with its disk and its boot control where it finds them when it runs.
// No service manager runs there, so that packages start nothing; nobody waits
// for one.
func cage(ctx context.Context, r *runner, m *device.Machine, command ...string) (string, error) {
	root := filepath.Join(m.Top(), "..", "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	const script = `set -e
mount --make-rprivate /
mount --bind "$1/deployments/1" "$3"
mount --bind "$1" "$3/sysroot"
mount --bind "$2" "$3/boot-control"
mount -t proc proc "$3/proc"
mount -t sysfs -o ro sysfs "$3/sys"
mount --rbind /dev "$3/dev"
mount -t tmpfs tmpfs "$3/run"
mount --bind /bin/true "$3/usr/bin/systemctl"
root=$3
shift 3
exec chroot "$root" "$@"`
	args := append([]string{"--mount", "--pid", "--fork", "sh", "-c", script, "cage", m.Top(), m.BootControl(), root}, command...)
	return r.run(ctx, "/", "unshare", args...)
}

// measure lets one tool bring the update to a fresh copy of the machine, with a
// sync of the file system at the end.
func (b *deviceBench) measure(ctx context.Context, dir string, installed *device.Machine, s stager, run int) (err error) {
	name := fmt.Sprintf("%s-%d", s.tool, run)
	machine, err := installed.Clone(ctx, device.Config{Dir: filepath.Join(dir, "machines", name), Name: name, Loader: filepath.Join(dir, "bin", "loader")})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, machine.Close(), os.RemoveAll(filepath.Join(dir, "machines", name)))
	}()
	before, err := installedPackages(machine, "deployments/1")
	if err != nil {
		return err
	}
	// A device that runs has read its system once.
	if _, err := new(runner).run(ctx, "/", "tar", "--create", "--one-file-system", "--file=/dev/null", "--directory="+machine.Top(), "deployments/1"); err != nil {
		return err
	}
	r := &runner{env: cageEnv}
	begin := time.Now()
	if _, err := cage(ctx, r, machine, s.command...); err != nil {
		return err
	}
	if _, err := r.run(ctx, "/", "btrfs", "filesystem", "sync", machine.Top()); err != nil {
		return err
	}
	wall := time.Since(begin)
	after, err := installedPackages(machine, s.root)
	if err != nil {
		return fmt.Errorf("cannot see what %s installed: %w", s.tool, err)
	}
	changed := 0
	for name, version := range after {
		if before[name] != version {
			changed++
		}
	}
	// apt leaves what nobody needs any more; a release does not have it.
	if s.tool == stageByAptfleet.tool {
		b.release = after
	} else {
		b.upgraded = after
	}
	for name, version := range b.release {
		if b.upgraded != nil && b.upgraded[name] != version {
			return fmt.Errorf("cannot compare: Aptfleet installed %s %s, and apt %q", name, version, b.upgraded[name])
		}
	}
	row := deviceRow{Op: "stage", Tool: s.tool, Run: run, Packages: changed, Wall: wall.Seconds(), CPU: r.total.cpu.Seconds(), Written: r.total.written}
	b.rows = append(b.rows, row)
	fmt.Fprintf(b.out, "%s, run %d: %d packages, %.2f s, %.2f s of CPU, %d MB written\n", s.tool, run, changed, row.Wall, row.CPU, row.Written/1e6)
	return nil
}

// installedPackages maps each package of a root to its version.
func installedPackages(m *device.Machine, root string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(m.Top(), root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		var name, version string
		for line := range strings.Lines(paragraph) {
			if value, ok := strings.CutPrefix(line, "Package: "); ok {
				name = strings.TrimSpace(value)
			}
			if value, ok := strings.CutPrefix(line, "Version: "); ok {
				version = strings.TrimSpace(value)
			}
		}
		if name != "" {
			all[name] = version
		}
	}
	return all, nil
}

// compare shows the medians.
func (b *deviceBench) compare() error {
	median := func(tool string, value func(deviceRow) float64) float64 {
		var all []float64
		for _, r := range b.rows {
			if r.Tool == tool {
				all = append(all, value(r))
			}
		}
		slices.Sort(all)
		return quantile(all, 0.5)
	}
	wall, cpu := func(r deviceRow) float64 { return r.Wall }, func(r deviceRow) float64 { return r.CPU }
	t := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "stage\tmedian\tCPU\t")
	for _, s := range []stager{stageByApt, stageByAptfleet} {
		fmt.Fprintf(t, "%s\t%s\t%s\t\n", s.tool, seconds(median(s.tool, wall)), seconds(median(s.tool, cpu)))
	}
	fmt.Fprintf(t, "apt takes\t%s\t%s\t\n", times(median("apt", wall), median("aptfleet", wall)), times(median("apt", cpu), median("aptfleet", cpu)))
	return t.Flush()
}
