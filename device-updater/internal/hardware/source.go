package hardware

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/dropin"
	"aptfleet/device-updater/internal/script"
)

// Dir is where a release says how the revision of its boards is found out, in
// files *.yaml.
const Dir = "usr/lib/aptfleet/hardware.d"

// Source is one place where a board may carry its revision. Exactly one of
// NVMEM, DeviceTree, DMI and Script is set.
type Source struct {
	// NVMEM is a device below /sys/bus/nvmem/devices, of which Length bytes
	// count from Offset; or DEVICE/cells/CELL, a cell that the kernel knows.
	NVMEM      string `yaml:"nvmem"`
	Offset     int64  `yaml:"offset"`
	Length     int64  `yaml:"length"`
	DeviceTree string `yaml:"device-tree"` // property, a path below the tree's root
	DMI        string `yaml:"dmi"`         // file below /sys/class/dmi/id
	Script     string `yaml:"script"`      // executable of the release; what it prints

	As     string            `yaml:"as"`     // text (default), or hex: its bytes as lower-case hex digits
	Match  string            `yaml:"match"`  // regular expression with one group, which counts; whatever it does not fit says nothing
	Values map[string]string `yaml:"values"` // what stands there → the revision; anything else is an error

	pattern *regexp.Regexp
}

// file is one file in Dir.
type file struct {
	Revision []Source `yaml:"revision"`
}

// maxValue is how much a source may say, in bytes.
const maxValue = 4 << 10

// scriptLimit is how long a script may take.
const scriptLimit = 10 * time.Second

