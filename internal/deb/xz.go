package deb

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader decodes one .xz stream (The .xz File Format 1.1.0) of LZMA2
// blocks. The container is read here and not by the xz package, which lets the
// file decide how much memory a dictionary takes and allocates all of it for
// the smallest file.
//
// It reads up to the index: what a .deb needs is covered by the blocks' own
// checks.
type xzReader struct {
	src    *countingReader
	memory int64
	check  byte
	state  func() error // opens the next block, or ends with io.EOF

	block   io.Reader
	sum     hash.Hash
	claimed int64 // what the block's header says it holds, or -1
	held    int64 // what it held so far
}

var xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}

// lookahead is how many bytes of a block are searched for its end, which tells
// how much it holds before anything is allocated for it: all of most control
// members.
const lookahead = 64 << 10

// newXZReader returns a reader of what comes from r, a buffer of lookahead
// bytes.
func newXZReader(r *bufio.Reader, memory int64) *xzReader {
	x := &xzReader{src: &countingReader{r: r}, memory: memory}
	x.state = x.header
	return x
}

// Read implements io.Reader.
func (x *xzReader) Read(p []byte) (int, error) {
	for {
		if x.block == nil {
			if err := x.state(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := x.block.Read(p)
		x.sum.Write(p[:n])
		x.held += int64(n)
		if err == nil || errors.Is(err, io.EOF) && n > 0 {
			return n, nil
		}
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		x.block = nil
		if err := x.endBlock(); err != nil {
			return 0, err
		}
	}
}

// header reads the stream header.
func (x *xzReader) header() error {
	head := make([]byte, 12)
	if err := x.readFull(head); err != nil {
		return err
	}
	if !bytes.Equal(head[:6], xzMagic) {
		return errors.New("it is not xz data")
	}
	if crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]) || head[6] != 0 {
		return errors.New("the xz stream header is damaged")
	}
	x.check = head[7]
	x.state = x.nextBlock
	return nil
}

// nextBlock reads a block header, or finds the index.
func (x *xzReader) nextBlock() error {
	var size [1]byte
	if err := x.readFull(size[:]); err != nil {
		return err
	}
	if size[0] == 0 { // the index: all blocks are read
		x.state = func() error { return io.EOF }
		return io.EOF
	}
	head := make([]byte, (int(size[0])+1)*4)
	head[0] = size[0]
	if err := x.readFull(head[1:]); err != nil {
		return err
	}
	body, sum := head[:len(head)-4], head[len(head)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("an xz block header is damaged")
	}
	dictionary, err := x.blockHeader(body[1:])
	if err != nil {
		return err
	}
	if x.sum, err = xzCheck(x.check); err != nil {
		return err
	}
	x.src.n, x.held = 0, 0
	x.block, err = lzma.Reader2Config{DictCap: int(dictionary)}.NewReader2(x.src)
	return err
}

// blockHeader returns the dictionary a block needs, at most its content.
func (x *xzReader) blockHeader(b []byte) (dictionary int64, err error) {
	flags, rest := b[0], b[1:]
	x.claimed = -1
	number := func() (int64, error) {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v > 1<<62 {
			return 0, errors.New("an xz block header is damaged")
		}
		rest = rest[n:]
		return int64(v), nil
	}
	if flags&0x40 != 0 { // compressed size
		if _, err := number(); err != nil {
			return 0, err
		}
	}
	if flags&0x80 != 0 { // uncompressed size
		if x.claimed, err = number(); err != nil {
			return 0, err
		}
	}
	if flags&0x3f != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 || rest[2] > 40 {
		return 0, errors.New("it uses an xz filter other than LZMA2")
	}
	if bits := int64(rest[2]); bits == 40 {
		dictionary = 1<<32 - 1
	} else {
		dictionary = (2 | bits&1) << (bits/2 + 11)
	}
	near, err := x.src.r.Peek(lookahead)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return 0, err
	}
	if content := lzma2Size(near); content >= 0 {
		dictionary = min(dictionary, content)
	} else if x.claimed >= 0 {
		dictionary = min(dictionary, x.claimed)
	}
	if dictionary = max(dictionary, lzma.MinDictCap); dictionary > x.memory {
		return 0, fmt.Errorf("it asks for a dictionary of %d bytes, more than the %d it may use", dictionary, x.memory)
	}
	return dictionary, nil
}

// lzma2Size adds up what the LZMA2 chunks that data begins with unpack to, up
// to their end mark; it returns -1 if that is not in data. A chunk begins with a
// control byte (0: the end; 1, 2: plain bytes; from 0x80: LZMA, with new
// properties from 0xc0) and its sizes less one, as XZ Utils' lzma2_decoder.c
// reads them; the control byte holds the top five bits of the unpacked size.
func lzma2Size(data []byte) int64 {
	var total int64
	for len(data) > 0 && data[0] != 0 {
		control, head := data[0], 3
		if control >= 0x80 {
			head = 5
		}
		if control >= 0xc0 {
			head++
		}
		if len(data) < head || control > 2 && control < 0x80 {
			return -1
		}
		size := int(data[1])<<8 + int(data[2]) + 1
		packed := size
		if control >= 0x80 {
			size += int(control&0x1f) << 16
			packed = int(data[3])<<8 + int(data[4]) + 1
		}
		if head+packed > len(data) {
			return -1
		}
		total += int64(size)
		data = data[head+packed:]
	}
	if len(data) == 0 {
		return -1
	}
	return total
}

// endBlock reads the padding and the check behind a block.
func (x *xzReader) endBlock() error {
	if x.claimed >= 0 && x.held != x.claimed {
		return fmt.Errorf("an xz block holds %d bytes and claims %d", x.held, x.claimed)
	}
	padding := make([]byte, (4-x.src.n%4)%4)
	if err := x.readFull(padding); err != nil {
		return err
	}
	stored := make([]byte, x.sum.Size())
	if err := x.readFull(stored); err != nil {
		return err
	}
	computed := x.sum.Sum(nil)
	if x.check != 0x0a { // CRCs are stored little-endian
		for i, j := 0, len(computed)-1; i < j; i, j = i+1, j-1 {
			computed[i], computed[j] = computed[j], computed[i]
		}
	}
	if !bytes.Equal(stored, computed) {
		return errors.New("the check of an xz block does not match its content")
	}
	return nil
}

func (x *xzReader) readFull(p []byte) error {
	if _, err := io.ReadFull(x.src, p); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// xzCheck returns the hash of a stream's check type.
func xzCheck(id byte) (hash.Hash, error) {
	switch id {
	case 0x00:
		return noCheck{}, nil
	case 0x01:
		return crc32.NewIEEE(), nil
	case 0x04:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), nil
	case 0x0a:
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("the xz check type %d is not known", id)
}

// noCheck stands for a stream without checks.
type noCheck struct{}

func (noCheck) Write(p []byte) (int, error) { return len(p), nil }
func (noCheck) Sum(b []byte) []byte         { return b }
func (noCheck) Reset()                      {}
func (noCheck) Size() int                   { return 0 }
func (noCheck) BlockSize() int              { return 1 }

// countingReader counts what a block takes, to know its padding.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte lets the decoder read without a buffer of its own.
func (c *countingReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
