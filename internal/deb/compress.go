package deb

import (
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
func Decompress(r io.Reader, ending string, memory int64) (io.ReadCloser, error) {
	return decompressor(r, ending, memory)
}

// decompressor opens the content of a member by the ending of its name ("",
// ".gz", ".xz", ".zst", ".bz2", ".lzma"). memory bounds what the format's
// window may take in bytes.
func decompressor(r io.Reader, ending string, memory int64) (io.ReadCloser, error) {
	memory = min(memory, maxWindow)
	switch ending {
	case "":
		return io.NopCloser(r), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		return io.NopCloser(newXZReader(r, memory)), nil
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(max(memory, 8<<20))))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".bz2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case ".lzma":
		header := make([]byte, lzma.HeaderLen)
		if _, err := io.ReadFull(r, header); err != nil {
			return nil, err
		}
		dictionary := int64(header[1]) | int64(header[2])<<8 | int64(header[3])<<16 | int64(header[4])<<24
		if dictionary > maxWindow {
			return nil, fmt.Errorf("it asks for a dictionary of %d bytes", dictionary)
		}
		z, err := lzma.NewReader(io.MultiReader(bytes.NewReader(header), r))
		if err != nil {
			return nil, err
		}
		return io.NopCloser(z), nil
	}
	return nil, fmt.Errorf("the compression %q is not known", ending)
}
