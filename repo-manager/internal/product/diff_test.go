package product

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"aptfleet/internal/bom"
)

// side is a bill of packages "name version", each of the source "src" in that
// version unless the version has a "+b".
func side(t *testing.T, packages ...string) Bill {
	t.Helper()
	b := Bill{BOM: bom.BOM{Product: "gateway", Architecture: "amd64", State: strings.Repeat("0a", 32)}}
	for _, text := range packages {
		words := strings.Fields(text)
		p := bom.Package{Name: words[0], Version: words[1], Architecture: "amd64", SHA256: bom.Sum([]byte(text))}
		if len(words) > 2 {
			p.Architecture = words[2]
		}
		b.Packages = append(b.Packages, p)
		source, _, _ := strings.Cut(words[1], "+b")
		name, _, _ := strings.Cut(words[0], "-")
		b.Details = append(b.Details, Detail{Component: "apps", Source: name, SourceVersion: source, Size: 10})
	}
	return b
}

func TestChanges(t *testing.T) {
	old := side(t, "app 1:1.0-1", "app-data 1:1.0-1 all", "gone 1", "moved 1 all", "same 1", "lower 2", "bin 1")
	now := side(t, "app 1:2.0-1", "app-data 1:2.0-1 all", "moved 2 amd64", "new 1", "same 1", "lower 1", "bin 1+b2")
	var got []string
	for _, c := range changes(old, now) {
		text := c.Name
		for _, p := range []*bom.Package{c.Old, c.New} {
			if p == nil {
				text += " -"
			} else {
				text += " " + p.Version
			}
		}
		got = append(got, text)
	}
	want := []string{"app 1:1.0-1 1:2.0-1", "app-data 1:1.0-1 1:2.0-1", "bin 1 1+b2", "gone 1 -", "lower 2 1", "moved 1 2", "new - 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// Packages of one source show its changelog once, from whichever of them has it;
// a way back shows what is lost; what cannot be read is said.
func TestNews(t *testing.T) {
	const control = "Package: %\nVersion: 1\nArchitecture: all\nMaintainer: A <a@aptfleet.example>\nDescription: x\n"
	file := func(name, changelog string) []byte {
		files := map[string]string{}
		if changelog != "" {
			files["usr/share/doc/"+name+"/changelog.Debian.gz"] = changelog
		} else {
			files["usr/share/doc/"+name] = "-> app"
		}
		return makeDeb(t, strings.Replace(control, "%", name, 1), files)
	}
	files := map[string][]byte{
		bom.Sum([]byte("app 1:2.0-1")):          file("app", ""),
		bom.Sum([]byte("app-data 1:2.0-1 all")): file("app-data", log),
		bom.Sum([]byte("lower 1:2.0-1")):        file("lower", log),
		bom.Sum([]byte("broken 2")):             []byte("!<arch>\nno"),
		bom.Sum([]byte("silent 2")):             file("silent", "nothing that is a changelog"),
		bom.Sum([]byte("old 9")):                file("old", log),
	}
	opened := 0
	s := &Service{changelogs: changelogs{open: func(sum [32]byte, _ string) (io.ReadCloser, error) {
		opened++
		for name, content := range files {
			if name == hex.EncodeToString(sum[:]) {
				return io.NopCloser(bytes.NewReader(content)), nil
			}
		}
		return nil, fs.ErrNotExist
	}}}
	old := side(t, "app 1:1.0-1", "app-data 1:1.0-1 all", "lower 1:2.0-1", "broken 1", "silent 1", "lost 1", "bin 1", "old 8")
	now := side(t, "app 1:2.0-1", "app-data 1:2.0-1 all", "lower 1:1.0-1", "broken 2", "silent 2", "lost 2", "bin 1+b2", "old 9")
	look := func() string {
		all, err := s.news(t.Context(), changes(old, now))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range all {
			text := n.Source + " " + n.Old + " " + n.New + " " + strings.Join(n.Packages, ",")
			if n.Back {
				text += " back"
			}
			for _, e := range n.Entries {
				text += " " + e.Version
			}
			got = append(got, strings.TrimSpace(text+" "+n.Missing))
		}
		return strings.Join(got, "\n")
	}
	const want = `app 1:1.0-1 1:2.0-1 app,app-data 1:2.0-1 1:1.5-1
broken 1 2 broken broken:amd64=2 cannot be read:`
	got := look()
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s", got)
	}
	for _, line := range []string{
		"lost 1 2 lost the pool has lost lost:amd64=2", "lower 1:2.0-1 1:1.0-1 lower back 1:2.0-1 1:1.5-1",
		"old 8 9 old its changelog has nothing between the two", "silent 1 2 silent its packages have no changelog",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is not in\n%s", line, got)
		}
	}
	if strings.Contains(got, "bin") {
		t.Errorf("a rebuild without a change of its source has news\n%s", got)
	}
	before := opened
	if look() != got || opened-before != 2 { // the broken and the lost one
		t.Errorf("%d packages were opened again", opened-before)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.changelogs.known = nil
	if _, err := s.news(ctx, changes(old, now)); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}
