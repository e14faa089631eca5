// The program behind `make bench`: Aptfleet, aptly and reprepro do the same
// with the same packages, one after the other, in one run. docs/benchmarks.md
// says what is measured, how, and in whose favour it was decided where the
// tools differ.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/test/debian"
	"aptfleet/test/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := bench{out: os.Stdout}
	sizes := flag.String("size", "20000", "`number` of generated packages; 5000 are measured too if that is less. Or a list: numbers, and \"debian\" for the packages of trixie's main")
	compressed := flag.String("members", string(xzMembers), "how the packages are `compressed`: xz, as dpkg-deb does it, or gz")
	tools := flag.String("tools", "reprepro-gz,aptly,aptfleet", "`list` of what is measured")
	flag.StringVar(&b.work, "dir", "/var/tmp", "`directory` for everything that is made, on the disk that is to be measured")
	flag.StringVar(&b.cache, "cache", cacheDir(), "`directory` that keeps generated packages")
	flag.StringVar(&b.results, "results", filepath.Join("test", "bench"), "`directory` for result.json and aptfleet.json")
	flag.StringVar(&b.profile, "profile", "", "`directory` for a CPU profile of Aptfleet's import, which is measured with a server that can be profiled")
	flag.IntVar(&b.plan.runs, "runs", 20, "how often each operation runs")
	flag.IntVar(&b.snapshots, "snapshots", 100, "how many snapshots Aptfleet's server has when its memory is measured")
	fleet := fleetBench{out: os.Stdout}
	flag.IntVar(&fleet.devices, "fleet", 0, "measure check-ins of this `number` of devices, and nothing else")
	flag.IntVar(&fleet.connections, "connections", 64, "how many devices check in at once")
	updates := deviceBench{out: os.Stdout}
	flag.IntVar(&updates.updates, "device", 0, "measure how a device stages an update of this `number` of packages, and nothing else")
	flag.IntVar(&updates.runs, "device-runs", 3, "how often each tool does that")
	flag.Parse()
	b.least, b.budget, b.patience = 3, 30*time.Second, 10*time.Second
	b.tools = strings.Split(*tools, ",")
	err := b.choose(*sizes, *compressed)
	switch {
	case err != nil:
	case fleet.devices > 0:
		fleet.work, fleet.results, fleet.profile = b.work, b.results, b.profile
		err = fleet.run(ctx)
	case updates.updates > 0:
		updates.work, updates.cache, updates.results = b.work, b.cache, b.results
		err = updates.run(ctx)
	default:
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "make bench: %v\n", err)
		os.Exit(1)
	}
}

// cacheDir is that of all tests, for those who may write there.
func cacheDir() string {
	if own, err := os.UserCacheDir(); err == nil && os.Geteuid() != 0 && os.Getenv("APTFLEET_CACHE") == "" {
		return filepath.Join(own, "aptfleet", "bench")
	}
	return filepath.Join(debian.CacheDir(), "bench")
}

// bench is one run.
type bench struct {
	plan
	inputs    []string // sizes as numbers, or "debian"
	tools     []string
	members   members // of the packages
	snapshots int
	work      string // directory for everything that is made
	cache     string // directory of generated packages
	results   string // directory for the results
	profile   string // directory for profiles, or ""
	out       io.Writer

	key     signingKey
	rows    []row
	details []detail
}

// small is the size that every run has, so that growth is seen.
const small = 5000

// choose reads what is to be measured.
func (b *bench) choose(sizes, compressed string) error {
	b.members = members(compressed)
	if b.members != xzMembers && b.members != gzMembers {
		return fmt.Errorf("cannot use members %q: want xz or gz", compressed)
	}
	b.inputs = strings.FieldsFunc(sizes, func(c rune) bool { return c == ',' || c == ' ' })
	for _, size := range b.inputs {
		if n, err := strconv.Atoi(size); size != "debian" && (err != nil || n < 10) {
			return fmt.Errorf("cannot use size %q: want a number of packages from 10, or debian", size)
		}
	}
	if len(b.inputs) == 0 {
		return errors.New("cannot use no size")
	}
	if n, err := strconv.Atoi(sizes); err == nil && n > small {
		b.inputs = []string{strconv.Itoa(small), sizes}
	}
	return nil
}

// needed are the programs that are run, and the Debian packages they are in.
var needed = map[string]string{"aptly": "aptly", "reprepro": "reprepro", "gpg": "gpg", "gpgconf": "gpgconf", "gpg-agent": "gpg-agent", "gpgv": "gpgv", "xz": "xz-utils"}

func (b *bench) run(ctx context.Context) (err error) {
	for program, in := range needed {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("cannot find %s: apt-get install %s", program, in)
		}
	}
	// The largest imports have command lines of several megabytes, of which
	// the kernel allows a quarter of the stack's limit.
	if err := raiseStack(64 << 20); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(b.work, "af-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := apart(dir); err != nil {
		return err
	}
	if b.key, err = newSigningKey(ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.key.forget()) }()
	if err := b.build(ctx, dir); err != nil {
		return err
	}
	if err := b.introduce(ctx, dir); err != nil {
		return err
	}
	for i, input := range b.inputs {
		if err := b.measureAll(ctx, filepath.Join(dir, fmt.Sprintf("%d-%s", i, input)), dir, i); err != nil {
			return err
		}
	}
	writeGrowth(b.out, b.rows)
	return b.save()
}

