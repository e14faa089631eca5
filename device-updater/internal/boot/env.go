package boot

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

const (
	// BlockSize is the size in bytes of a GRUB environment block.
	BlockSize = 1024

	// sector is what a disk writes whole or not at all. All variables lie
	// within it, so that a power cut leaves either the old or the new ones.
	sector = 512

	signature = "# GRUB Environment Block\n"
)

// parseEnv reads the variables of a GRUB environment block: the signature, then
// lines of name=value up to the padding of '#'. A block that is not exactly
// that is an error: the loader would not trust it either.
func parseEnv(block []byte) (map[string]string, error) {
	if len(block) != BlockSize {
		return nil, fmt.Errorf("it has %d bytes, not %d", len(block), BlockSize)
	}
	rest, ok := bytes.CutPrefix(block, []byte(signature))
	if !ok {
		return nil, errors.New("it does not begin with the signature of a GRUB environment block")
	}
	vars := make(map[string]string)
	for len(rest) > 0 && rest[0] != '#' {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			return nil, errors.New("its last line has no end")
		}
		name, value, found := strings.Cut(string(line), "=")
		if !found || name == "" {
			return nil, fmt.Errorf("%q is not name=value", line)
		}
		if _, twice := vars[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		vars[name] = value
		rest = after
	}
	return vars, nil
}

// variable is one name=value of a block; their order is kept.
type variable struct{ name, value string }

// formatEnv makes a block. It refuses variables that do not fit into the first
// sector.
func formatEnv(vars ...variable) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(signature)
	for _, v := range vars {
		if v.name == "" || strings.ContainsAny(v.name+v.value, "\n#\\") || strings.Contains(v.name, "=") {
			return nil, fmt.Errorf("%q=%q cannot stand in an environment block", v.name, v.value)
		}
		b.WriteString(v.name + "=" + v.value + "\n")
	}
	if b.Len() > sector {
		return nil, fmt.Errorf("%d bytes of variables do not fit into one sector", b.Len())
	}
	return append(b.Bytes(), bytes.Repeat([]byte("#"), BlockSize-b.Len())...), nil
}
