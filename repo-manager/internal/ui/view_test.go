package ui

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func TestAgo(t *testing.T) {
	for age, want := range map[time.Duration]string{
		-time.Hour:             "just now",
		0:                      "just now",
		9 * time.Second:        "just now",
		10 * time.Second:       "10 seconds ago",
		59 * time.Second:       "50 seconds ago",
		time.Minute:            "1 minute ago",
		119 * time.Minute:      "1 hour ago",
		23*time.Hour + 59*60e9: "23 hours ago",
		24 * time.Hour:         "1 day ago",
		400 * 24 * time.Hour:   "400 days ago",
	} {
		if got := ago(age); got != want {
			t.Errorf("ago(%s) = %q, want %q", age, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 81_300_000: "81.3 MB", 4_200_000_000: "4.2 GB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

// TestDiffLosesNothing checks that grouping, joining and folding keep every
// difference, once.
func TestDiffLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		versions := rapid.SampledFrom([]string{"1.0-1", "1.0-2", "1.0~rc1-1", "2:0.1"})
		type place struct{ component, name string }
		var differences []snapshots.Difference
		places := map[place]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "packages") {
			p := place{rapid.SampledFrom([]string{"apps", "debian"}).Draw(t, "component"), rapid.StringMatching(`[a-c]{2}`).Draw(t, "name")}
			if places[p] {
				continue
			}
			places[p] = true
			kind := rapid.IntRange(0, 2).Draw(t, "kind")
			old, new := versions.Draw(t, "old"), versions.Draw(t, "new")
			for _, architecture := range []string{"amd64", "arm64"} {
				d := snapshots.Difference{Key: snapshots.Key{Component: p.component, Architecture: architecture}, Name: p.name}
				if kind != 0 {
					d.Old = &snapshots.Package{Name: p.name, Version: old, Architecture: architecture}
				}
				if kind != 1 {
					d.New = &snapshots.Package{Name: p.name, Version: new, Architecture: architecture}
				}
				differences = append(differences, d)
			}
		}
		view := newDiff(differences, map[string]bool{"debian": true})
		if view.Total != len(places) {
			t.Fatalf("%d lines of %d packages", view.Total, len(places))
		}
		if len(view.Preview) != min(previewLines, view.Total) || view.More() != view.Total-len(view.Preview) {
			t.Fatalf("%d lines in the preview and %d more, of %d", len(view.Preview), view.More(), view.Total)
		}
		for _, g := range view.Groups {
			mirrored := false
			for _, line := range append(g.Lines, g.Folded...) {
				if line.Architectures != "amd64, arm64" {
					t.Fatalf("%s is listed for %q", line.Name, line.Architectures)
				}
				if mirrored && line.Component == "apps" {
					t.Fatalf("%s of the pipeline's own stands behind what a mirror brought", line.Name)
				}
				mirrored = line.Component == "debian"
				delete(places, place{line.Component, line.Name})
			}
		}
		if len(places) != 0 {
			t.Fatalf("lost %v", places)
		}
	})
}