// raiseStack raises the limit of the stack of processes started from here to
// so many bytes, as far as that is allowed.
func raiseStack(bytes uint64) error {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_STACK, &limit)
	if err == nil && limit.Cur < bytes {
		limit.Cur = min(bytes, limit.Max)
		err = unix.Setrlimit(unix.RLIMIT_STACK, &limit)
	}
	if err != nil {
		return fmt.Errorf("cannot raise the limit of the stack: %w", err)
	}
	return nil
}

// build makes repo-manager twice: as it is shipped, and as one that tells what
// it is doing.
func (b *bench) build(ctx context.Context, dir string) error {
	profiled := filepath.Join(dir, "profiled")
	if err := os.MkdirAll(profiled, 0o755); err != nil {
		return err
	}
	return errors.Join(rig.Build(ctx, dir, "", "repo-manager"), rig.Build(ctx, profiled, "pprof", "repo-manager"))
}

func (b *bench) save() error {
	return errors.Join(
		writeJSON(filepath.Join(b.results, "result.json"), b.rows),
		writeJSON(filepath.Join(b.results, "aptfleet.json"), b.details),
	)
}

// make returns a tool that works below dir.
func (b *bench) make(name, programs, dir string, say func(string)) (tool, error) {
	switch name {
	case "aptfleet":
		return newAptfleet(programs, filepath.Join(dir, "data"), say), nil
	case "aptly":
		return newAptly(dir, b.key, say), nil
	case "reprepro-gz":
		return newReprepro(dir, b.key, say), nil
	}
	return nil, fmt.Errorf("cannot measure %q: want aptfleet, aptly or reprepro-gz", name)
}

// introduce says what is measured and under which conditions.
func (b *bench) introduce(ctx context.Context, dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "%d CPUs, files on %s\n", runtime.NumCPU(), fileSystem(fs.Type))
	for _, name := range b.tools {
		t, err := b.make(name, dir, dir, nil)
		if err != nil {
			return err
		}
		version, err := t.version(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.out, "%s: %s\n", name, version)
	}
	fmt.Fprint(b.out, `all sign InRelease and Release.gpg; Aptfleet writes Packages.gz and .zst, the others Packages.gz
Aptfleet's times end when everything is durable; aptly and reprepro sync their databases and nothing that they publish
Aptfleet's CPU time is that of server and command; that of gpg-agent, which signs for reprepro, is not counted
`)
	return nil
}

// fileSystem names the usual types of statfs(2).
func fileSystem(kind int64) string {
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.XFS_SUPER_MAGIC: "xfs",
		unix.TMPFS_MAGIC: "tmpfs (nothing there is durable: choose another directory)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if name, ok := names[kind]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", kind)
}

// measureAll measures every tool with one set of packages, every second time
// in the reverse order: whoever comes first meets another disk.
func (b *bench) measureAll(ctx context.Context, dir, programs string, turn int) (err error) {
	begin := time.Now()
	c, err := b.corpus(ctx, b.inputs[turn])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	fmt.Fprintf(b.out, "\n== %d packages, %s (made or found in %.1f s)\n", c.count, c.label, time.Since(begin).Seconds())
	tools := slices.Clone(b.tools)
	if turn%2 == 1 {
		slices.Reverse(tools)
	}
	measured := make(map[string][]row)
	for _, name := range tools {
		if measured[name], err = b.measureOne(ctx, dir, programs, name, c, turn == len(b.inputs)-1); err != nil {
			return err
		}
	}
	var rows []row
	for _, name := range b.tools {
		rows = append(rows, measured[name]...)
	}
	b.rows = append(b.rows, rows...)
	fmt.Fprintln(b.out)
	if err := errors.Join(writeTable(b.out, rows), b.save()); err != nil {
		return err
	}
	fmt.Fprintln(b.out)
	return writeRatios(b.out, rows)
}

func (b *bench) corpus(ctx context.Context, input string) (*corpus, error) {
	n, err := strconv.Atoi(input)
	if err != nil {
		return fromDebian(ctx, b.members, b.cache, runtime.NumCPU())
	}
	return generated(ctx, n, b.members, b.cache, runtime.NumCPU())
}

// measureOne measures one tool below a directory of its own. That stays until
// the end of the run: ext4 without a journal looks at each inode that was freed
// in the last minutes before it makes a new one, and whoever comes after a large
// removal would pay ten times as much for a file.
func (b *bench) measureOne(ctx context.Context, dir, programs, name string, c *corpus, last bool) (_ []row, err error) {
	fmt.Fprintf(b.out, "\n%s\n", name)
	own := filepath.Join(dir, name)
	scratch := filepath.Join(own, "scratch")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := apart(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return nil, err
	}
	t, err := b.make(name, programs, own, func(line string) {
		fmt.Fprintf(b.out, "  $ %s\n", strings.NewReplacer(own, "DIR", c.dir, "PACKAGES", programs, "WORK").Replace(line))
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.stop()) }()
	a, ours := t.(*aptfleet)
	if ours {
		a.profile = b.profile != ""
	}
	if err := t.start(ctx); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	profiled := make(chan error, 1)
	if ours && a.profile {
		const seconds = 30 // enough of a large import, and more than a small one takes
		go func() {
			file := filepath.Join(b.profile, fmt.Sprintf("import-%d.pprof", c.count))
			profiled <- newProfiler(a.profiles()).save(ctx, seconds, file)
		}()
	} else {
		profiled <- nil
	}
	contest := newContest(b.plan, t, c, scratch)
	if err := contest.run(ctx); err != nil {
		return nil, err
	}
	if err := <-profiled; err != nil {
		return nil, err
	}
	if ours {
		if err := b.examine(ctx, a, contest, last); err != nil {
			return nil, err
		}
	}
	return contest.rows, nil
}
