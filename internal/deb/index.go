package deb

import "fmt"

// RelationFields are the relationship fields of a binary package's control
// stanza (Policy 7).
var RelationFields = [...]string{"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides", "Built-Using"}

// Index returns the package's paragraph for a Packages file: the fields of
// its control stanza as they are, then Filename, Size and SHA256. Hashes or
// file names that the control file brought along are dropped.
func Index(p Package, filename string) []byte {
	raw := p.Control.raw
	text := make([]byte, 0, len(raw)+len(filename)+len("Filename: \nSize: 9223372036854775807\nSHA256: \n")+2*len(p.SHA256))
	for f := range p.Control.split() {
		if !describesFile(raw[f.start:f.colon]) {
			text = append(text, raw[f.start:f.end]...)
		}
	}
	return fmt.Appendf(text, "Filename: %s\nSize: %d\nSHA256: %x\n", filename, p.Size, p.SHA256)
}

// describesFile reports whether a field is one that Index writes, or would if
// it wrote other hashes.
func describesFile(name []byte) bool {
	for _, field := range [...]string{"Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512"} {
		if sameName(name, field) {
			return true
		}
	}
	return false
}
