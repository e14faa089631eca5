package product

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/mail"
	"strings"
)

// The parts of CycloneDX 1.6 that are used; https://cyclonedx.org/docs/1.6/json.
type (
	cycloneDX struct {
		Schema       string          `json:"$schema"`
		Format       string          `json:"bomFormat"`
		Spec         string          `json:"specVersion"`
		Serial       string          `json:"serialNumber"`
		Version      int             `json:"version"`
		Metadata     cycloneMetadata `json:"metadata"`
		Components   []cycloneItem   `json:"components"`
		Dependencies []cycloneNeeds  `json:"dependencies"`
	}
	cycloneMetadata struct {
		Component cycloneItem `json:"component"`
	}
	cycloneItem struct {
		Type       string            `json:"type"`
		Ref        string            `json:"bom-ref"`
		Supplier   *cycloneSupplier  `json:"supplier,omitempty"`
		Name       string            `json:"name"`
		Version    string            `json:"version"`
		Hashes     []cycloneHash     `json:"hashes,omitempty"`
		PURL       string            `json:"purl,omitempty"`
		Properties []cycloneProperty `json:"properties,omitempty"`
	}
	cycloneSupplier struct {
		Name    string           `json:"name"`
		Contact []cycloneContact `json:"contact,omitempty"`
	}
	cycloneContact struct {
		Email string `json:"email"`
	}
	cycloneHash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	cycloneProperty struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	cycloneNeeds struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

// CycloneDX writes a bill of materials in the format CycloneDX 1.6, JSON. It is
// a function of the bill and the distribution: equal bills give equal bytes, so
// there is no time in it. It has no licences, which packages do not declare in
// a form for programs. b is no verdict.
func (b Bill) CycloneDX(distribution string) ([]byte, error) {
	product := cycloneItem{
		Type: "operating-system", Ref: "product:" + b.Product, Name: b.Product, Version: b.State,
		Properties: []cycloneProperty{
			{"aptfleet:bom", b.SHA256}, {"aptfleet:architecture", b.Architecture}, {"aptfleet:modules", strings.Join(b.Modules, " ")},
		},
	}
	out := cycloneDX{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", Spec: "1.6", Serial: serial(b.SHA256), Version: 1,
		Metadata: cycloneMetadata{product}, Components: make([]cycloneItem, 0, len(b.Packages)),
	}
	refs := make([]string, len(b.Packages))
	for i, p := range b.Packages {
		refs[i] = purl(p.Name, p.Version, p.Architecture, distribution)
	}
	asked := cycloneNeeds{Ref: product.Ref}
	needs := make([]cycloneNeeds, len(b.Packages))
	for i, p := range b.Packages {
		d := b.Details[i]
		out.Components = append(out.Components, cycloneItem{
			Type: "library", Ref: refs[i], Supplier: supplier(d.Maintainer), Name: p.Name, Version: p.Version, PURL: refs[i],
			Hashes: []cycloneHash{{"SHA-256", p.SHA256}},
			Properties: []cycloneProperty{
				{"aptfleet:component", d.Component}, {"aptfleet:reason", d.Reason.String()}, {"aptfleet:source", d.Source + " " + d.SourceVersion},
			},
		})
		needs[i].Ref = refs[i]
		for _, to := range d.Needs {
			needs[i].DependsOn = append(needs[i].DependsOn, refs[to])
		}
		if d.Reason.Kind != ByDependency {
			asked.DependsOn = append(asked.DependsOn, refs[i])
		}
	}
	out.Dependencies = append([]cycloneNeeds{asked}, needs...)
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // package URLs have an ampersand
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(out); err != nil {
		return nil, fmt.Errorf("cannot write bill of materials as CycloneDX: %w", err)
	}
	return text.Bytes(), nil
}

// serial is a UUID made of the SHA-256 of the bill, of version 8 (RFC 9562).
func serial(sha256 string) string {
	raw, err := hex.DecodeString(sha256)
	if err != nil || len(raw) < 16 {
		return ""
	}
	raw[6] = raw[6]&0x0f | 0x80
	raw[8] = raw[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:16])
}

// purl is a package URL of type deb
// (https://github.com/package-url/purl-spec).
func purl(name, version, architecture, distribution string) string {
	return "pkg:deb/debian/" + escapePURL(name) + "@" + escapePURL(version) + "?arch=" + escapePURL(architecture) + "&distro=" + escapePURL(distribution)
}

// escapePURL percent-encodes all but what a package URL takes plainly.
func escapePURL(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == '~':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// supplier is who maintains a package, if that can be read.
func supplier(maintainer string) *cycloneSupplier {
	if maintainer == "" {
		return nil
	}
	address, err := mail.ParseAddress(maintainer)
	if err != nil || address.Name == "" {
		return &cycloneSupplier{Name: maintainer}
	}
	return &cycloneSupplier{Name: address.Name, Contact: []cycloneContact{{address.Address}}}
}