// FuzzEscaping puts any text wherever people and packages can put text, and
// checks that it never becomes markup.
func FuzzEscaping(f *testing.F) {
	for _, seed := range []string{hostile, "</textarea><script>", "{{.User}}", `" onload="x`, "javascript:alert(1)", "\x00\xff", "<!--", "]]>", "é→\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w := newWorld()
		w.create("demo", "dev", "production")
		w.publish("demo", text, text, "apps/a=1")
		w.promoted("demo", "dev", "production", text, text)
		w.snapshots[0].Note, w.snapshots[0].Labels = text, []string{text}
		w.publish("demo", text, text, "apps/a=2")
		for id, packages := range w.contents {
			packages[0].Name, packages[0].Version = text, text
			w.contents[id] = packages
		}
		r := w.report("demo", "production", text)
		r.Progress, r.WhyNot, r.LastError, r.Phase = text, text, text, "INSTALL"
		r.Failed = []protocol.Failure{{State: text, Snapshot: text, Reason: text, At: w.now}}
		w.device("d"+text, "demo", r)
		r.Health, r.Refused, r.Holds = &protocol.Health{Reason: text}, &protocol.Refused{Reason: text, Text: text}, []protocol.Hold{{Reason: text, By: text}}
		r.Revision, r.Updater = text, text
		w.machines.put(fleet.Device{
			Name: "x", Pipeline: "demo", Serial: text, Modules: []string{text}, Hold: &protocol.Hold{Reason: text, By: text}, Pin: &fleet.Pin{Snapshot: w.snapshots[0].ID, Reason: text, By: text},
		})
		w.machines.says("x", *r)
		w.config["x"] = []configuration.Effective{{Entry: configuration.Entry{Key: text, Value: configuration.Value{Type: configuration.String, JSON: string(must1(json.Marshal(text))), By: text}}}}
		w.verdicts[w.stages["demo"][0].Offer.State] = &product.Verdict{Summary: text, Apt: text, Dose: text}
		w.changes = []release.Change{{Pipeline: "demo", Status: release.Doing, Summary: text, By: text, Unit: text, Done: 1, Total: 2, Log: []string{text}}}
		h := handler(t, w)
		cookie := w.signIn("anna")
		for _, path := range []string{"/pipelines/demo", "/pipelines/demo/stages/production", "/pipelines/demo/stages/production/promote?snapshot=dev",
			"/pipelines/demo/devices", "/pipelines/demo/devices?q=" + url.QueryEscape(text), "/pipelines/demo/devices/x", "/pipelines/demo/devices/x/hold?reason=" + url.QueryEscape(text),
			"/pipelines/demo/products", "/pipelines/demo/products/sensor?ref=dev", "/pipelines/demo/products/sensor?ref=production",
		} {
			r := httptest.NewRequest("GET", path, nil)
			r.AddCookie(&http.Cookie{Name: "aptfleet_session", Value: cookie})
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != http.StatusOK {
				t.Fatalf("%s is answered with %d", path, rec.Code)
			}
			page := rec.Body.String()
			sound(t, page)
			if strings.Count(page, "<script") != 1 || strings.Contains(page, "ZgotmplZ") {
				t.Errorf("%s: the text reached the page as more than text", path)
			}
		}
	})
}

// TestStatic: files are immutable under their hashed names, and nothing else
// is served.
func TestStatic(t *testing.T) {
	h := handler(t, newWorld())
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	a, err := newAssets()
	if err != nil {
		t.Fatal(err)
	}
	for name, kind := range map[string]string{"app.css": "text/css", "live.js": "text/javascript", "favicon.svg": "image/svg+xml"} {
		url, err := a.url(name)
		if err != nil {
			t.Fatal(err)
		}
		rec := get(url)
		if rec.Code != http.StatusOK || !strings.HasPrefix(rec.Header().Get("Content-Type"), kind) || !strings.Contains(rec.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", url, rec.Code, rec.Header())
		}
		if again := get(url, "If-None-Match", rec.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("%s with its ETag is answered with %d, want 304", url, again.Code)
		}
	}
	for _, path := range []string{"/static/app.css", "/static/", "/static/../templates/layout.html"} {
		if rec := get(path); rec.Code == http.StatusOK {
			t.Errorf("%s is served", path)
		}
	}
}

// Every kind of difference has its word and its sign, those of the command line.
func TestKindsOfDifferences(t *testing.T) {
	at := func(version string, sum byte) *snapshots.Package {
		return &snapshots.Package{Name: "x", Version: version, Architecture: "amd64", SHA256: [32]byte{sum}}
	}
	for want, d := range map[string]snapshots.Difference{
		"+ new":        {New: at("1", 1)},
		"- gone":       {Old: at("1", 1)},
		"↑ upgraded":   {Old: at("1.9", 1), New: at("1.10", 2)},
		"↓ downgraded": {Old: at("1.10", 1), New: at("1.9", 2)},
		"≠ rebuilt":    {Old: at("1", 1), New: at("1", 2)},
		"≈ relisted":   {Old: at("1", 1), New: at("1", 1)},
	} {
		sign := ""
		for _, k := range diffKinds {
			if k.Name == kindOf(d) {
				sign = k.Sign
			}
		}
		if got := sign + " " + kindOf(d); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
