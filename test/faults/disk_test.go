package faults

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// incoming lists the uploads under way.
func (s *server) incoming() []os.DirEntry {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Data, "incoming"))
	if err != nil {
		s.t.Fatal(err)
	}
	return entries
}

// smallDisk is a data directory on a file system of its own.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a small disk needs root to be mounted; make test runs as root")
	}
	dir := filepath.Dir(newData(t))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// endless is a package whose data never ends before size.
func endless(t *testing.T, size int64) io.Reader {
	t.Helper()
	head := debOf(arMember("control.tar.gz", "", tarGz(t, "./control", control("Package: large\nVersion: 1\nArchitecture: amd64\n"))))
	head = append(head, arMember("data.tar", fmt.Sprint(size), nil)...)
	return io.MultiReader(strings.NewReader(string(head)), io.LimitReader(zeros{}, size))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := start(t, smallDisk(t, 96), "")
	s.pipeline("demo")
	small := func(version string) answer {
		t.Helper()
		got, err := s.upload("demo", "small.deb", makeDeb(t, "small", version, "amd64", 1000))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	refused := func(what, file string, got answer, head string) {
		t.Helper()
		if got.status != http.StatusInsufficientStorage || !strings.Contains(got.body, file) || !strings.Contains(got.body, "no space left") {
			t.Errorf("%s: answer %d %q; want 507, the file and the reason", what, got.status, got.body)
		}
		if now := s.head("demo"); now != head {
			t.Errorf("%s: the repository moved to %s", what, now)
		}
		s.noLeftovers()
	}
	if got := small("1.0"); got.status != http.StatusCreated {
		t.Fatalf("a small package on a disk with room: %v", got)
	}
	head := s.head("demo")

	got, err := s.post(s.socket, "http://socket", "demo", "large.deb", endless(t, 200<<20), nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("a package larger than the disk", "large.deb", got, head)

	release := fillBut(t, filepath.Dir(s.Data), 0)
	refused("a small package on a full disk", "small.deb", small("2.0"), head)
	s.mustBeClean()
	release()
	if got := small("2.0"); got.status != http.StatusCreated {
		t.Errorf("a small package after there was room again: %v", got)
	}
	s.mustBeClean()
	s.stop()
}

// With nothing held in reserve the disk may fill up anywhere between the
// first byte and the last rename. Nobody is told 201 then, and once there is
// room the server is what its database says.
func TestFullDiskWithoutReserve(t *testing.T) {
	t.Parallel()
	s := start(t, smallDisk(t, 48), "", "reserve: 1")
	s.pipeline("demo")
	accepted := make(map[string]string)
	refusals := 0
	for n := range 60 {
		name := fmt.Sprintf("pkg%02d", n)
		body := makeDeb(t, name, "1.0", "amd64", 4<<20)
		got, err := s.upload("demo", name+".deb", body)
		if err != nil {
			t.Fatal(err)
		}
		if got.status == http.StatusCreated {
			accepted[name+" 1.0"] = hexSum(body)
			continue
		}
		refusals++
		if !strings.Contains(got.body, "no space left") {
			t.Errorf("answer %d %q; want one that says why", got.status, got.body)
		}
		if refusals == 3 {
			break
		}
	}
	if refusals == 0 || len(accepted) == 0 {
		t.Fatalf("%d packages were accepted and %d refused; the test needs both", len(accepted), refusals)
	}
	if err := syscall.Mount("", filepath.Dir(s.Data), "", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.upload("demo", "last.deb", makeDeb(t, "last", "1.0", "amd64", 100)); err != nil || got.status != http.StatusCreated {
		t.Errorf("with room again: %v %v", got, err)
	}
	there := s.offered("demo", "dev")
	for name, sum := range accepted {
		if there[name] != sum {
			t.Errorf("%s was answered with 201 and is not published", name)
		}
	}
	s.mustBeClean()
	s.stop()
}
