package hardware

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// board makes the files of a board below a directory. Files that begin with #!
// are executable.
func board(t *testing.T, files map[string]string) *Board {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	return &Board{Root: root}
}

const (
	eeprom    = "sys/bus/nvmem/devices/eeprom0/nvmem"
	cell      = "sys/bus/nvmem/devices/eeprom0/cells/revision@10,0"
	tree      = "sys/firmware/devicetree/base/board/revision"
	dmi       = "sys/class/dmi/id/board_version"
	told      = "proc/cmdline"
	program   = "usr/lib/board/revision"
	described = Dir + "/board.yaml"
)

// TestRevision: each source by itself, and in company.
func TestRevision(t *testing.T) {
	const all = `revision:
  - script: /usr/lib/board/revision
  - dmi: board_version
    match: 'Rev\. (\S+)'
  - device-tree: board/revision
  - nvmem: eeprom0
    offset: 4
    length: 2
`
	type files = map[string]string
	for _, c := range []struct {
		name       string
		files      files
		factory    string
		configured string
		want       string
		says       string // of an error
	}{
		{name: "nothing"},
		{name: "the factory", factory: "B2", want: "B2"},
		{name: "the configuration", configured: "B2", want: "B2"},
		{name: "the command line", files: files{told: "quiet aptfleet.revision=B2\n"}, want: "B2"},
		{name: "the command line of a container", files: files{told: "aptfleet.revision=A1", "run/host/container-manager": "systemd-nspawn", "proc/1/cmdline": "/sbin/init\x00aptfleet.revision=B2\x00"}, want: "B2"},
		{name: "an EEPROM", files: files{described: all, program: "#!/bin/sh", eeprom: "xxxxB2xx"}, want: "B2"},
		{name: "an erased EEPROM", files: files{described: all, program: "#!/bin/sh", eeprom: strings.Repeat("\xff", 64)}},
		{name: "a short EEPROM", files: files{described: all, program: "#!/bin/sh", eeprom: "xxxxB"}, says: "nvmem eeprom0: it cannot be read: it ends before byte 6"},
		{name: "an unreadable EEPROM", files: files{described: all, program: "#!/bin/sh", eeprom + "/directory": ""}, factory: "B2", says: "nvmem eeprom0: it cannot be read"},
		{name: "a cell", files: files{described: "revision: [{nvmem: 'eeprom0/cells/revision@10,0'}]", cell: "B2\x00\x00"}, want: "B2"},
		{name: "a byte", files: files{described: "revision: [{nvmem: 'eeprom0/cells/revision@10,0', as: hex, values: {'02': B2}}]", cell: "\x02"}, want: "B2"},
		{name: "the byte zero", files: files{described: "revision: [{nvmem: 'eeprom0/cells/revision@10,0', as: hex, values: {'00': A1}}]", cell: "\x00"}, want: "A1"},
		{name: "an erased byte", files: files{described: "revision: [{nvmem: 'eeprom0/cells/revision@10,0', as: hex, values: {'00': A1}}]", cell: "\xff"}},
		{name: "another byte", files: files{described: "revision: [{nvmem: 'eeprom0/cells/revision@10,0', as: hex, values: {'00': A1}}]", cell: "\x07"}, says: `it says "07", which is none of its values`},
		{name: "the device tree", files: files{described: all, program: "#!/bin/sh", tree: "B2\x00"}, want: "B2"},
		{name: "the device tree in proc", files: files{described: all, program: "#!/bin/sh", "proc/device-tree/board/revision": "B2\x00"}, want: "B2"},
		{name: "DMI", files: files{described: all, program: "#!/bin/sh", dmi: "Rev. B2\n"}, want: "B2"},
		{name: "DMI of another kind", files: files{described: all, program: "#!/bin/sh", dmi: "To Be Filled By O.E.M.\n"}},
		{name: "a script", files: files{described: all, program: "#!/bin/sh\necho B2"}, want: "B2"},
		{name: "a script that fails", files: files{described: all, program: "#!/bin/sh\necho no bus >&2; exit 1"}, factory: "B2", says: "script /usr/lib/board/revision: it cannot be read: no bus"},
		{name: "a script that is not there", files: files{described: all}, factory: "B2", says: "it is not there"},
		{name: "all agree", files: files{described: all, program: "#!/bin/sh\necho B2", dmi: "Rev. B2", tree: "B2\x00", eeprom: "....B2", told: "aptfleet.revision=B2"}, factory: "B2", configured: "B2", want: "B2"},
		{name: "the EEPROM and the factory", files: files{described: all, program: "#!/bin/sh", eeprom: "....A1"}, factory: "B2", says: `nvmem eeprom0 says "A1", the factory "B2"`},
		{name: "DMI and the device tree", files: files{described: all, program: "#!/bin/sh", tree: "A1\x00", dmi: "Rev. B2"}, says: `device tree board/revision says "A1", dmi board_version "B2"`},
		{name: "the factory and the configuration", factory: "B2", configured: "B3", says: `the factory says "B2", the configuration "B3"`},
		{name: "the command line twice", files: files{told: "aptfleet.revision=A1 aptfleet.revision=B2"}, says: `the kernel command line says "A1", the kernel command line "B2"`},
		{name: "no revision", factory: "B 2", says: `the factory: it says "B 2", which is no hardware revision`},
		{name: "a file that is none", files: files{described: "revision: [{nvmen: eeprom0}]"}, factory: "B2", says: "board.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := board(t, c.files)
			b.Configured = c.configured
			if c.factory != "" {
				b.Factory = func() (string, error) { return c.factory, nil }
			}
			got, err := b.Revision(t.Context())
			if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v; want %q or an error with %q", got, err, c.want, c.says)
			}
		})
	}
}

