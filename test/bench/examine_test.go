package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestSamplesOfGoroutines(t *testing.T) {
	const writer = "goroutine 20 [runnable]:\n" +
		"crypto/internal/fips140/sha256.blockSHANI(0x1)\n\t/go/sha256.go:1\n" +
		"aptfleet/repo-manager/internal/publish.(*Publisher).build.func1()\n\t/src/index.go:1\n"
	for name, test := range map[string]struct {
		dump string
		want map[string]float64
	}{
		"nobody works": {"goroutine 1 [select, 2 minutes]:\naptfleet/repo-manager/internal/release.(*Engine).write()\n", map[string]float64{partOutside: 1}},
		"somebody else works": {"goroutine 1 [running]:\nnet/http/pprof.Index()\n\ngoroutine 2 [syscall, 2 minutes]:\nos/signal.signal_recv()\n",
			map[string]float64{partOutside: 1}},
		"one hashes": {writer, map[string]float64{partHash: 1}},
		"two share": {writer + "\ngoroutine 21 [syscall]:\nsyscall.write(0x1)\nos.(*File).Write(0x1)\naptfleet/repo-manager/internal/publish.tree.create()\n",
			map[string]float64{partHash: 0.5, partWrite: 0.5}},
		"a signature hashes": {"goroutine 3 [running]:\ncrypto/sha512.Sum512()\ngithub.com/ProtonMail/go-crypto/openpgp.DetachSign()\naptfleet/internal/sign.(*Key).Detach()\naptfleet/repo-manager/internal/publish.(*Publisher).Sign()\n",
			map[string]float64{partSign: 1}},
		"a disk is waited for": {"goroutine 3 [syscall]:\ngolang.org/x/sys/unix.Syncfs(0x9)\naptfleet/internal/atomicfile.onDirectory()\naptfleet/repo-manager/internal/publish.tree.sync()\n",
			map[string]float64{partSync: 1}},
		"a database syncs": {"goroutine 3 [syscall]:\ngithub.com/mattn/go-sqlite3._Cfunc_step(0x9)\naptfleet/repo-manager/internal/sqlite.(*DB).Commit()\n",
			map[string]float64{partDatabase: 1}},
		"a name is moved": {"goroutine 3 [syscall]:\nos.Rename(0x9)\naptfleet/repo-manager/internal/publish.tree.prepare.func1()\n", map[string]float64{partWrite: 1}},
		"a chunk is parsed": {"goroutine 3 [running]:\naptfleet/internal/deb.(*StanzaReader).next()\naptfleet/snapshots.OpenChunk()\naptfleet/repo-manager/internal/release.(*Engine).find()\n",
			map[string]float64{partChunks: 1}},
		"a file is read": {"goroutine 3 [syscall]:\nos.ReadFile(0x9)\naptfleet/repo-manager/internal/blobs.(*Store).Get()\n", map[string]float64{partRead: 1}},
	} {
		var s samples
		s.add(test.dump)
		if s.total != 1 || len(s.parts) != len(test.want) {
			t.Errorf("%s: %v of %v, want %v", name, s.parts, s.total, test.want)
		}
		for part, want := range test.want {
			if s.parts[part] != want {
				t.Errorf("%s: %v, want %v", name, s.parts, test.want)
			}
		}
	}
}

func TestDiskSpaceByPart(t *testing.T) {
	data := t.TempDir()
	for _, name := range []string{"repo-manager.db", "blobs/aa/x", "public/.indices/aa/k/Packages.gz", "public/pool/aa/s/p.deb", "public/bench/dev/InRelease"} {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := usedBelow(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{diskRest, diskBlobs, diskIndices, diskPool, diskBases} {
		if before[part] < 1<<20 || before[part] > 2<<20 {
			t.Errorf("%s uses %d bytes, want one megabyte and some directories", part, before[part])
		}
	}
	// One more name of an index file costs nothing.
	if err := os.Link(filepath.Join(data, "public/.indices/aa/k/Packages.gz"), filepath.Join(data, "public/bench/dev/Packages.gz")); err != nil {
		t.Fatal(err)
	}
	after, err := usedBelow(data)
	if err != nil {
		t.Fatal(err)
	}
	for part, bytes := range difference(after, before) {
		if bytes > 8192 {
			t.Errorf("a link cost %d bytes of %s", bytes, part)
		}
	}
}

func TestFloor(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("Package: x\n", 200000)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".gz", ".zst"} { // what is in the second does not matter
		if err := os.WriteFile(filepath.Join(dir, "Packages"+suffix), packed.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scratch := t.TempDir()
	f, err := measureFloor(dir, scratch, 3)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(2 * packed.Len()); f.Written != want || f.Bytes != want+int64(len(text)) || f.Hash <= 0 || f.Write <= 0 {
		t.Errorf("the floor is %+v, of %d bytes twice and %d", f, packed.Len(), len(text))
	}
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
}
