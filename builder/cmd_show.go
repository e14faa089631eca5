package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"aptfleet/internal/deb"
	"aptfleet/internal/term"
)

// shown is a package as "builder show --json" prints it.
type shown struct {
	File         string            `json:"file"`
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Architecture string            `json:"architecture"`
	Size         int64             `json:"size"` // bytes
	SHA256       string            `json:"sha256"`
	Commit       string            `json:"commit,omitempty"`
	Fields       map[string]string `json:"fields"`
	Control      map[string]string `json:"control"` // other control files and their text
	Contents     []shownFile       `json:"contents"`

	stanza deb.Stanza
}

// shownFile is one entry of a package's contents.
type shownFile struct {
	Path  string `json:"path"`
	Type  string `json:"type"` // "file", "dir", "symlink", "hardlink", "device"
	Mode  string `json:"mode"` // octal
	Owner string `json:"owner"`
	Group string `json:"group"`
	Size  int64  `json:"size"` // bytes
	Link  string `json:"link,omitempty"`
}

// maxShown bounds the bytes of one control file that are shown.
const maxShown = 1 << 20

func (p *program) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE.deb…",
		Short: "Show the fields, files and scripts of packages",
		Long: `show reads packages and prints their control fields, the commit they were built
from, their maintainer scripts and their contents. Nothing is unpacked.`,
		Example: `  builder show hello_1.2.3_amd64.deb
  builder show --json *.deb`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []shown{}
			for _, file := range args {
				s, err := inspect(file)
				if err != nil {
					return err
				}
				all = append(all, s)
			}
			if p.io.JSON {
				return p.io.PrintJSON(all)
			}
			for i, s := range all {
				if i > 0 {
					p.io.Say("")
				}
				p.printPackage(s)
			}
			return nil
		},
	}
}

// inspect reads a package from a file.
func inspect(file string) (s shown, err error) {
	f, err := os.Open(file)
	if err != nil {
		return shown{}, fmt.Errorf("cannot read package: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s = shown{File: file, Fields: map[string]string{}, Control: map[string]string{}, Contents: []shownFile{}}
	pkg, err := deb.Inspect(f, deb.Limits{}, deb.Visitor{
		Control: func(h *tar.Header, r io.Reader) error {
			text, err := io.ReadAll(io.LimitReader(r, maxShown))
			if err != nil {
				return err
			}
			if h.Name != "control" && utf8.Valid(text) {
				s.Control[h.Name] = string(text)
			}
			return nil
		},
		Data: func(h *tar.Header, _ io.Reader) error {
			s.Contents = append(s.Contents, shownFile{
				Path: h.Name, Type: entryType(h.Typeflag), Mode: fmt.Sprintf("%04o", h.Mode&0o7777),
				Owner: ownerName(h.Uname, h.Uid), Group: ownerName(h.Gname, h.Gid), Size: h.Size, Link: h.Linkname,
			})
			return nil
		},
	})
	if err != nil {
		return shown{}, fmt.Errorf("%s: %w", file, err)
	}
	s.stanza = pkg.Control
	s.Name, s.Version, s.Architecture, s.Size = pkg.Name, pkg.Version, pkg.Architecture, pkg.Size
	s.SHA256 = fmt.Sprintf("%x", pkg.SHA256)
	s.Commit = pkg.Control.Get("Aptfleet-Commit")
	for name, value := range pkg.Control.Fields() {
		s.Fields[name] = value
	}
	return s, nil
}

func entryType(flag byte) string {
	switch flag {
	case tar.TypeReg:
		return "file"
	case tar.TypeDir:
		return "dir"
	case tar.TypeSymlink:
		return "symlink"
	case tar.TypeLink:
		return "hardlink"
	}
	return "device"
}

func ownerName(name string, id int) string {
	if name == "" {
		return fmt.Sprint(id)
	}
	return name
}

// printPackage prints a package for people: the fields as they are written,
// then what dpkg would run, then the files.
func (p *program) printPackage(s shown) {
	for line := range strings.Lines(string(s.stanza.Bytes())) {
		p.io.Say("%s", term.Printable(strings.TrimSuffix(line, "\n")))
	}
	p.io.Say("Size: %d", s.Size)
	p.io.Say("SHA256: %s", s.SHA256)
	for _, name := range []string{"preinst", "postinst", "prerm", "postrm", "config", "conffiles", "triggers"} {
		text, exists := s.Control[name]
		if !exists {
			continue
		}
		p.io.Say("\n%s:", name)
		for line := range strings.Lines(text) {
			p.io.Say("    %s", term.Printable(strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", "    ")))
		}
	}
	p.io.Say("\ncontents:")
	table := p.io.NewTable("MODE", "TYPE", "OWNER", "SIZE", "PATH")
	for _, f := range s.Contents {
		name := f.Path
		if f.Link != "" {
			name += " -> " + f.Link
		}
		table.Row(f.Mode, f.Type, f.Owner+":"+f.Group, term.Bytes(f.Size), name)
	}
	table.Print("it is empty")
}