// TestTheFactoryCannotBeRead: what it wrote might disagree.
func TestTheFactoryCannotBeRead(t *testing.T) {
	b := board(t, map[string]string{told: "aptfleet.revision=B2"})
	b.Factory = func() (string, error) { return "", errors.New("input/output error") }
	if got, err := b.Revision(t.Context()); err == nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	b.Factory = nil
	for range 2 {
		if got, err := b.Revision(t.Context()); err != nil || got != "B2" {
			t.Errorf("%q, %v", got, err)
		}
		// What is known is kept.
		if err := os.RemoveAll(filepath.Join(b.Root, told)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParse(t *testing.T) {
	for text, says := range map[string]string{
		"revision: [{nvmem: e, length: 1}]":               "",
		"revision: [{dmi: board_version, match: '(.*)'}]": "",
		"revision: []":                                   "",
		"revision: [{}]":                                 "revision 1: exactly one of",
		"revision: [{dmi: a, nvmem: b}]":                 "revision 1: exactly one of",
		"revision: [{dmi: a}, {nvmem: ../b, length: 1}]": "revision 2: nvmem:",
		"revision: [{nvmem: b}]":                         "a length of 1 to",
		"revision: [{nvmem: b, length: 100000}]":         "a length of 1 to",
		"revision: [{nvmem: b, length: 4, offset: -1}]":  "offset and a length",
		"revision: [{nvmem: b/cells/../../x}]":           "nvmem:",
		"revision: [{nvmem: b/cells/c, length: 1}]":      "belong to a whole",
		"revision: [{dmi: ../../etc/passwd}]":            "dmi:",
		"revision: [{device-tree: ../x}]":                "device-tree:",
		"revision: [{script: x}]":                        "script:",
		"revision: [{dmi: a, as: bcd}]":                  "as:",
		"revision: [{dmi: a, match: '('}]":               "match:",
		"revision: [{dmi: a, match: 'x'}]":               "has not one group",
		"revision: [{dmi: a, values: {x: 'B 2'}}]":       "values:",
		"revision: [{dmi: a, vales: {}}]":                "vales",
		"revision: []\n---\nrevision: []":                "more than one document",
		"":                                               "EOF",
	} {
		_, err := Parse([]byte(text))
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("revision: [{nvmem: e, length: 4, offset: 2, as: hex, values: {'01': A1}}, {dmi: board_version, match: '(.)'}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		for _, s := range all {
			if s.rank() < 0 || s.String() == "" {
				t.Errorf("%+v", s)
			}
			if path := s.NVMEM + s.DeviceTree + s.DMI + s.Script; strings.Contains("/"+path+"/", "/../") {
				t.Errorf("%q leads elsewhere", path)
			}
			// Whatever stands there, it is a revision, nothing, or an error.
			for _, raw := range []string{"", "\x00", "\xff\xff", "B2", "none"} {
				s.understand([]byte(raw))
			}
		}
	})
}
