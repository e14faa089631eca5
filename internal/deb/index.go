package deb

import (
	"encoding/hex"
	"strconv"
)

// RelationFields are the relationship fields of a binary package's control
// stanza (Policy 7).
var RelationFields = [...]string{"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides", "Built-Using"}

// Index returns the package's paragraph for a Packages file: the fields of
// its control stanza as they are, then Filename, Size and SHA256. Hashes or
// file names that the control file brought along are dropped.
func Index(p Package, filename string) []byte {
	stanza := p.Control
	for _, field := range [...]string{"Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512"} {
		stanza = stanza.Without(field)
	}
	return stanza.
		With("Filename", filename).
		With("Size", strconv.FormatInt(p.Size, 10)).
		With("SHA256", hex.EncodeToString(p.SHA256[:])).
		Bytes()
}
