package product

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestCycloneDX(t *testing.T) {
	b := side(t, "app 1:2.0~rc1-1", "g++ 4:14.2.0-1+b1", "lib 1 all")
	b.SHA256, b.Modules = strings.Repeat("c7", 32), []string{"lte"}
	b.Details[0].Needs, b.Details[0].Reason = []int{1, 2}, Reason{Kind: ByName}
	b.Details[1].Reason = Reason{Kind: ByDependency, By: "app", Field: "Depends"}
	b.Details[2].Reason = Reason{Kind: ByEssential}
	b.Details[0].Maintainer, b.Details[1].Maintainer = `Ann Other <ann@aptfleet.example>`, "not an address"
	text, err := b.CycloneDX("trixie")
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.CycloneDX("trixie")
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("equal bills give other bytes: %v", err)
	}
	var d struct {
		Format     string `json:"bomFormat"`
		Spec       string `json:"specVersion"`
		Serial     string `json:"serialNumber"`
		Version    int    `json:"version"`
		Metadata   struct{ Component item }
		Components []item
		Needs      []struct {
			Ref       string   `json:"ref"`
			DependsOn []string `json:"dependsOn"`
		} `json:"dependencies"`
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	if err := strict.Decode(&d); err != nil {
		t.Fatal(err)
	}
	// What the schema bom-1.6 demands of these fields.
	if d.Format != "CycloneDX" || d.Spec != "1.6" || d.Version != 1 {
		t.Errorf("%q %q %d", d.Format, d.Spec, d.Version)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(d.Serial) {
		t.Errorf("serial number %s", d.Serial)
	}
	refs := map[string]bool{d.Metadata.Component.Ref: true}
	for i, c := range d.Components {
		if c.Type != "library" || c.Name != b.Packages[i].Name || c.Version != b.Packages[i].Version || c.Ref == "" || refs[c.Ref] {
			t.Errorf("component %+v", c)
		}
		refs[c.Ref] = true
		if len(c.Hashes) != 1 || c.Hashes[0].Alg != "SHA-256" || c.Hashes[0].Content != b.Packages[i].SHA256 {
			t.Errorf("hashes of %s: %v", c.Name, c.Hashes)
		}
	}
	for i, want := range []string{
		"pkg:deb/debian/app@1%3A2.0~rc1-1?arch=amd64&distro=trixie",
		"pkg:deb/debian/g%2B%2B@4%3A14.2.0-1%2Bb1?arch=amd64&distro=trixie",
		"pkg:deb/debian/lib@1?arch=all&distro=trixie",
	} {
		if d.Components[i].PURL != want {
			t.Errorf("got %s, want %s", d.Components[i].PURL, want)
		}
	}
	if s := d.Components[0].Supplier; s == nil || s.Name != "Ann Other" || s.Contact[0].Email != "ann@aptfleet.example" {
		t.Errorf("supplier %+v", s)
	}
	if s := d.Components[1].Supplier; s == nil || s.Name != "not an address" || s.Contact != nil {
		t.Errorf("supplier %+v", s)
	}
	if d.Components[2].Supplier != nil {
		t.Error("a supplier that nobody knows")
	}
	if len(d.Needs) != 4 {
		t.Fatalf("dependencies %+v", d.Needs)
	}
	for _, n := range d.Needs {
		if !refs[n.Ref] {
			t.Errorf("%s is nothing", n.Ref)
		}
		delete(refs, n.Ref) // each once
		for _, to := range n.DependsOn {
			if !strings.HasPrefix(to, "pkg:deb/") {
				t.Errorf("%s depends on %s", n.Ref, to)
			}
		}
	}
	if len(d.Needs[0].DependsOn) != 2 || len(d.Needs[1].DependsOn) != 2 {
		t.Errorf("dependencies %+v", d.Needs)
	}
}

type item struct {
	Type, Name, Version, PURL string
	Ref                       string `json:"bom-ref"`
	Hashes                    []struct{ Alg, Content string }
	Supplier                  *struct {
		Name    string
		Contact []struct{ Email string }
	}
}
