package firmware

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/dropin"
)

const whole = `component: mcu
hook: /usr/lib/board/flash
reversible: true
images:
  - revisions: [A1]
    image: /usr/lib/board/a1.bin
    version: "1.0"
  - revisions: [B2, B3]
    image: /usr/lib/board/b.bin
    version: "1.1"
`

func TestParse(t *testing.T) {
	d, err := Parse([]byte(whole))
	if err != nil || d.Phase != PhaseTrial || d.Timeout != time.Minute {
		t.Fatalf("%+v, %v", d, err)
	}
	if image, ok := d.For("B3"); !ok || image.Version != "1.1" {
		t.Errorf("B3: %+v", image)
	}
	if _, ok := d.For("C1"); ok {
		t.Error("an image for a revision that has none")
	}
	if d, err := Parse([]byte(strings.Replace(whole, "reversible: true", "reversible: false\ntimeout: 2m", 1))); err != nil || d.Phase != PhaseCommit || d.Timeout != 2*time.Minute {
		t.Errorf("irreversible: %+v, %v", d, err)
	}
	for _, c := range []struct{ old, changed, says string }{
		{"component: mcu", "component: ../mcu", "component:"},
		{"component: mcu", "", "component:"},
		{"component: mcu", "component: mcu\nflavour: sweet", "flavour"},
		{"hook: /usr", "hook: usr", "hook:"},
		{"hook: /usr/lib", "hook: /usr/../lib", "hook:"},
		{"reversible: true\n", "", "reversible: it is needed"},
		{"reversible: true", "reversible: maybe", "bool"},
		{"reversible: true", "reversible: false\nphase: trial", "phase: what is not reversible waits"},
		{"reversible: true", "reversible: true\nphase: later", "phase:"},
		{"reversible: true", "reversible: true\ntimeout: 2h", "timeout:"},
		{"reversible: true", "reversible: true\ntimeout: -1s", "timeout:"},
		{"[B2, B3]", "[]", "images: 2: revisions: at least one"},
		{"[B2, B3]", "[B2, A1]", "images: 2: revisions: A1 has two images"},
		{"[B2, B3]", "[\"B 2\"]", "images: 2: revisions:"},
		{"/usr/lib/board/b.bin", "b.bin", "images: 2: image:"},
		{`version: "1.1"`, `version: "1 1"`, "images: 2: version:"},
		{`version: "1.1"`, `version: "1.1"` + "\n    sha256: abc", "images: 2: sha256:"},
		{`version: "1.1"`, `version: "1.1"` + "\n---\ncomponent: other", "more than one document"},
		{"[A1]", "A1", "into []string"},
	} {
		text := strings.Replace(whole, c.old, c.changed, 1)
		if text == whole {
			t.Fatalf("%q is not in the text", c.old)
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want it to say %q", c.changed, err, c.says)
		}
	}
	unordered := strings.NewReplacer("reversible: true", "reversible: false", `"1.1"`, "v1").Replace(whole)
	if _, err := Parse([]byte(unordered)); err == nil || !strings.Contains(err.Error(), "can be compared") {
		t.Errorf("irreversible without an order: %v", err)
	}
	for _, nothing := range []string{"", "images: []", "- a", "component: mcu"} {
		if _, err := Parse([]byte(nothing)); err == nil {
			t.Errorf("%q is a descriptor", nothing)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if all, err := Load(filepath.Join(dir, "none")); err != nil || len(all) != 0 {
		t.Errorf("no directory: %v, %v", all, err)
	}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("mcu.yaml", whole)
	put("modem.yaml", strings.Replace(whole, "mcu", "modem", 1))
	put("README", "not one")
	all, err := Load(dir)
	if err != nil || !slices.Equal([]string{all[0].Component, all[1].Component}, []string{"mcu", "modem"}) {
		t.Errorf("%v, %v", all, err)
	}
	put("pump.yaml", whole)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "pump.yaml: component:") {
		t.Errorf("a file of another name: %v", err)
	}
	put("pump.yaml", strings.Repeat("#", dropin.MaxFile+1))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("component: mcu\nimages: [{revisions: [A1], image: /x, version: 1}]\nhook: /h\nreversible: false"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("more than a line: %q", err)
			}
			return
		}
		// Whatever is taken can be acted upon.
		if !namePattern.MatchString(d.Component) || !filepath.IsAbs(d.Hook) || d.Reversible == nil || d.Timeout <= 0 || len(d.Images) == 0 {
			t.Errorf("%+v", d)
		}
		for _, image := range d.Images {
			for _, revision := range image.Revisions {
				if found, ok := d.For(revision); !ok || found.File != image.File {
					t.Errorf("%s: %+v", revision, found)
				}
			}
		}
	})
}

func TestParseProbe(t *testing.T) {
	for text, want := range map[string]string{
		`{"state":"running","version":"1.0"}`:             "running 1.0",
		`{"state":"running","version":"1.0","serial":42}`: "running 1.0",
		`{"state":"boot-rom","version":"1.0"}`:            "boot-rom ",
		`{"state":"absent"}`:                              "absent ",
		`{"state":"running"}`:                             "error",
		`{"state":"running","version":"1 0"}`:             "error",
		`{"state":"sleeping"}`:                            "error",
		`{}`:                                              "error",
		``:                                                "error",
		`null`:                                            "error",
		`"running"`:                                       "error",
		`{"state":"absent"} {"state":"absent"}`:           "error",
		`{"state":"running","version":"` + "\x1b[2J" + `"}`: "error",
	} {
		p, err := ParseProbe([]byte(text))
		got := p.State + " " + p.Version
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: %q (%v), want %q", text, got, err, want)
		}
	}
}

func FuzzParseProbe(f *testing.F) {
	f.Add([]byte(`{"state":"running","version":"1.0"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProbe(text)
		if err == nil && (p.State == Running) != (p.Version != "") {
			t.Errorf("%+v", p)
		}
	})
}
