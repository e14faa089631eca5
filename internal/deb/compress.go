package deb

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz/lzma"
)

// maxWindow bounds the memory a compressed member may ask for: the largest
// dictionary of xz's and zstd's ordinary levels is 64 MiB and 8 MiB.
const maxWindow = 64 << 20

// Decompress opens data that is compressed as the ending of its name says:
// "", ".gz", ".xz" (one stream), ".zst", ".bz2" or ".lzma". memory bounds what
// the format's window may take in bytes; more than 64 MiB are never allowed.
func Decompress(r io.Reader, ending string, memory int64) (io.Reader, error) {
	return new(unpacker).open(r, ending, memory)
}

// unpacker opens compressed members, one after the other, and uses the same
// decompressors again.
type unpacker struct {
	gz    *gzip.Reader
	near  *bufio.Reader // of xz
	zst   *zstd.Decoder
	bound int64 // of the memory of zst
}

// open opens the content of a member by the ending of its name ("", ".gz",
// ".xz", ".zst", ".bz2", ".lzma"). memory bounds what the format's window may
// take in bytes. What it returns is good until the next call.
func (u *unpacker) open(r io.Reader, ending string, memory int64) (io.Reader, error) {
	memory = min(memory, maxWindow)
	switch ending {
	case "":
		return r, nil
	case ".gz":
		return u.gzip(r)
	case ".xz":
		return u.xz(r, memory), nil
	case ".zst":
		return u.zstd(r, max(memory, 8<<20))
	case ".bz2":
		return bzip2.NewReader(r), nil
	case ".lzma":
		header := make([]byte, lzma.HeaderLen)
		if _, err := io.ReadFull(r, header); err != nil {
			return nil, err
		}
		dictionary := int64(header[1]) | int64(header[2])<<8 | int64(header[3])<<16 | int64(header[4])<<24
		if dictionary > maxWindow {
			return nil, fmt.Errorf("it asks for a dictionary of %d bytes", dictionary)
		}
		return lzma.NewReader(io.MultiReader(bytes.NewReader(header), r))
	}
	return nil, fmt.Errorf("the compression %q is not known", ending)
}

func (u *unpacker) gzip(r io.Reader) (io.Reader, error) {
	if u.gz == nil {
		u.gz = new(gzip.Reader)
	}
	if err := u.gz.Reset(r); err != nil {
		return nil, err
	}
	return u.gz, nil
}

func (u *unpacker) xz(r io.Reader, memory int64) io.Reader {
	if u.near == nil {
		u.near = bufio.NewReaderSize(nil, lookahead)
	}
	u.near.Reset(r)
	return newXZReader(u.near, memory)
}

// zstd decodes in the goroutine that reads, so that nothing is left to close.
func (u *unpacker) zstd(r io.Reader, memory int64) (io.Reader, error) {
	if u.zst == nil || u.bound != memory {
		var err error
		if u.zst, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(memory))); err != nil {
			return nil, err
		}
		u.bound = memory
	}
	if err := u.zst.Reset(r); err != nil {
		return nil, err
	}
	return u.zst, nil
}
