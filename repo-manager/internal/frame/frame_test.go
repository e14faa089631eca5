package frame

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

func encoder(t testing.TB) *Encoder {
	t.Helper()
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func encode(t testing.TB, e *Encoder, text string, as Encoding) []byte {
	t.Helper()
	data, err := e.Encode([]byte(text), as)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The tools of the formats read single frames, concatenated ones, and that of
// an empty text.
func TestFrames(t *testing.T) {
	judges := map[Encoding][]string{Gzip: {"gzip", "-dc"}, Zstd: {"zstd", "-dc"}}
	e := encoder(t)
	texts := []string{strings.Repeat("Package: one\n\n", 1000), "Package: two\n\n"}
	for as, judge := range judges {
		t.Run(string(as), func(t *testing.T) {
			var whole []byte
			for _, text := range texts {
				data := encode(t, e, text, as)
				if !bytes.Equal(encode(t, encoder(t), text, as), data) {
					t.Fatal("another encoder makes other bytes")
				}
				if got, err := Decode(data, as, int64(len(text))); err != nil || string(got) != text {
					t.Fatalf("Decode: %v", err)
				}
				whole = append(whole, data...)
			}
			empty, err := Empty(as)
			if err != nil {
				t.Fatal(err)
			}
			for name, row := range map[string]struct {
				data []byte
				want string
			}{"concatenated": {whole, strings.Join(texts, "")}, "empty": {empty, ""}} {
				command := exec.Command(judge[0], judge[1:]...)
				command.Stdin = bytes.NewReader(row.data)
				got, err := command.Output()
				if err != nil || string(got) != row.want {
					t.Errorf("%s, %s reads %d bytes, want %d: %v", name, judge[0], len(got), len(row.want), err)
				}
				if !Holds(row.data, as, []byte(row.want)) || Holds(row.data, as, []byte(row.want+"x")) {
					t.Errorf("%s: Holds is wrong about its text", name)
				}
			}
		})
	}
}

func TestHoldsRefusesWhatIsNoFrame(t *testing.T) {
	e := encoder(t)
	for _, as := range Encodings {
		good := encode(t, e, "text", as)
		for name, data := range map[string][]byte{"none": nil, "short": good[:len(good)-1], "text": []byte("text"), "other": encode(t, e, "evil", as)} {
			if Holds(data, as, []byte("text")) {
				t.Errorf("%s, %s: is taken for a frame of the text", as, name)
			}
		}
	}
}

// One encoder serves all publications.
func TestAnEncoderServesManyAtOnce(t *testing.T) {
	e := encoder(t)
	text := strings.Repeat("text", 10000)
	for _, as := range Encodings {
		want := encode(t, e, text, as)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if got, err := e.Encode([]byte(text), as); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: other bytes, %v", as, err)
				}
			})
		}
		group.Wait()
	}
}

// Frames are foreign bytes once a disk has had them: whatever they hold, Decode
// stays within its limit.
func FuzzDecode(f *testing.F) {
	e := encoder(f)
	for _, as := range Encodings {
		data := encode(f, e, strings.Repeat("Package: one\n\n", 100), as)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, as := range Encodings {
			if text, err := Decode(data, as, 1000); err == nil && len(text) > 1000 {
				t.Fatalf("%d bytes", len(text))
			}
		}
	})
}
