package wire

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// TestFrames: frames arrive whole and in their order, whatever noise is between
// them.
func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var line bytes.Buffer
		var sent []Frame
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			// Noise without a flag: one that looks like the begin of a frame
			// may take what follows with it.
			for _, b := range rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "noise") {
				if b != flag {
					line.WriteByte(b)
				}
			}
			f := Frame{Kind: Kind(rapid.Byte().Draw(t, "kind")), Number: rapid.Byte().Draw(t, "number"), Payload: rapid.SliceOfN(rapid.Byte(), 0, maxPayload).Draw(t, "payload")}
			if err := Put(&line, f); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, f)
		}
		in := bufio.NewReader(&line)
		for _, want := range sent {
			got, err := Get(in)
			if err != nil || got.Kind != want.Kind || got.Number != want.Number || !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("%+v, %v; want %+v", got, err, want)
			}
		}
		if f, err := Get(in); err != io.EOF {
			t.Fatalf("%+v out of nothing (%v)", f, err)
		}
	})
}

// TestADamagedFrame is passed over, and the next one is found.
func TestADamagedFrame(t *testing.T) {
	var line bytes.Buffer
	for _, number := range []byte{1, 2} {
		if err := Put(&line, Frame{Kind: Write, Number: number, Payload: []byte("0123\x7e567")}); err != nil {
			t.Fatal(err)
		}
	}
	whole := line.Bytes()
	for i := range whole[:len(whole)/2] {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		// Enough for a length that is damaged.
		in := bufio.NewReader(io.MultiReader(bytes.NewReader(damaged), bytes.NewReader(make([]byte, 2*maxPayload))))
		if f, err := Get(in); err != nil || f.Number != 2 {
			t.Errorf("byte %d: %+v, %v", i, f, err)
		}
	}
}

// TestImages: what is encoded is decoded, and half of it is not.
func TestImages(t *testing.T) {
	raw, err := Image{Revision: "B2", Version: "1.0", Body: []byte("blink")}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if i, err := Decode(append(raw, 0xff)); err != nil || i.Revision != "B2" || i.Version != "1.0" || string(i.Body) != "blink" {
		t.Errorf("%+v, %v", i, err)
	}
	for n := range raw {
		if _, err := Decode(raw[:n]); err == nil {
			t.Errorf("%d of %d bytes are an image", n, len(raw))
		}
		damaged := bytes.Clone(raw)
		damaged[n] ^= 1
		if _, err := Decode(damaged); err == nil {
			t.Errorf("it is an image with byte %d damaged", n)
		}
	}
	if _, err := (Image{Revision: "much too long"}).Encode(); err == nil {
		t.Error("a revision that does not fit")
	}
}

func FuzzGet(f *testing.F) {
	f.Add([]byte("\x7e\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := bufio.NewReader(bytes.NewReader(raw))
		for {
			got, err := Get(in)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := Put(&again, got); err != nil || !bytes.Contains(raw, again.Bytes()) {
				t.Fatalf("%+v was not sent (%v)", got, err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := Decode(raw)
		if err == nil && len(i.Body) > len(raw) {
			t.Fatal("more than there was")
		}
	})
}
