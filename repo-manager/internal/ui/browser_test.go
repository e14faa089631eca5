package ui

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/test/browser/webdriver"
)

// gallery serves every story at /story/NAME, with the static files, and a
// stream of events that stays silent.
func gallery(t *testing.T) *httptest.Server {
	static := handler(t, newWorld())
	mux := http.NewServeMux()
	mux.Handle("/static/", static)
	mux.HandleFunc("/pipelines/{p}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	for _, s := range stories() {
		mux.HandleFunc("/story/"+s.name, func(w http.ResponseWriter, r *http.Request) {
			told := show(t, s)
			for key, values := range told.Header() {
				w.Header()[key] = values
			}
			if _, err := w.Write(told.Body.Bytes()); err != nil {
				t.Error(err)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// artefacts is where screenshots go: kept if APTFLEET_ARTIFACTS names a
// directory.
func artefacts(t *testing.T) string {
	dir := os.Getenv("APTFLEET_ARTIFACTS")
	if dir == "" {
		return t.TempDir()
	}
	dir = filepath.Join(dir, "ui")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, o webdriver.Options) (*webdriver.Browser, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	driver, err := webdriver.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	o.Profile = t.TempDir()
	t.Cleanup(func() {
		if err := driver.Stop(); err != nil {
			t.Error(err)
		}
	})
	browser, err := driver.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := browser.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return browser, ctx
}

// TestGallery looks at every story in chromium, wide and narrow, light and
// dark: nothing overflows sideways, nothing is reported on the console.
func TestGallery(t *testing.T) {
	server := gallery(t)
	dir := artefacts(t)
	for _, look := range []struct {
		name    string
		options webdriver.Options
	}{
		{"wide", webdriver.Options{Width: 1280, Height: 900}},
		{"narrow-dark", webdriver.Options{Width: 390, Height: 844, Dark: true}},
	} {
		t.Run(look.name, func(t *testing.T) {
			browser, ctx := open(t, look.options)
			for _, s := range stories() {
				if err := browser.Go(ctx, server.URL+"/story/"+s.name); err != nil {
					t.Fatal(err)
				}
				var wide []string
				if err := browser.Script(ctx, `
					const limit = document.documentElement.clientWidth;
					if (document.documentElement.scrollWidth <= limit) return [];
					return [...document.querySelectorAll("*")].filter(n => n.getBoundingClientRect().right > limit + 1).map(n => n.outerHTML.slice(0, 120));`, &wide); err != nil {
					t.Fatal(err)
				}
				if len(wide) > 0 {
					t.Errorf("%s is wider than the window: %s", s.name, strings.Join(wide, "\n"))
				}
				lines, err := browser.Console(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if len(lines) > 0 {
					t.Errorf("%s: the console says %s", s.name, strings.Join(lines, "\n"))
				}
				if err := browser.SaveScreenshot(ctx, filepath.Join(dir, s.name+"-"+look.name+".png")); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