// Load reads the files in dir, in the order of their names. No directory is no
// sources.
func Load(dir string) ([]Source, error) {
	var all []Source
	err := dropin.Each(dir, func(_ string, text []byte) error {
		sources, err := Parse(text)
		all = append(all, sources...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read how the hardware revision is found out: %w", err)
	}
	return all, nil
}

// Parse reads the text of a file in Dir. An unknown key and a source that is
// not complete are errors that say where.
func Parse(text []byte) ([]Source, error) {
	var f file
	if err := dropin.Decode(text, &f); err != nil {
		return nil, err
	}
	for i := range f.Revision {
		if err := f.Revision[i].check(); err != nil {
			return nil, fmt.Errorf("revision %d: %w", i+1, err)
		}
	}
	return f.Revision, nil
}

var (
	// A device, or a cell of one; names as the kernel makes them.
	nvmemPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]*(/cells/[A-Za-z0-9][A-Za-z0-9._,@:-]*)?$`)
	dmiPattern   = regexp.MustCompile(`^[a-z][a-z_]*$`)
)

func (s *Source) check() error {
	kinds := 0
	for _, kind := range []string{s.NVMEM, s.DeviceTree, s.DMI, s.Script} {
		if kind != "" {
			kinds++
		}
	}
	cell := strings.Contains(s.NVMEM, "/")
	switch {
	case kinds != 1:
		return errors.New("exactly one of nvmem, device-tree, dmi and script is needed")
	case s.NVMEM != "" && (!nvmemPattern.MatchString(s.NVMEM) || strings.Contains(s.NVMEM, "..")):
		return fmt.Errorf("nvmem: %q is neither a device nor DEVICE/cells/CELL", s.NVMEM)
	case s.NVMEM != "" && !cell && (s.Offset < 0 || s.Length < 1 || s.Length > maxValue):
		return fmt.Errorf("nvmem: offset and a length of 1 to %d are needed", maxValue)
	case (s.NVMEM == "" || cell) && (s.Offset != 0 || s.Length != 0):
		return errors.New("offset and length belong to a whole nvmem device")
	case s.DeviceTree != "" && (path.Clean("/"+s.DeviceTree) != "/"+s.DeviceTree || strings.ContainsRune(s.DeviceTree, 0)):
		return fmt.Errorf("device-tree: %q is not the path of a property below the root of the tree", s.DeviceTree)
	case s.DMI != "" && !dmiPattern.MatchString(s.DMI):
		return fmt.Errorf("dmi: %q is no file below /sys/class/dmi/id", s.DMI)
	case s.Script != "" && (path.Clean(s.Script) != s.Script || !path.IsAbs(s.Script) || strings.ContainsRune(s.Script, 0)):
		return fmt.Errorf("script: %q is not an absolute path", s.Script)
	case s.As != "" && s.As != "text" && s.As != "hex":
		return fmt.Errorf("as: %q is neither text nor hex", s.As)
	}
	for _, revision := range s.Values {
		if !Pattern.MatchString(revision) {
			return fmt.Errorf("values: %q is no hardware revision", revision)
		}
	}
	if s.Match == "" {
		return nil
	}
	pattern, err := regexp.Compile(`^(?:` + s.Match + `)$`)
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	if pattern.NumSubexp() != 1 {
		return fmt.Errorf("match: %q has not one group", s.Match)
	}
	s.pattern = pattern
	return nil
}

// rank orders the kinds: what is part of the board comes first.
func (s Source) rank() int {
	return slices.Index([]bool{s.NVMEM != "", s.DeviceTree != "", s.DMI != "", s.Script != ""}, true)
}

// String names the source.
func (s Source) String() string {
	return [...]string{"nvmem " + s.NVMEM, "device tree " + s.DeviceTree, "dmi " + s.DMI, "script " + s.Script}[s.rank()]
}

// ask returns the revision, "" if the source is not there or empty.
func (s Source) ask(ctx context.Context, root string) (string, error) {
	raw, err := s.read(ctx, root)
	if absent(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("it cannot be read: %w", err)
	}
	return s.understand(raw)
}

// read returns the bytes that stand there.
func (s Source) read(ctx context.Context, root string) ([]byte, error) {
	switch {
	case strings.Contains(s.NVMEM, "/"):
		return readSome(filepath.Join(root, "sys/bus/nvmem/devices", s.NVMEM), 0, maxValue)
	case s.NVMEM != "":
		text, err := readSome(filepath.Join(root, "sys/bus/nvmem/devices", s.NVMEM, "nvmem"), s.Offset, s.Length)
		if err == nil && int64(len(text)) < s.Length {
			err = fmt.Errorf("it ends before byte %d", s.Offset+s.Length)
		}
		return text, err
	case s.DeviceTree != "":
		text, err := readSome(filepath.Join(root, "sys/firmware/devicetree/base", s.DeviceTree), 0, maxValue)
		if absent(err) {
			text, err = readSome(filepath.Join(root, "proc/device-tree", s.DeviceTree), 0, maxValue)
		}
		return text, err
	case s.DMI != "":
		return readSome(filepath.Join(root, "sys/class/dmi/id", s.DMI), 0, maxValue)
	}
	program := filepath.Join(root, s.Script)
	if _, err := os.Stat(program); err != nil {
		// It is of the same release as the file that names it.
		return nil, errors.New("it is not there")
	}
	return script.Answer(ctx, scriptLimit, nil, io.Discard, program)
}

// readSome reads at most length bytes from offset.
func readSome(name string, offset, length int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, length))
}

// fillers are what a board has where nobody wrote anything.
var fillers = []string{"", "none", "n/a", "unknown", "not specified", "not applicable", "default string", "to be filled by o.e.m."}

// understand makes a revision of what stands there; "" if it says nothing.
func (s Source) understand(raw []byte) (string, error) {
	blank := len(bytes.Trim(raw, "\xff")) == 0
	text := hex.EncodeToString(raw)
	if s.As != "hex" {
		text = strings.Trim(string(raw), "\x00\xff \t\r\n")
		blank = blank || slices.Contains(fillers, strings.ToLower(text))
	}
	if s.pattern != nil && !blank {
		found := s.pattern.FindStringSubmatch(text)
		if found == nil {
			return "", nil
		}
		text = found[1]
	}
	revision, known := s.Values[text]
	switch {
	case known:
		return revision, nil
	case blank:
		return "", nil
	case s.As == "hex" && len(bytes.Trim(raw, "\x00")) == 0:
		return "", nil
	case s.Values != nil:
		return "", fmt.Errorf("it says %q, which is none of its values", text)
	}
	return text, nil
}
