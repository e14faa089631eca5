package blobs

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"aptfleet/snapshots"

	"pgregory.net/rapid"
)

// Whatever texts a file is made of, it is cut where their frames end.
func TestSplitFindsTheFrames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, as := range Encodings {
		rapid.Check(t, func(rt *rapid.T) {
			var whole []byte
			var want [][]byte
			for _, text := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 5000), 1, 5).Draw(rt, "texts") {
				if rapid.Bool().Draw(rt, "large") {
					text = bytes.Repeat(text, 400000/len(text)) // several blocks of a frame
				}
				frame, err := s.Encode(text, as)
				if err != nil {
					rt.Fatal(err)
				}
				want = append(want, frame)
				whole = append(whole, frame...)
			}
			empty, err := s.Empty(as)
			if err != nil {
				rt.Fatal(err)
			}
			want, whole = append(want, empty), append(whole, empty...)
			got, err := Split(whole, as, 1<<20)
			if err != nil || len(got) != len(want) {
				rt.Fatalf("%s: %d frames, want %d: %v", as, len(got), len(want), err)
			}
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					rt.Errorf("%s: frame %d has %d bytes, want %d", as, i, len(got[i]), len(want[i]))
				}
			}
		})
	}
}

// What is before a damage is of use, and large frames are no trap.
func TestSplitStopsAtDamage(t *testing.T) {
	s := open(t, t.TempDir())
	for _, as := range Encodings {
		frame, err := s.Encode([]byte(strings.Repeat("text", 1000)), as)
		if err != nil {
			t.Fatal(err)
		}
		for name, rest := range map[string][]byte{"cut short": frame[:len(frame)-5], "no frame": []byte("Package: evil\n")} {
			got, err := Split(append(bytes.Clone(frame), rest...), as, 1<<20)
			if err == nil || len(got) != 1 || !bytes.Equal(got[0], frame) {
				t.Errorf("%s, %s: %d frames, %v", as, name, len(got), err)
			}
		}
	}
	bomb, err := s.Encode(make([]byte, 1<<20), Gzip)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Split(bomb, Gzip, 1000); err == nil || len(got) != 0 {
		t.Errorf("of a frame that is too large: %d frames, %v", len(got), err)
	}
}

func FuzzSplit(f *testing.F) {
	s := open(f, f.TempDir())
	for _, as := range Encodings {
		frame, err := s.Encode([]byte(strings.Repeat("text", 1000)), as)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(bytes.Clone(frame), frame...))
	}
	f.Add(emptyZstd)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, as := range Encodings {
			frames, err := Split(data, as, 1<<20)
			if joined := bytes.Join(frames, nil); !bytes.HasPrefix(data, joined) || err == nil && len(joined) != len(data) {
				t.Errorf("%s: %d frames are not what the file begins with", as, len(frames))
			}
		}
	})
}

// A process that knows a blob is told that it is damaged.
func TestRestoreReplacesWhatIsKnown(t *testing.T) {
	s := open(t, t.TempDir())
	id := put(t, s, "text")
	frame, err := s.Frame(t.Context(), id, Gzip)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.Path(id), s.FramePath(id, Gzip)} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("evil"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Restore([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := s.RestoreFrame(id, Gzip, frame); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), id); err != nil || string(got) != "text" {
		t.Errorf("text is %q, %v", got, err)
	}
	if got, err := s.Frame(t.Context(), id, Gzip); err != nil || !bytes.Equal(got, frame) {
		t.Errorf("frame is %q, %v", got, err)
	}
	if _, err := s.Get(t.Context(), snapshots.ID{1}); err == nil {
		t.Error("there is a blob that nobody put")
	}
}
