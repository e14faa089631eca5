package apt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/test/debian"
	"aptfleet/test/rig"
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
	os.Exit(rig.Main("aptfleet-apt-", "", []string{"repo-manager"}, func(dir string) (int, error) {
		var err error
		if shared, err = prepare(context.Background(), dir); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}))
}

func prepare(ctx context.Context, dir string) (fixture, error) {
	f := fixture{program: filepath.Join(dir, "repo-manager"), roots: map[string]string{}}
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
