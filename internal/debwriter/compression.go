package debwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression is how the members of a written package are packed.
type Compression string

const (
	Gzip Compression = "gzip" // the zero value means it too
	Zstd Compression = "zstd" // understood by dpkg of Debian 12 and later
	XZ   Compression = "xz"   // by the program xz, which must be on PATH
	None Compression = "none"
)

func (c Compression) ending() string {
	switch c {
	case Zstd:
		return ".zst"
	case XZ:
		return ".xz"
	case None:
		return ""
	}
	return ".gz"
}

// writer returns a compressor whose output depends on its input alone: one
// thread, one frame or stream.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case "", Gzip:
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err == nil {
			z.ModTime = time.Unix(0, 0) // "none"; the zero time would be written as a date
		}
		return z, err
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
	case XZ:
		return startXZ(w)
	case None:
		return plain{w}, nil
	}
	return nil, fmt.Errorf("the compression %q is not known: want gzip, zstd, xz or none", string(c))
}

// plain compresses nothing.
type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// xzProcess is a running xz, which compresses far better and faster than any
// Go package does.
type xzProcess struct {
	io.WriteCloser
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func startXZ(w io.Writer) (io.WriteCloser, error) {
	p := &xzProcess{cmd: exec.Command("xz", "--format=xz", "--check=crc64", "-6", "--threads=1", "--stdout", "--no-warn")}
	p.cmd.Stdout, p.cmd.Stderr = w, &p.stderr
	p.cmd.Env = []string{"LC_ALL=C"} // XZ_OPT must not change the result
	var err error
	if p.WriteCloser, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (hint: apt-get install xz-utils, or choose another compression)", err)
	}
	return p, nil
}

// Close ends the input and waits for the last byte of output.
func (p *xzProcess) Close() error {
	closed := p.WriteCloser.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("xz: %w: %s", err, strings.TrimSpace(p.stderr.String()))
	}
	if errors.Is(closed, io.ErrClosedPipe) {
		return nil
	}
	return closed
}
