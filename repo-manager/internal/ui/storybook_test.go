package ui

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"aptfleet/repo-manager/internal/access"
)

var update = flag.Bool("update", false, "write the outlines of the stories instead of comparing them")

// handler serves the pages of a world.
func handler(t testing.TB, w *world) http.Handler {
	t.Helper()
	h, err := New(Config{
		Release: w, Access: w, Fleet: w.machines, Products: goods{w}, Configuration: w, Clock: w.clock, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.machines.close)
	return h
}

// show plays a story and returns its answer.
func show(t testing.TB, s story) *httptest.ResponseRecorder {
	t.Helper()
	w := newWorld()
	s.tell(w)
	method, body := "GET", io.Reader(nil)
	if s.method != "" {
		method, body = s.method, strings.NewReader(s.form.Encode())
	}
	r := httptest.NewRequest(method, s.path, body)
	if s.method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if s.as != "" {
		r.AddCookie(&http.Cookie{Name: access.CookieName, Value: w.signIn(s.as)})
		if s.as == hostile { // not a value a cookie can have
			r.Header.Set("Cookie", access.CookieName+"=h")
			w.sessions["h"] = hostile
		}
	}
	rec := httptest.NewRecorder()
	handler(t, w).ServeHTTP(rec, r)
	return rec
}

// TestStories renders every screen with prepared data, checks that each is
// sound, and compares what a person reads on it with testdata/stories.
func TestStories(t *testing.T) {
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			rec := show(t, s)
			want := s.status
			if want == 0 {
				want = http.StatusOK
			}
			if rec.Code != want {
				t.Errorf("status %d, want %d", rec.Code, want)
			}
			page := rec.Body.String()
			for _, text := range s.says {
				if !strings.Contains(page, text) {
					t.Errorf("page does not say %q", text)
				}
			}
			for _, text := range append(s.never, hostile, "<script>alert", "<img src=x") {
				if strings.Contains(page, text) {
					t.Errorf("page contains %q", text)
				}
			}
			if strings.Contains(page, "ZgotmplZ") {
				t.Error("html/template refused a value")
			}
			root := sound(t, page)
			golden(t, s.name, outline(root))
		})
	}
}

// golden compares text with testdata/stories/<name>.txt.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", "stories", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if string(want) != text {
		t.Errorf("what a person reads has changed; look at it, then go test -update\n--- %s\n%s\n+++ now\n%s", path, want, text)
	}
}

// void elements have no end tag.
var void = map[string]bool{"meta": true, "link": true, "input": true, "img": true, "br": true, "path": false}

