package debian

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The root that the tests of apt use anyway, so that this one costs nothing.
var smallRoot = Spec{Suite: "trixie"}

func TestRootIsARootOfItsRelease(t *testing.T) {
	ctx := t.Context()
	tar, err := Root(ctx, smallRoot)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Root(ctx, smallRoot)
	if err != nil || again != tar {
		t.Fatalf("asked again: %s, %v; want %s from the cache", again, err, tar)
	}
	dir := t.TempDir()
	if err := Unpack(ctx, tar, dir); err != nil {
		t.Fatal(err)
	}
	release, err := os.ReadFile(filepath.Join(dir, "etc/os-release"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(release), "VERSION_CODENAME=trixie") {
		t.Errorf("os-release is\n%s", release)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/apt-get")); err != nil {
		t.Errorf("the root has no apt: %v", err)
	}
}

func TestAnInterruptedRootLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("APTFLEET_CACHE", cache)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := Root(ctx, Spec{Suite: "trixie"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the deadline's", err)
	}
	entries, err := os.ReadDir(filepath.Join(cache, "roots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			t.Errorf("%s is left behind", e.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), cache) {
		t.Errorf("something below %s is still mounted:\n%s", cache, mounts)
	}
}

// Two locks on open files exclude each other also within one process.
func TestOneBuilderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second lock: error %v, want the deadline's", err)
	}
	got := make(chan error)
	go func() {
		again, err := lock(t.Context(), path)
		if err == nil {
			again()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Fatalf("the lock was given back, but: %v", err)
	}
}

func TestKeyChangesWithEveryInput(t *testing.T) {
	base := Spec{Suite: "trixie", Variant: "apt", Packages: []string{"b", "a"}}
	same := Spec{Suite: "trixie", Variant: "apt", Packages: []string{"a", "b"}}
	if base.key("m", "amd64") != same.key("m", "amd64") {
		t.Error("the order of packages changes the key")
	}
	keys := map[string]bool{}
	for _, s := range []Spec{base, {Suite: "bookworm", Variant: "apt", Packages: base.Packages},
		{Suite: "trixie", Variant: "minbase", Packages: base.Packages}, {Suite: "trixie", Variant: "apt"}} {
		keys[s.key("m", "amd64")] = true
	}
	keys[base.key("n", "amd64")], keys[base.key("m", "arm64")] = true, true
	if len(keys) != 6 {
		t.Errorf("six different roots have %d keys", len(keys))
	}
}
