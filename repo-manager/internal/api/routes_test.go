package api

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryActNeedsMoreThanViewing keeps a route that changes something from
// slipping into the table as harmless.
func TestEveryActNeedsMoreThanViewing(t *testing.T) {
	for _, r := range append(routes(), deviceRoutes()...) {
		if strings.HasPrefix(r.path, devicePrefix) {
			continue // signed by the device's own key
		}
		if !safe(r.method) && (r.role == anyone || r.role == viewer) {
			t.Errorf("%s %s is open to %q", r.method, r.path, r.role)
		}
	}
}

// TestDocumentedRoutes compares the table, with its roles, with that of
// docs/architecture.md.
func TestDocumentedRoutes(t *testing.T) {
	text, err := os.ReadFile("../../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "## The API")
	if !ok {
		t.Fatal("docs/architecture.md has no section of the API")
	}
	section, _, _ = strings.Cut(section, "\n#") // the next section is about something else
	documented := map[string]bool{}
	rolesOf := map[string]string{} // by route: all roles of the line that has it
	span := regexp.MustCompile("`([^`]+)`")
	parameter := regexp.MustCompile(`\{[a-z]+\}`)
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cell, roles := strings.Split(line, "|")[1], strings.Split(line, "|")[2]
		methods, base := "GET", ""
		for _, m := range span.FindAllStringSubmatch(cell, -1) {
			path := m[1]
			if i := strings.LastIndex(path, " "); i >= 0 {
				methods, path = path[:i], path[i+1:]
			}
			path, _, _ = strings.Cut(path, "?")
			switch {
			case strings.HasPrefix(path, "…"):
				path = base[:strings.LastIndex(base, "/")] + strings.TrimPrefix(path, "…")
			case !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/device/") && path != "/healthz":
				path = "/api/v1" + path
			}
			if base == "" {
				base = path
			}
			for method := range strings.SplitSeq(methods, ", ") {
				route := method + " " + parameter.ReplaceAllString(path, "{}")
				documented[route], rolesOf[route] = true, strings.TrimSpace(roles)
			}
		}
	}
	built := map[string]bool{}
	used := map[string]map[string]bool{} // by documented roles: which of them a route needs
	colon := regexp.MustCompile(`:[a-z]+`)
	for _, r := range append(routes(), deviceRoutes()...) {
		route := r.method + " " + colon.ReplaceAllString(r.path, "{}")
		built[route] = true
		if r.role == anyone || !documented[route] {
			continue
		}
		role := strings.ReplaceAll(r.role, or, " or ")
		if used[rolesOf[route]] == nil {
			used[rolesOf[route]] = map[string]bool{}
		}
		used[rolesOf[route]][role] = true
		if !slices.Contains(strings.Split(rolesOf[route], ", "), role) {
			t.Errorf("docs/architecture.md says that %s takes %s, and it takes %s", route, rolesOf[route], role)
		}
	}
	for roles, needed := range used {
		for role := range strings.SplitSeq(roles, ", ") {
			if !needed[role] {
				t.Errorf("docs/architecture.md names the role %s in a line of %s, where no route takes it", role, roles)
			}
		}
	}
	for route := range built {
		if !documented[route] {
			t.Errorf("docs/architecture.md does not list %s", route)
		}
	}
	for route := range documented {
		if !built[route] {
			t.Errorf("docs/architecture.md lists %s, which is not served", route)
		}
	}
}
