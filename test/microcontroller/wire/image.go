package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// An image is a header of 48 bytes and the body:
//
//	"MCUF"  revision (8, padded with zeros)  version (24, likewise)  length of the body (4)  CRC-32 of the body (4)  CRC-32 of the header so far (4)
//
// The revision is that of the board that it was built for. Nothing on a board
// says which one that is.
const (
	magic      = "MCUF"
	headerSize = 48
)

// MaxImage is how many bytes the flash holds.
const MaxImage = 256 << 10

// Image is what runs on the microcontroller.
type Image struct {
	Revision string // of the board
	Version  string
	Body     []byte
}

// Encode returns the bytes of the image.
func (i Image) Encode() ([]byte, error) {
	if len(i.Revision) > 8 || len(i.Version) > 24 || headerSize+len(i.Body) > MaxImage {
		return nil, fmt.Errorf("cannot make an image of version %q for revision %q with %d bytes", i.Version, i.Revision, len(i.Body))
	}
	raw := make([]byte, headerSize, headerSize+len(i.Body))
	copy(raw, magic)
	copy(raw[4:12], i.Revision)
	copy(raw[12:36], i.Version)
	binary.LittleEndian.PutUint32(raw[36:], uint32(len(i.Body)))
	binary.LittleEndian.PutUint32(raw[40:], crc32.ChecksumIEEE(i.Body))
	binary.LittleEndian.PutUint32(raw[44:], crc32.ChecksumIEEE(raw[:44]))
	return append(raw, i.Body...), nil
}

// Decode reads an image; what follows it is left out of account.
func Decode(raw []byte) (Image, error) {
	switch {
	case len(raw) < headerSize || string(raw[:4]) != magic:
		return Image{}, errors.New("it is no image")
	case binary.LittleEndian.Uint32(raw[44:]) != crc32.ChecksumIEEE(raw[:44]):
		return Image{}, errors.New("its header is damaged")
	}
	length := uint64(binary.LittleEndian.Uint32(raw[36:]))
	if uint64(len(raw)-headerSize) < length {
		return Image{}, errors.New("it is not whole")
	}
	body := raw[headerSize : headerSize+length]
	if binary.LittleEndian.Uint32(raw[40:]) != crc32.ChecksumIEEE(body) {
		return Image{}, errors.New("it is damaged")
	}
	word := func(raw []byte) string { return string(bytes.TrimRight(raw, "\x00")) }
	return Image{Revision: word(raw[4:12]), Version: word(raw[12:36]), Body: bytes.Clone(body)}, nil
}
