package apt

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"aptfleet/test/debian"
)

// suites are the releases whose apt is asked.
var suites = []string{"bookworm", "trixie"}

// fixture is what all tests share: made once, only read afterwards.
type fixture struct {
	program      string            // repo-manager
	architecture string            // of this machine, and so of the roots
	roots        map[string]string // directory of an unpacked root, by suite
}

var shared fixture

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "aptfleet-apt-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if shared, err = prepare(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func prepare(ctx context.Context, dir string) (fixture, error) {
	f := fixture{program: filepath.Join(dir, "repo-manager"), roots: map[string]string{}}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "nomsgpack", "-o", f.program, "aptfleet/repo-manager")
	if out, err := build.CombinedOutput(); err != nil {
		return f, fmt.Errorf("cannot build repo-manager: %w\n%s", err, out)
	}
	var err error
	if f.architecture, err = debian.Architecture(ctx); err != nil {
		return f, err
	}
	for _, suite := range suites {
		tar, err := debian.Root(ctx, debian.Spec{Suite: suite})
		if err != nil {
			return f, err
		}
		root := filepath.Join(dir, suite)
		if err := os.Mkdir(root, 0o755); err != nil {
			return f, err
		}
		if err := debian.Unpack(ctx, tar, root); err != nil {
			return f, err
		}
		if err := isolate(root); err != nil {
			return f, fmt.Errorf("cannot prepare the %s root: %w", suite, err)
		}
		f.roots[suite] = root
	}
	return f, nil
}

// isolate takes every source from a root and makes dpkg fast: what it writes
// is thrown away.
func isolate(root string) error {
	lists, err := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d/*"))
	if err != nil {
		return err
	}
	for _, path := range append(lists, filepath.Join(root, "etc/apt/sources.list")) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/dpkg/dpkg.cfg.d/unsafe-io"), []byte("force-unsafe-io\n"), 0o644); err != nil {
		return err
	}
	// APT::Update::Error-Mode makes every failed fetch an error; by default
	// apt-get update warns and keeps its old lists.
	conf := "Acquire::Languages \"none\";\nAcquire::Retries \"0\";\nAPT::Update::Error-Mode \"any\";\n"
	return os.WriteFile(filepath.Join(root, "etc/apt/apt.conf.d/90test"), []byte(conf), 0o644)
}

// onEach runs a test for the apt of every release, side by side.
func onEach(t *testing.T, test func(t *testing.T, suite string)) {
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			test(t, suite)
		})
	}
}
