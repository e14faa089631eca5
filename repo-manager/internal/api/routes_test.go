package api

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestEveryActNeedsMoreThanViewing keeps a route that changes something from
// slipping into the table as harmless.
func TestEveryActNeedsMoreThanViewing(t *testing.T) {
	for _, r := range append(routes(), deviceRoutes()...) {
		if r.path == "/device/v1/report" {
			continue // by the device's own token
		}
		if !safe(r.method) && (r.role == anyone || r.role == viewer) {
			t.Errorf("%s %s is open to %q", r.method, r.path, r.role)
		}
	}
}

// TestDocumentedRoutes compares the table with that of docs/architecture.md.
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
	span := regexp.MustCompile("`([^`]+)`")
	parameter := regexp.MustCompile(`\{[a-z]+\}`)
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cell := strings.Split(line, "|")[1]
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
				documented[method+" "+parameter.ReplaceAllString(path, "{}")] = true
			}
		}
	}
	built := map[string]bool{}
	colon := regexp.MustCompile(`:[a-z]+`)
	for _, r := range append(routes(), deviceRoutes()...) {
		built[r.method+" "+colon.ReplaceAllString(r.path, "{}")] = true
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
