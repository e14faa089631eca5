package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// Split cuts a concatenation of frames at their borders. Of one that is damaged
// or cut short it returns the frames before the damage, and an error. A frame
// that holds more than limit bytes counts as damage; of zstd frames only the
// outer form is looked at.
func Split(data []byte, as Encoding, limit int64) (frames [][]byte, err error) {
	next := gzipMember
	if as == Zstd {
		next = zstdFrame
	}
	for len(data) > 0 {
		n, err := next(data, limit)
		if err != nil {
			return frames, fmt.Errorf("cannot split %s frames: frame %d: %w", as, len(frames)+1, err)
		}
		frames = append(frames, data[:n])
		data = data[n:]
	}
	return frames, nil
}

// gzipMember returns the size of the member that data begins with.
func gzipMember(data []byte, limit int64) (int, error) {
	r := bytes.NewReader(data) // a ByteReader: nothing is read ahead
	z, err := gzip.NewReader(r)
	if err != nil {
		return 0, err
	}
	z.Multistream(false)
	n, err := io.Copy(io.Discard, io.LimitReader(z, limit+1))
	if err != nil {
		return 0, err
	}
	if n > limit {
		return 0, fmt.Errorf("it holds more than %d bytes", limit)
	}
	return len(data) - r.Len(), nil
}

// zstdFrame returns the size of the frame that data begins with (RFC 8878,
// 3.1.1): magic number, header, blocks up to the last, and a checksum.
func zstdFrame(data []byte, _ int64) (int, error) {
	short := errors.New("it is cut short")
	if len(data) < 5 {
		return 0, short
	}
	if binary.LittleEndian.Uint32(data) != 0xfd2fb528 {
		return 0, errors.New("it has another magic number")
	}
	descriptor := data[4]
	single := descriptor&0x20 != 0
	n := 5 + [...]int{0, 1, 2, 4}[descriptor&3] + [...]int{0, 2, 4, 8}[descriptor>>6]
	if single && descriptor>>6 == 0 || !single {
		n++ // a content size of one byte, or the window descriptor
	}
	for last := false; !last; {
		if len(data) < n+3 {
			return 0, short
		}
		header := int(data[n]) | int(data[n+1])<<8 | int(data[n+2])<<16
		n += 3
		last = header&1 != 0
		if header>>1&3 == 1 { // one byte, repeated
			n++
		} else {
			n += header >> 3
		}
	}
	if descriptor&4 != 0 {
		n += 4
	}
	if len(data) < n {
		return 0, short
	}
	return n, nil
}
