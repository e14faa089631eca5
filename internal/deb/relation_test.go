package deb_test

import (
	"testing"

	"aptfleet/internal/deb"
)

func TestRelationConcerns(t *testing.T) {
	for qualifier, want := range map[string]bool{"": true, "any": true, "native": true, "amd64": true, "arm64": false} {
		if got := (deb.Relation{Name: "libc6", ArchQualifier: qualifier}).Concerns("amd64"); got != want {
			t.Errorf("qualifier %q on amd64: %v, want %v", qualifier, got, want)
		}
	}
}

func TestAlternatives(t *testing.T) {
	const field = "libfoo:any (>= 2) | libbar"
	groups, err := deb.ParseRelations(field)
	if err != nil || len(groups) != 1 || deb.Alternatives(groups[0]) != field {
		t.Errorf("%q comes back as %q, %v", field, groups, err)
	}
}
