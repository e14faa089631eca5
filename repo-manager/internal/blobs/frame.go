package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"aptfleet/snapshots"

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

// FramePath returns where a frame lies, or will.
func (s *Store) FramePath(id snapshots.ID, as Encoding) string { return s.Path(id) + string(as) }

// Frame returns the frame of a chunk, which it makes if it is not there. A new
// frame is durable after the next Sync.
func (s *Store) Frame(ctx context.Context, id snapshots.ID, as Encoding) ([]byte, error) {
	return s.AppendFrame(ctx, nil, id, as)
}

// AppendFrame appends to dst what Frame returns.
func (s *Store) AppendFrame(ctx context.Context, dst []byte, id snapshots.ID, as Encoding) ([]byte, error) {
	path := s.FramePath(id, as)
	if s.isKnown(path) {
		if frame, err := appendFile(dst, path); err == nil {
			return frame, nil
		}
	}
	frame, err := s.frame(ctx, id, as)
	if err != nil {
		return nil, fmt.Errorf("cannot compress chunk %s to %s: %w", id, as, err)
	}
	return append(dst, frame...), nil
}

// frame reads a frame and holds it against its text, or makes it.
func (s *Store) frame(ctx context.Context, id snapshots.ID, as Encoding) ([]byte, error) {
	path := s.FramePath(id, as)
	frame, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text, getErr := s.Get(ctx, id)
	if getErr != nil {
		return nil, getErr
	}
	if sha256.Sum256(text) != id {
		return nil, errors.New("its text has another SHA-256: the blob is damaged")
	}
	if err != nil || !holds(frame, as, text) {
		if frame, err = s.encode(text, as); err != nil {
			return nil, err
		}
		if err := s.write(path, frame); err != nil {
			return nil, err
		}
	}
	s.setKnown(path)
	return frame, nil
}

// encode compresses text. The same version of the encoder gives the same
// bytes for the same text.
func (s *Store) encode(text []byte, as Encoding) ([]byte, error) {
	if as == Zstd {
		return s.enc.EncodeAll(text, nil), nil
	}
	var frame bytes.Buffer
	w, err := gzip.NewWriterLevel(&frame, gzipLevel)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return frame.Bytes(), nil
}

// Empty returns the frame of an empty text: the whole of an index without
// packages.
func (s *Store) Empty(as Encoding) ([]byte, error) {
	if as == Zstd {
		return slices.Clone(emptyZstd), nil
	}
	return s.encode(nil, as)
}

// emptyZstd is a zstd frame without content (RFC 8878, 3.1.1): magic number,
// a descriptor that announces a one-byte content size, that size, and one
// last raw block of no bytes. Encoders write nothing at all for an empty text,
// which is no zstd file.
var emptyZstd = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00}

// holds reports whether frame is a compressed text.
func holds(frame []byte, as Encoding, text []byte) bool {
	got, err := Decode(frame, as, int64(len(text)))
	return err == nil && bytes.Equal(got, text)
}

// Decode returns what a frame, or a concatenation of frames, holds: at most
// limit bytes.
func Decode(frame []byte, as Encoding, limit int64) ([]byte, error) {
	r, closeReader, err := newReader(frame, as)
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

func newReader(frame []byte, as Encoding) (r io.Reader, closeReader func(), err error) {
	if as == Zstd {
		d, err := zstd.NewReader(bytes.NewReader(frame), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(frame))
	if err != nil {
		return nil, nil, err
	}
	return z, func() {}, nil
}
