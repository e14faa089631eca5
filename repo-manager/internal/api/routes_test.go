package api

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// example fills the parameters of a route.
func example(path string) string {
	for parameter, value := range map[string]string{
		":p": "demo", ":r": "apps", ":name": "hello", ":m": "debian", ":ref": "dev", ":s": "canary", ":id": "7", ":d": "bench", ":product": "gateway",
	} {
		parts := strings.Split(path, "/")
		for i, part := range parts {
			if part == parameter {
				parts[i] = value
			}
		}
		path = strings.Join(parts, "/")
	}
	return path
}

// allowed says which of the world's tokens may use a role of the table in the
// scope of the example paths.
var allowed = map[string][]string{
	viewer:   {"viewer", "uploader", "other-uploader", "releaser", "canary-releaser", "operator", "admin"},
	uploader: {"uploader", "admin"},
	releaser: {"releaser", "admin"},
	operator: {"operator", "admin"},
	admin:    {"admin"},
}

// TestEveryRoleOnEveryRoute walks the table: who has the role gets past
// authorisation, who has not gets 403 with the name of the role, who is
// nobody gets 401.
func TestEveryRoleOnEveryRoute(t *testing.T) {
	h, w, _ := newAPI(t)
	w.stream = closedStream()
	for _, r := range routes() {
		target := example(r.path)
		if strings.Contains(target, ":") {
			t.Fatalf("%s has a parameter without an example", r.path)
		}
		body := "{}"
		if rec := ask(t, h, r.method, target, body); r.role != anyone && rec.Code != http.StatusUnauthorized {
			t.Errorf("%s %s by nobody: %d, want 401", r.method, target, rec.Code)
		}
		if rec := ask(t, h, r.method, target, body, bearer("guessed")); r.role != anyone && rec.Code != http.StatusUnauthorized {
			t.Errorf("%s %s with a wrong token: %d, want 401", r.method, target, rec.Code)
		}
		for token := range identities {
			rec := ask(t, h, r.method, target, body, bearer(token))
			may := r.role == anyone || slices.Contains(allowed[r.role], token)
			// A releaser of one stage may move that stage and nothing else.
			if r.role == releaser && r.scope == "p/s" && token == "canary-releaser" {
				may = true
			}
			switch {
			case may && (rec.Code == http.StatusUnauthorized || rec.Code == http.StatusForbidden):
				t.Errorf("%s %s by %s: %d %s", r.method, target, token, rec.Code, rec.Body)
			case !may && rec.Code != http.StatusForbidden:
				t.Errorf("%s %s by %s: %d, want 403", r.method, target, token, rec.Code)
			case !may && !strings.Contains(rec.Body.String(), "the role "+r.role):
				t.Errorf("%s %s by %s does not name the missing role %s: %s", r.method, target, token, r.role, rec.Body)
			}
		}
	}
}

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
