package frame

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Whatever texts a file is made of, it is cut where their frames end.
func TestSplitFindsTheFrames(t *testing.T) {
	e := encoder(t)
	for _, as := range Encodings {
		rapid.Check(t, func(rt *rapid.T) {
			var whole []byte
			var want [][]byte
			for _, text := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 5000), 1, 5).Draw(rt, "texts") {
				if rapid.Bool().Draw(rt, "large") {
					text = bytes.Repeat(text, 400000/len(text)) // several blocks of a frame
				}
				frame, err := e.Encode(text, as)
				if err != nil {
					rt.Fatal(err)
				}
				want = append(want, frame)
				whole = append(whole, frame...)
			}
			empty, err := Empty(as)
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
	e := encoder(t)
	for _, as := range Encodings {
		frame, err := e.Encode([]byte(strings.Repeat("text", 1000)), as)
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
	bomb, err := e.Encode(make([]byte, 1<<20), Gzip)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Split(bomb, Gzip, 1000); err == nil || len(got) != 0 {
		t.Errorf("of a frame that is too large: %d frames, %v", len(got), err)
	}
}

func FuzzSplit(f *testing.F) {
	e := encoder(f)
	for _, as := range Encodings {
		frame, err := e.Encode([]byte(strings.Repeat("text", 1000)), as)
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
