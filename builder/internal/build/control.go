package build

import (
	"bytes"
	"fmt"
	"strings"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/deb"
)

// relationOrder is how dpkg-gencontrol orders the relations.
var relationOrder = []string{"Pre-Depends", "Depends", "Recommends", "Suggests", "Conflicts", "Breaks", "Replaces", "Provides"}

// controlStanza writes the package's control fields.
func controlStanza(m *manifest.Manifest, version, commit string) (deb.Stanza, error) {
	var b bytes.Buffer
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Package", m.Name)
	field("Version", version)
	field("Architecture", m.Arch)
	field("Maintainer", m.Maintainer)
	for _, name := range relationOrder {
		field(name, strings.Join(m.Relations[name], ", "))
	}
	field("Section", m.Section)
	field("Priority", m.Priority)
	field("Homepage", m.Homepage)
	field("Vendor", m.Vendor)
	field("Aptfleet-Commit", commit)
	for _, f := range m.Fields {
		field(f.Name, f.Value)
	}
	field("Description", folded(m.Description))
	return deb.ParseStanza(b.Bytes())
}

// folded writes a description as Policy 5.6.13 wants it: a synopsis, then
// lines that start with a space, a full stop for an empty one.
func folded(description string) string {
	lines := strings.Split(strings.TrimSpace(description), "\n")
	for i := range lines {
		line := strings.TrimRight(lines[i], " \t\r")
		switch {
		case i == 0:
		case line == "":
			line = " ."
		default:
			line = " " + line
		}
		lines[i] = line
	}
	// A blank line between synopsis and text is how people write YAML.
	if len(lines) > 1 && lines[1] == " ." {
		lines = append(lines[:1], lines[2:]...)
	}
	return strings.Join(lines, "\n")
}