// sound checks what every page promises, whatever it shows: tags are balanced,
// ids are unique, what is referred to exists, there is one h1 within main and
// no level is skipped, every field has a label, every form that acts carries a
// token, nothing is styled or scripted inline. It returns the parsed page.
func sound(t *testing.T, page string) *html.Node {
	t.Helper()
	balanced(t, page)
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatalf("cannot parse the page: %v", err)
	}
	ids := map[string]bool{}
	labels := map[string]bool{}
	each(root, func(n *html.Node) {
		if id := attr(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("two elements have id %q", id)
			}
			ids[id] = true
		}
		if n.Data == "label" {
			labels[attr(n, "for")] = true
		}
	})
	var h1, mains, level int
	each(root, func(n *html.Node) {
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
				t.Errorf("<%s> has the inline attribute %s", n.Data, a.Key)
			}
		}
		for _, key := range []string{"aria-labelledby", "aria-describedby", "for"} {
			if id := attr(n, key); id != "" && !ids[id] {
				t.Errorf("<%s %s=%q> refers to nothing", n.Data, key, id)
			}
		}
		switch n.Data {
		case "html":
			if attr(n, "lang") == "" {
				t.Error("the page does not say its language")
			}
		case "main":
			mains++
		case "script", "style":
			if n.FirstChild != nil {
				t.Errorf("<%s> has inline content", n.Data)
			}
		case "h1", "h2", "h3", "h4":
			if n.Data == "h1" {
				h1++
			}
			next := int(n.Data[1] - '0')
			if next > level+1 {
				t.Errorf("heading level goes from %d to %d at %q", level, next, text(n))
			}
			level = next
		case "time":
			if attr(n, "datetime") == "" || attr(n, "title") == "" {
				t.Error("<time> without datetime or title")
			}
		case "textarea", "select":
			if !labels[attr(n, "id")] {
				t.Errorf("<%s> has no label", n.Data)
			}
		case "th":
			if attr(n, "scope") == "" {
				t.Errorf("<th>%s has no scope", text(n))
			}
		case "a":
			if strings.TrimSpace(text(n)) == "" {
				t.Errorf("a link to %s has no text", attr(n, "href"))
			}
		case "form":
			token := false
			each(n, func(f *html.Node) {
				name := attr(f, "name")
				token = token || (name == "csrf" || name == "token") && attr(f, "value") != ""
			})
			if attr(n, "method") == "get" {
				if token {
					t.Errorf("the form to %s puts a token into addresses", attr(n, "action"))
				}
				return
			}
			if attr(n, "method") != "post" || !token {
				t.Errorf("the form to %s is not a POST with a token", attr(n, "action"))
			}
		}
	})
	if h1 != 1 || mains != 1 {
		t.Errorf("%d <h1> and %d <main>, want one of each", h1, mains)
	}
	return root
}

// balanced checks that every tag is closed, in order: a parser repairs what is
// not, and so would hide it.
func balanced(t *testing.T, page string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	var open []string
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF || len(open) > 0 {
				t.Errorf("the page ends with %v open, %v", open, z.Err())
			}
			return
		case html.StartTagToken:
			if name, _ := z.TagName(); !void[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Errorf("</%s> closes %v", name, open)
				return
			}
			open = open[:len(open)-1]
		}
	}
}

func each(n *html.Node, do func(*html.Node)) {
	if n.Type == html.ElementNode {
		do(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		each(c, do)
	}
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	if n.Type == html.TextNode {
		return n.Data
	}
	var b strings.Builder
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		b.WriteString(text(c))
	}
	return b.String()
}

// visible spells out what an editor would not show.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsGraphic(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// outline is the page as it is read aloud: one line per heading, paragraph,
// list item, row, field and button, with where its links lead.
func outline(root *html.Node) string {
	var b strings.Builder
	var line strings.Builder
	flush := func(prefix string) {
		if words := strings.Join(strings.Fields(line.String()), " "); words != "" {
			b.WriteString(prefix + visible(words) + "\n")
		}
		line.Reset()
	}
	marks := map[string]string{"h1": "# ", "h2": "## ", "h3": "### ", "li": "- ", "tr": "| ", "button": "[button] ", "label": "[field] ", "summary": "▸ ", "dt": "", "pre": "$ "}
	blocks := map[string]bool{"p": true, "div": true, "section": true, "dl": true, "ul": true, "ol": true, "form": true, "table": true, "details": true, "caption": true, "title": true, "header": true, "main": true, "body": true}
	var walk func(n *html.Node, prefix string)
	walk = func(n *html.Node, prefix string) {
		switch {
		case n.Type == html.TextNode:
			line.WriteString(n.Data)
			return
		case attr(n, "aria-hidden") == "true" || n.Data == "input":
			return
		}
		mark, marked := marks[n.Data]
		if marked || blocks[n.Data] {
			flush(prefix)
			prefix = mark
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c, prefix)
		}
		if n.Data == "a" {
			line.WriteString(" <" + attr(n, "href") + ">")
		}
		if n.Data == "td" || n.Data == "th" || n.Data == "dt" {
			line.WriteString(" | ")
		}
		if marked || blocks[n.Data] {
			if n.Data != "dt" {
				flush(prefix)
			}
		}
	}
	walk(root, "")
	return b.String()
}
