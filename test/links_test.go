package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLinksOfTheDocuments: each link in README.md and docs/ leads to a file that
// is there, and to a heading of it.
func TestLinksOfTheDocuments(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("../docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, decisions...), "../README.md")
	headings := make(map[string]map[string]bool)
	links := 0
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(prose(t, page), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") {
				continue
			}
			links++
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
				continue
			}
			if anchor == "" {
				continue
			}
			if headings[file] == nil {
				headings[file] = anchors(t, file)
			}
			if !headings[file][anchor] {
				t.Errorf("%s: %s leads to no heading", page, m[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

// TestPackagesAreInTheDocument: docs/architecture.md says what each package of a
// program holds.
func TestPackagesAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"repo-manager", "device-updater"} {
		_, section, _ := strings.Cut(string(text), "\n## Inside "+program+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		packages, err := os.ReadDir("../" + program + "/internal")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages {
			if name := p.Name(); !strings.HasSuffix(name, "test") && !strings.Contains(section, "`internal/"+name+"`") {
				t.Errorf("nothing is said about %s/internal/%s", program, name)
			}
		}
	}
}

// prose is a page without its blocks of code.
func prose(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(string(text), "")
}

// anchors are the names of a page's headings, as web pages of repositories make
// them.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(prose(t, page), -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}
