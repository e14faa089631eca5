// Package manifest reads aptfleet.yaml, the description of one package.
//
// Field names and meanings are those of nfpm (https://nfpm.goreleaser.com),
// as far as they concern a .deb; an nfpm.yaml of such fields is a manifest.
// What only Aptfleet knows stands below the key "aptfleet". A key that is
// unknown or not supported is an error that names its line: a manifest never
// means less than it says.
//
// Differences from nfpm: paths in src and scripts are relative to the
// manifest, not to the working directory; a file's time is the build's unless
// file_info.mtime is given, and its mode is 0644 or 0755 unless
// file_info.mode is given, so that a checkout's umask does not matter; an
// environment variable that is not set is an error.
package manifest

import (
	"io/fs"
	"time"
)

// FileName is the manifest's name in a source directory.
const FileName = "aptfleet.yaml"

// Manifest describes one package. Strings are expanded and checked for
// themselves; nothing has been read from the source directory yet.
type Manifest struct {
	File string // path of the manifest, for messages

	Name        string
	Arch        string // Debian's name of the architecture
	Epoch       string
	Version     string // "" if it is to come from git
	Prerelease  string // becomes ~prerelease
	Metadata    string // becomes +metadata
	Release     string // becomes the Debian revision
	Section     string
	Priority    string
	Maintainer  string
	Description string
	Homepage    string
	License     string
	Vendor      string

	Relations map[string][]string // by control field, e.g. "Pre-Depends"
	Contents  []Content
	Scripts   map[string]string // preinst, postinst, prerm, postrm, config, templates → path
	Fields    []Field           // further control fields, in the manifest's order
	Triggers  []string          // lines of the triggers file

	Compression string // gzip, zstd, xz or none
	NoGlobs     bool
	Systemd     Systemd
}

// Field is one further control field.
type Field struct {
	Name, Value string
	Line        int
}

// The types of a Content.
const (
	TypeFile    = "file"
	TypeConfig  = "config"
	TypeDir     = "dir"
	TypeSymlink = "symlink"
	TypeTree    = "tree"
)

// Content is one entry of contents: a file, a pattern of files, a tree, an
// empty directory or a link.
type Content struct {
	Source      string // path or pattern; the target of a symlink
	Destination string // absolute
	Type        string
	Owner       string // "" is root
	Group       string
	Mode        *fs.FileMode // nil: from the source, normalised
	ModTime     time.Time    // zero: the build's
	Line        int          // in the manifest
}

// Systemd says what maintainer scripts do with the package's units.
type Systemd struct {
	Default UnitPolicy
	Units   map[string]UnitPolicy // for single units, by file name
}

// UnitPolicy is what happens to a unit; all are true by default, as with
// dh_installsystemd.
type UnitPolicy struct {
	Enable  bool // at the first installation
	Start   bool // at installation, and stop at removal
	Restart bool // at upgrades
}

// Policy returns what holds for the unit of the given name.
func (s Systemd) Policy(unit string) UnitPolicy {
	if p, exists := s.Units[unit]; exists {
		return p
	}
	return s.Default
}
