// Package wire is how a processor and the sample microcontroller talk over a
// serial line, and what an image for it looks like.
//
// A frame is
//
//	0x7e  kind (1)  number (1)  length of the payload (2, little endian)  payload  CRC-32 (4, little endian, IEEE) of all but the first byte
//
// Whoever reads throws bytes away until a frame fits. The processor asks, the
// microcontroller answers each request with one frame of the same number: Ack
// with a payload, or Nak with a reason in words.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Kind is what a frame is.
type Kind byte

// Requests, and the two answers.
const (
	Hello   Kind = 0x01 // Ack: mode (1), version of the application
	Restart Kind = 0x02 // payload: the mode to start in (1)
	Erase   Kind = 0x03 // payload: how many bytes will follow (4)
	Write   Kind = 0x04 // payload: offset (4), bytes
	Start   Kind = 0x05 // checks what was written, and starts it
	Ack     Kind = 0x80
	Nak     Kind = 0x81
)

// Modes of the microcontroller.
const (
	InBootROM     byte = 0
	InApplication byte = 1
)

// Page is how many bytes one Write carries at most.
const Page = 256

const (
	flag       = 0x7e
	headSize   = 4 // what follows the flag, up to the payload
	maxPayload = Page + 4
)

// Frame is one request or answer.
type Frame struct {
	Kind    Kind
	Number  byte
	Payload []byte
}

// Put writes a frame.
func Put(w io.Writer, f Frame) error {
	if len(f.Payload) > maxPayload {
		return fmt.Errorf("cannot send a frame of %d bytes", len(f.Payload))
	}
	raw := []byte{flag, byte(f.Kind), f.Number}
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(f.Payload)))
	raw = append(raw, f.Payload...)
	raw = binary.LittleEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw[1:]))
	_, err := w.Write(raw)
	return err
}

// Get reads the next whole frame.
func Get(r *bufio.Reader) (Frame, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return Frame{}, err
		}
		if b != flag {
			continue
		}
		f, err := rest(r)
		if err == nil || !errors.Is(err, errBroken) {
			return f, err
		}
	}
}

var errBroken = errors.New("the frame is broken")

// rest reads what follows a flag. Of a broken frame nothing but the flag is
// used up: the next may begin within it.
func rest(r *bufio.Reader) (Frame, error) {
	head, err := r.Peek(headSize)
	if err != nil {
		return Frame{}, err
	}
	end := headSize + int(binary.LittleEndian.Uint16(head[2:]))
	if end > headSize+maxPayload {
		return Frame{}, errBroken
	}
	raw, err := r.Peek(end + 4)
	if err != nil {
		return Frame{}, err
	}
	if crc32.ChecksumIEEE(raw[:end]) != binary.LittleEndian.Uint32(raw[end:]) {
		return Frame{}, errBroken
	}
	f := Frame{Kind: Kind(raw[0]), Number: raw[1], Payload: append([]byte(nil), raw[headSize:end]...)}
	_, err = r.Discard(len(raw))
	return f, err
}
