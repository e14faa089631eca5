package mirror

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
	"aptfleet/test/debian"
)

// settled is an engine and a pool that keep nothing in memory: what an update
// itself takes is to be measured.
type settled struct {
	Engine
	head snapshots.State
}

func (settled) Has([32]byte, string) bool { return true }

func (s settled) Head(context.Context, string) (snapshots.State, error) { return s.head, nil }

func (settled) ReplaceMirror(context.Context, release.Actor, string, string, []snapshots.Package, []release.File) (snapshots.ID, error) {
	return snapshots.ID{}, nil
}

// An update that selects from all of Debian's release, about 70,000 packages
// with 57 MB of stanzas, takes moderate memory: it is a guest in the server's
// process. The update runs in a process of its own, whose peak is read.
func TestMemoryOfAnUpdate(t *testing.T) {
	const child = "APTFLEET_MEASURE_UPDATE"
	wishes := map[string]struct {
		set   func(*release.MirrorConfig)
		limit int // MB
	}{
		"names":      {func(c *release.MirrorConfig) { c.Packages = []string{"systemd-sysv", "openssh-server", "nginx"} }, 150},
		"everything": {func(c *release.MirrorConfig) { c.All = true }, 500},
	}
	if name := os.Getenv(child); name != "" {
		config := realConfig(t, "trixie")
		wishes[name].set(&config)
		architecture, err := debian.Architecture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var chunks snapshots.Memory
		head, err := snapshots.New(t.Context(), &chunks, []snapshots.Key{{Component: "debian", Architecture: architecture}})
		if err != nil {
			t.Fatal(err)
		}
		engine := settled{head: head}
		updater := New(Config{Engine: engine, Chunks: &chunks, Pool: engine, Dir: os.Getenv("APTFLEET_MEASURE_DIR")})
		p := release.Pipeline{Name: "demo", Architectures: []string{architecture}}
		if err := updater.run(t.Context(), release.Actor{}, p, "debian", config, Options{}, &fakeProgress{}); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("peak %d MB\n", peak(t))
		return
	}
	dir := t.TempDir() // the index is downloaded once
	for name, c := range wishes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemoryOfAnUpdate$", "-test.v")
		cmd.Env = append(os.Environ(), child+"="+name, "APTFLEET_MEASURE_DIR="+dir)
		out, err := cmd.CombinedOutput()
		_, after, found := bytes.Cut(out, []byte("peak "))
		number, _, _ := bytes.Cut(after, []byte(" MB"))
		mb, bad := strconv.Atoi(string(number))
		if err != nil || !found || bad != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		t.Logf("%s: at most %d MB", name, mb)
		if mb > c.limit {
			t.Errorf("%s took %d MB, more than %d", name, mb, c.limit)
		}
	}
}

// peak is the largest resident size of this process so far, in MB.
func peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc/self/status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1024
		}
	}
	t.Fatal("the kernel does not say VmHWM")
	return 0
}
