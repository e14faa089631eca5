// Package frame compresses the texts of chunks, and reads what came of it. A
// frame is one text compressed for itself, so that the concatenation of the
// frames of an index is the index compressed.
package frame

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Encoding is a way to compress a chunk. Its value is the suffix of the files.
type Encoding string

// The encodings. apt accepts the concatenation of gzip members, and that of
// zstd frames, as one file; of xz streams it reads only the first.
const (
	Gzip Encoding = ".gz"
	Zstd Encoding = ".zst"
)

// Encodings lists all of them.
var Encodings = [...]Encoding{Gzip, Zstd}

// gzipLevel is the best size that still compresses a chunk in a few
// milliseconds: uploads wait for it.
const gzipLevel = 6

// Encoder makes frames. It may be used by many at once.
type Encoder struct{ zstd *zstd.Encoder }

// NewEncoder returns one that is ready. It takes its memory with the first
// frame that it makes.
func NewEncoder() (*Encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("cannot make frames: %w", err)
	}
	return &Encoder{zstd: z}, nil
}

// Encode compresses text. The same version of the encoder gives the same bytes
// for the same text; another one may not. For an empty text there is Empty.
func (e *Encoder) Encode(text []byte, as Encoding) ([]byte, error) {
	if as == Zstd {
		return e.zstd.EncodeAll(text, nil), nil
	}
	return member(text)
}

// member makes a gzip member.
func member(text []byte) ([]byte, error) {
	var made bytes.Buffer
	w, err := gzip.NewWriterLevel(&made, gzipLevel)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return made.Bytes(), nil
}

// Empty returns the frame of an empty text: the whole of an index without
// packages.
func Empty(as Encoding) ([]byte, error) {
	if as == Zstd {
		return slices.Clone(emptyZstd), nil
	}
	return member(nil)
}

// emptyZstd is a zstd frame without content (RFC 8878, 3.1.1): magic number,
// a descriptor that announces a one-byte content size, that size, and one
// last raw block of no bytes. Encoders write nothing at all for an empty text,
// which is no zstd file.
var emptyZstd = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00}

// Holds reports whether data is a compressed text.
func Holds(data []byte, as Encoding, text []byte) bool {
	got, err := Decode(data, as, int64(len(text)))
	return err == nil && bytes.Equal(got, text)
}

// Decode returns what a frame, or a concatenation of frames, holds: at most
// limit bytes.
func Decode(data []byte, as Encoding, limit int64) ([]byte, error) {
	r, closeReader, err := newReader(data, as)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s frame: %w", as, err)
	}
	defer closeReader()
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s frame: %w", as, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("cannot read %s frame: it holds more than %d bytes", as, limit)
	}
	return text, nil
}

func newReader(data []byte, as Encoding) (r io.Reader, closeReader func(), err error) {
	if as == Zstd {
		d, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, nil, err
	}
	return z, func() {}, nil
}
