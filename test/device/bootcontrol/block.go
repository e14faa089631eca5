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

// lowered returns a copy of block in which the first line "tries=…" has the
// value left, one digit, as GRUB's save_env writes it (grub_envblk_set in
// grub-core/lib/envblk.c): what follows moves up if the value was longer; a
// block whose padding does not follow a line, or that has no room, is not
// changed and ok is false. In a block that the updater wrote the digit is the
// only byte that changes, so a write that is torn anywhere leaves either count.
func lowered(block []byte, left string) (lower []byte, ok bool) {
	content := bytes.TrimRight(block, "#")
	if !bytes.HasSuffix(content, []byte("\n")) {
		return nil, false
	}
	for name, at := range values(content) {
		if name == "tries" {
			end := at + bytes.IndexByte(content[at:], '\n')
			lower = append(append(bytes.Clone(content[:at]), left...), content[end:]...)
			if len(lower) > len(block) {
				return nil, false
			}
			return append(lower, bytes.Repeat([]byte("#"), len(block)-len(lower))...), true
		}
	}
	return nil, false
}

// triesLeft reports whether value is a count of tries that allows a trial:
// one digit from 1 to 9.
func triesLeft(value string) bool {
	return len(value) == 1 && value[0] >= '1' && value[0] <= '9'
}
