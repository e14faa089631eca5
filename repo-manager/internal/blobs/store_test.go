package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"aptfleet/snapshots"
	"aptfleet/snapshots/chunkstest"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, text string) snapshots.ID {
	t.Helper()
	id, err := s.Put(context.Background(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStoreIsAChunks(t *testing.T) {
	chunkstest.Run(t, func(t *testing.T) snapshots.Chunks { return open(t, filepath.Join(t.TempDir(), "blobs")) })
}

func TestBlobsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	id := put(t, open(t, dir), "text")
	if err := open(t, dir).Sync(); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, dir).Get(t.Context(), id); err != nil || string(got) != "text" {
		t.Fatalf("%q, %v", got, err)
	}
	if want := filepath.Join(dir, id.String()[:2], id.String()); open(t, dir).Path(id) != want {
		t.Errorf("path is %s", open(t, dir).Path(id))
	}
}

// What a power failure may leave of a file that was never synced is not
// believed by the next process that puts the same text.
func TestATornBlobIsPutAgain(t *testing.T) {
	for name, torn := range map[string][]byte{"empty": {}, "short": []byte("te"), "zeros": make([]byte, 4)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			id := put(t, s, "text")
			frame, err := s.Frame(t.Context(), id, Gzip)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{s.Path(id), s.FramePath(id, Gzip)} {
				if err := os.Chmod(path, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, torn, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			s = open(t, dir)
			put(t, s, "text")
			if got, err := s.Get(t.Context(), id); err != nil || string(got) != "text" {
				t.Errorf("text is %q, %v", got, err)
			}
			if got, err := s.Frame(t.Context(), id, Gzip); err != nil || !bytes.Equal(got, frame) {
				t.Errorf("frame is %q, %v", got, err)
			}
		})
	}
}

func TestOpenRemovesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, ".tmp", "half"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	left, err := os.ReadDir(filepath.Join(dir, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Fatalf("left: %v, %v", left, err)
	}
}

// A disk that is really full: the error says so, nothing half-written stays,
// and what was there is readable.
func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("cannot mount a small file system (`make test` runs as root): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	small := put(t, s, "small")
	large := make([]byte, 1<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), large)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "cannot store blob") {
		t.Fatalf("error is %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if got, err := s.Get(t.Context(), small); err != nil || string(got) != "small" {
		t.Errorf("%q, %v", got, err)
	}
	put(t, s, "there is room for this")
}

func TestFrames(t *testing.T) {
	judges := map[Encoding][]string{Gzip: {"gzip", "-dc"}, Zstd: {"zstd", "-dc"}}
	s := open(t, t.TempDir())
	ids := []snapshots.ID{put(t, s, strings.Repeat("Package: one\n\n", 1000)), put(t, s, "Package: two\n\n")}
	for as, judge := range judges {
		t.Run(string(as), func(t *testing.T) {
			var whole []byte
			var want string
			for _, id := range ids {
				frame, err := s.Frame(t.Context(), id, as)
				if err != nil {
					t.Fatal(err)
				}
				again, err := s.Frame(t.Context(), id, as)
				if err != nil || !bytes.Equal(again, frame) {
					t.Fatalf("the second time the frame has other bytes: %v", err)
				}
				text, err := s.Get(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := Decode(frame, as, int64(len(text))); err != nil || !bytes.Equal(got, text) {
					t.Fatalf("Decode: %v", err)
				}
				whole, want = append(whole, frame...), want+string(text)
			}
			empty, err := s.Empty(as)
			if err != nil {
				t.Fatal(err)
			}
			for name, row := range map[string]struct {
				data []byte
				want string
			}{"concatenated": {whole, want}, "empty": {empty, ""}} {
				command := exec.Command(judge[0], judge[1:]...)
				command.Stdin = bytes.NewReader(row.data)
				got, err := command.Output()
				if err != nil || string(got) != row.want {
					t.Errorf("%s, %s reads %d bytes, want %d: %v", name, judge[0], len(got), len(row.want), err)
				}
			}
		})
	}
}

func TestAFrameIsOfWhatItsIDNames(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, "text")
	if err := os.Remove(s.Path(id)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(id), []byte("evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	if frame, err := s.Frame(t.Context(), id, Zstd); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("frame %q, error %v", frame, err)
	}
	if _, err := s.Frame(t.Context(), snapshots.ID{1}, Gzip); err == nil {
		t.Fatal("a chunk that does not exist has a frame")
	}
}

// Many publications may want the same frame.
func TestFramesAreMadeByManyAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, strings.Repeat("text", 10000))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			frame, err := s.Frame(context.Background(), id, Zstd)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := Decode(frame, Zstd, 40000); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// Frames are foreign bytes once a disk has had them: whatever they hold, Decode
// stays within its limit.
func FuzzDecode(f *testing.F) {
	s := open(f, f.TempDir())
	id := put(f, s, strings.Repeat("Package: one\n\n", 100))
	for _, as := range Encodings {
		frame, err := s.Frame(f.Context(), id, as)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(frame[:len(frame)/2])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, as := range Encodings {
			if text, err := Decode(frame, as, 1000); err == nil && len(text) > 1000 {
				t.Fatalf("%d bytes", len(text))
			}
		}
	})
}
