package bootcontrol

import (
	"bytes"
	"errors"
	"iter"
)

// Names of the files in the boot-control directory.
const (
	CommittedFile = "committed.env" // committed=<n> previous=<m>
	TrialFile     = "grubenv"       // trial=<n> tries=<k>
)

// BlockSize is the size of a boot-control file in bytes.
const BlockSize = 1024

// signature is the first line of every GRUB environment block (GRUB manual,
// "Environment block"). GRUB refuses a file that does not start with it.
const signature = "# GRUB Environment Block\n"

var errNoBlock = errors.New("not a GRUB environment block")

// NewBlock returns an environment block of BlockSize bytes with the given
// "name=value" lines, padded with '#'. It panics if they do not fit: the
// callers are tests and tools that choose the lines themselves.
func NewBlock(lines ...string) []byte {
	b := []byte(signature)
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	if len(b) > BlockSize {
		panic("bootcontrol: the lines do not fit into an environment block")
	}
	return append(b, bytes.Repeat([]byte("#"), BlockSize-len(b))...)
}

// Variables returns the variables of an environment block. Lines that start
// with '#' or hold no '=' are skipped; the last of two lines with the same
// name counts, as in GRUB's load_env. The only error is that b is no block.
func Variables(b []byte) (map[string]string, error) {
	if !bytes.HasPrefix(b, []byte(signature)) {
		return nil, errNoBlock
	}
	vars := map[string]string{}
	for name, at := range values(b) {
		value, _, _ := bytes.Cut(b[at:], []byte("\n"))
		vars[name] = string(value)
	}
	return vars, nil
}

// values yields the name of every complete "name=value" line and where its
// value starts.
func values(b []byte) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		start := 0
		for line := range bytes.Lines(b) {
			name, _, ok := bytes.Cut(line, []byte("="))
			ok = ok && !bytes.HasPrefix(line, []byte("#")) && bytes.HasSuffix(line, []byte("\n"))
			if ok && !yield(string(name), start+len(name)+1) {
				return
			}
			start += len(line)
		}
	}
}

// lowered returns a copy of block whose last "tries=<digit>" line counts one
// less. The digit is the only byte that changes, so a write of the copy that
// is torn anywhere leaves either count.
func lowered(block []byte) []byte {
	lower := bytes.Clone(block)
	digit := -1
	for name, at := range values(block) {
		if name == "tries" {
			digit = at
		}
	}
	if digit >= 0 {
		lower[digit]--
	}
	return lower
}

// triesLeft reports whether value is a count of tries that allows a trial:
// one digit from 1 to 9.
func triesLeft(value string) bool {
	return len(value) == 1 && value[0] >= '1' && value[0] <= '9'
}
