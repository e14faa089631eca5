package access_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/repo-manager/internal/access"
)

func TestAllowsSomewhere(t *testing.T) {
	for _, c := range []struct {
		roles, role string
		want        bool
	}{
		{"", "viewer", false},
		{"viewer:demo", "viewer", true},
		{"uploader:demo/apps", "viewer", true},
		{"uploader:demo/apps", "uploader", true},
		{"uploader:demo/apps", "releaser", false},
		{"admin", "operator", true},
		{"operator", "admin", false},
	} {
		if got := access.AllowsSomewhere(strings.Fields(c.roles), c.role); got != c.want {
			t.Errorf("AllowsSomewhere(%q, %s) = %v", c.roles, c.role, got)
		}
	}
}

func TestCommon(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"admin", "uploader:demo/apps viewer", "uploader:demo/apps viewer"},
		{"uploader:demo/apps", "admin", "uploader:demo/apps"},
		{"uploader", "uploader:demo uploader:other/x", "uploader:demo uploader:other/x"},
		{"uploader:demo/apps", "uploader:demo", "uploader:demo/apps"},
		{"uploader:demo/apps", "uploader:demo/tools", "viewer:demo"},
		{"uploader:demo/apps", "uploader:other/apps", ""},
		{"uploader", "releaser", "viewer"},
		{"uploader:demo", "viewer", "viewer:demo"},
		{"viewer", "operator:demo/sensor", "viewer:demo"},
		{"viewer", "viewer:demo uploader", "viewer"},
		{"releaser:demo", "", ""},
	} {
		if got := strings.Join(access.Common(strings.Fields(c.a), strings.Fields(c.b)), " "); got != c.want {
			t.Errorf("%q and %q have %q in common, want %q", c.a, c.b, got, c.want)
		}
	}
}

// What two sets of roles have in common allows exactly what both allow, in
// every scope: a token never gives more than its user has.
func TestCommonIsTheIntersection(t *testing.T) {
	names := []string{"viewer", "uploader", "releaser", "manufacturing", "operator", "admin"}
	scopes := []string{"", "demo", "demo2", "demo/a", "demo/ab", "demo2/a"}
	role := rapid.Custom(func(t *rapid.T) string {
		name, scope := rapid.SampledFrom(names).Draw(t, "name"), rapid.SampledFrom(scopes).Draw(t, "scope")
		switch {
		case name == "admin" || scope == "":
			return name
		case name == "viewer" || name == "manufacturing":
			scope, _, _ = strings.Cut(scope, "/")
		}
		return name + ":" + scope
	})
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(role, 0, 4).Draw(t, "a")
		b := rapid.SliceOfN(role, 0, 4).Draw(t, "b")
		common := access.Common(a, b)
		for _, role := range names {
			for _, scope := range scopes {
				want := access.Allows(a, role, scope) && access.Allows(b, role, scope)
				if got := access.Allows(common, role, scope); got != want {
					t.Fatalf("%q of %q and %q: as %s in %q allowed is %v, want %v", common, a, b, role, scope, got, want)
				}
			}
		}
		for i, role := range common {
			name, scope, _ := strings.Cut(role, ":")
			if access.Allows(slices.Delete(slices.Clone(common), i, i+1), name, scope) {
				t.Fatalf("of %q, %s is superfluous", common, role)
			}
		}
	})
}
