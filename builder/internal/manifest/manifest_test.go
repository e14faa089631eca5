package manifest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"aptfleet/builder/internal/manifest"
)

func env(name string) (string, bool) {
	value, set := map[string]string{"GOARCH": "arm64", "VERSION": "2.5", "LIBC": "libc6 (>= 2.36)", "EMPTY": "", "BIN": "out"}[name]
	return value, set
}

func parse(text string) (*manifest.Manifest, error) {
	return manifest.Parse("dir/aptfleet.yaml", []byte(text), env)
}

// needed are the keys every manifest has, on line 1.
const needed = "{name: hello, maintainer: A <a@test.example>, description: d"

const whole = `
name: hello-$GOARCH
arch: ${GOARCH}
platform: linux
epoch: 1
version: v$VERSION
prerelease: rc1
version_metadata: git
release: 3
section: net
priority: extra
maintainer: A Tester <a@test.example>
description: |
  says hello
  and costs $$5
homepage: https://hello.example
license: MIT
vendor: Hello Inc
depends: ["${LIBC}", "$EMPTY", aa | bb]
recommends: [cc]
suggests: [dd]
conflicts: [ee]
breaks: [ff (<< 2)]
replaces: [ff (<< 2)]
provides: [hello-virtual (= 1)]
contents:
  - src: hello
    dst: /usr/bin/hello
    file_info: {mode: 0755, owner: root, group: games, mtime: 2026-01-02T03:04:05Z}
  - {src: hello.conf, dst: /etc/hello.conf, type: config|noreplace}
  - {dst: /var/lib/hello, type: dir, file_info: {mode: 1777}}
  - {src: /usr/bin/hello, dst: /usr/bin/hi, type: symlink}
  - {src: $BIN/data, dst: /usr/share/hello, type: tree, expand: true}
  - {src: hello.spec, dst: /usr/share/spec, packager: rpm}
  - {src: $literal, dst: /usr/share/literal, packager: deb}
scripts: {preinstall: a, postinstall: b, preremove: c, postremove: d}
deb:
  breaks: [gg]
  predepends: [dpkg (>= 1.19)]
  compression: xz
  fields: {Bugs: "https://bugs.example/$GOARCH", Multi-Arch: same}
  triggers: {activate_noawait: [ldconfig], interest: [/usr/share/hello]}
  scripts: {config: e, templates: f}
aptfleet:
  systemd:
    units:
      a.service: {enable: true}
      b.timer: {start: false}
    enable: false
`

func TestParseReadsEverything(t *testing.T) {
	m, err := parse(whole)
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]any{
		"name":        {m.Name, "hello-arm64"},
		"arch":        {m.Arch, "arm64"},
		"version":     {[]string{m.Epoch, m.Version, m.Prerelease, m.Metadata, m.Release}, []string{"1", "v2.5", "rc1", "git", "3"}},
		"description": {m.Description, "says hello\nand costs $5\n"},
		"texts":       {[]string{m.Section, m.Priority, m.Homepage, m.License, m.Vendor}, []string{"net", "extra", "https://hello.example", "MIT", "Hello Inc"}},
		"relations": {m.Relations, map[string][]string{
			"Depends": {"libc6 (>= 2.36)", "aa | bb"}, "Recommends": {"cc"}, "Suggests": {"dd"}, "Conflicts": {"ee"}, "Breaks": {"ff (<< 2)", "gg"},
			"Replaces": {"ff (<< 2)"}, "Provides": {"hello-virtual (= 1)"}, "Pre-Depends": {"dpkg (>= 1.19)"},
		}},
		"scripts":     {m.Scripts, map[string]string{"preinst": "a", "postinst": "b", "prerm": "c", "postrm": "d", "config": "e", "templates": "f"}},
		"fields":      {len(m.Fields), 2},
		"a field":     {m.Fields[0].Value, "https://bugs.example/arm64"},
		"compression": {m.Compression, "xz"},
		"units":       {m.Systemd.Policy("a.service"), manifest.UnitPolicy{Enable: true, Start: true, Restart: true}},
		"a timer":     {m.Systemd.Policy("b.timer"), manifest.UnitPolicy{Enable: false, Start: false, Restart: true}},
		"other units": {m.Systemd.Policy("c.socket"), manifest.UnitPolicy{Enable: false, Start: true, Restart: true}},
		"contents":    {len(m.Contents), 6},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
		}
	}
	if strings.Join(m.Triggers, ";") != "activate-noawait ldconfig;interest /usr/share/hello" && strings.Join(m.Triggers, ";") != "interest /usr/share/hello;activate-noawait ldconfig" {
		t.Errorf("triggers: %q", m.Triggers)
	}
	first, third, last := m.Contents[0], m.Contents[2], m.Contents[5]
	if *first.Mode != 0o755 || first.Group != "games" || !first.ModTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || first.Line != 27 {
		t.Errorf("the first content is %+v, mode %v", first, *first.Mode)
	}
	if *third.Mode != 0o777|os.ModeSticky {
		t.Errorf("the mode 1777 became %v", *third.Mode)
	}
	if m.Contents[4].Source != "out/data" || last.Source != "$literal" {
		t.Errorf("sources are %q and %q", m.Contents[4].Source, last.Source)
	}
}

func TestParseDefaults(t *testing.T) {
	m, err := parse(needed + ", arch: 386, depends: , aptfleet: , contents: []}")
	if err != nil {
		t.Fatal(err)
	}
	if m.Arch != "i386" || m.Section != "misc" || m.Priority != "optional" || m.Version != "" || m.Compression != "" || m.Systemd.Policy("x") != (manifest.UnitPolicy{Enable: true, Start: true, Restart: true}) {
		t.Errorf("got %+v", m)
	}
	machine, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = parse(needed + "}"); err != nil || m.Arch != strings.TrimSpace(string(machine)) {
		t.Errorf("without arch it is for %+v (%v), dpkg says %s", m, err, machine)
	}
	if m, err = parse("base: &b {type: dir}\nname: x"); err == nil {
		t.Errorf("a key for anchors alone was accepted: %+v", m)
	}
	m, err = parse(needed + ", contents: [{src: a, dst: /a, file_info: &i {owner: x}}, {src: b, dst: /b, file_info: *i}]}")
	if err != nil || m.Contents[1].Owner != "x" {
		t.Errorf("an alias: %v", err)
	}
}

func TestParseNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "it is empty",
		"\t":                                     "it is no YAML",
		"name: [":                                "it is no YAML",
		"- a":                                    ":1: the manifest must be a mapping",
		"name: hello":                            ":1: the key maintainer is missing",
		needed + ", nam: x}":                     ":1: the key nam is unknown (did you mean name?)",
		needed + ", zzzzzzzzz: x}":               ":1: the key zzzzzzzzz is unknown",
		needed + ",\n\n name: again}":            ":3: the key name occurs twice",
		needed + ",\n rpm: {}}":                  ":2: the key rpm is not supported: only .deb",
		needed + ",\n overrides: {}}":            ":2: the key overrides is not supported",
		needed + ",\n deb: {signature: 1}}":      ":2: the key deb.signature is not supported",
		needed + ",\n deb: {arch_variant: v3}}":  ":2: the key deb.arch_variant is not supported",
		needed + ",\n deb:\n  {compresion: xz}}": ":3: the key deb.compresion is unknown (did you mean compression?)",
		needed + ",\n deb: {compression: rar}}":  ":2: deb.compression must be",
		needed + ",\n deb: {fields: {Depends: x}}}":                                  ":2: deb.fields cannot set Depends",
		needed + ",\n deb: {fields: {package: x}}}":                                  ":2: deb.fields cannot set package",
		needed + ",\n deb: {fields: {A b: x}}}":                                      ":2: deb.fields.A b is no control field",
		needed + ",\n deb: {fields: {A: x, a: y}}}":                                  ":2: the key deb.fields.a occurs twice",
		needed + ",\n deb: {fields: [x]}}":                                           ":2: deb.fields must be a mapping",
		needed + ",\n deb: {triggers: {activate: [a b]}}}":                           ":2: the trigger \"a b\" must be one word",
		needed + ",\n deb: {scripts: {rules: x}}}":                                   ":2: the key deb.scripts.rules is not supported",
		needed + ",\n depends: libc6}":                                               ":2: depends must be a list",
		needed + ",\n depends: [\n aa,\n 'bb (> )']}":                                ":4: depends: cannot parse relation",
		needed + ",\n depends: [[a]]}":                                               ":2: depends must be a single value",
		needed + ",\n depends: [$NONE]}":                                             ":2: the environment variable \"NONE\" is not set",
		needed + ",\n vendor: '${GOARCH'}":                                           ":2: \"${GOARCH\" lacks the closing brace",
		needed + ",\n contents: {}}":                                                 ":2: contents must be a list",
		needed + ",\n contents: [x]}":                                                ":2: contents must be a mapping",
		needed + ",\n contents: [{src: a}]}":                                         ":2: dst is missing",
		needed + ",\n contents: [{dst: /a}]}":                                        ":2: src is missing",
		needed + ",\n contents: [{src: a, dst: a}]}":                                 ":2: dst \"a\" must be an absolute path",
		needed + ",\n contents: [{src: a, dst: /a/../b}]}":                           ":2: dst \"/a/../b\" must not contain ..",
		needed + ",\n contents: [{src: a, dst: \"/a\\e\"}]}":                         "must not contain control characters",
		needed + ",\n contents: [{src: a, dst: /a, type: ghost}]}":                   ":2: the type \"ghost\" is not supported",
		needed + ",\n contents: [{src: a, dst: /a, type: dir}]}":                     ":2: a dir has no src",
		needed + ",\n contents: [{src: a, dst: /a, sorce: b}]}":                      ":2: the key contents.sorce is unknown",
		needed + ",\n contents: [{src: a, dst: /a, expand: maybe}]}":                 ":2: expand must be true or false",
		needed + ",\n contents: [{src: a, dst: /a, file_info: {mode: 9}}]}":          ":2: mode must be an octal number",
		needed + ",\n contents: [{src: a, dst: /a, file_info: {mode: 077777}}]}":     ":2: mode must be an octal number",
		needed + ",\n contents: [{src: a, dst: /a, file_info: {mtime: yesterday}}]}": ":2: mtime must be a time",
		needed + ",\n scripts: {postinst: x}}":                                       ":2: the key scripts.postinst is unknown (did you mean postinstall?)",
		needed + ",\n platform: darwin}":                                             ":2: platform must be linux",
		needed + ",\n version_schema: mine}":                                         ":2: version_schema must be",
		needed + ",\n epoch: x}":                                                     "epoch must be a number",
		needed + ",\n homepage: \"a\\nb\"}":                                          "homepage must be one line",
		needed + ",\n arch: any}":                                                    "cannot use architecture \"any\"",
		needed + ",\n aptfleet: {systemd: {enabled: false}}}":                        ":2: the key aptfleet.systemd.enabled is unknown (did you mean enable?)",
		needed + ",\n aptfleet: {systemd: {units: [a]}}}":                            ":2: aptfleet.systemd.units must be a mapping",
		needed + ",\n aptfleet: {systemd: {units: {a.service: {restrt: no}}}}}":      ":2: the key aptfleet.systemd.units.a.service.restrt is unknown",
		needed + ",\n aptfleet: {other: 1}}":                                         ":2: the key aptfleet.other is unknown",
		"name: Hello\nmaintainer: a\ndescription: d":                                 "cannot use package name \"Hello\"",
		"name: hello\nmaintainer: a\ndescription: ' '":                               "the key description is missing",
	} {
		_, err := parse(text)
		var all *manifest.Error
		if !errors.As(err, &all) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "dir/aptfleet.yaml") {
			t.Errorf("%q\n gave %v\n want %q", text, err, want)
		}
	}
	_, err := parse(needed + ",\n one: 1,\n two: 2}")
	if err == nil || !strings.Contains(err.Error(), ": dir/aptfleet.yaml:2: the key one ") || !strings.Contains(err.Error(), "; dir/aptfleet.yaml:3: the key two ") {
		t.Errorf("two mistakes: %v", err)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nfpm.yaml")
	if err := os.WriteFile(path, []byte(needed+"}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if m, err := manifest.Read(path, env); err != nil || m.Name != "hello" || m.File != path {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := manifest.Read(path+"x", env); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing manifest: %v", err)
	}
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Read(path, env); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a large manifest: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add(needed + ", contents: [{src: a, dst: /a}]}")
	f.Add("a: &a [*a]")
	f.Add("x: {<<: {y: 1}}")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parse(text)
		if err != nil && !strings.HasPrefix(err.Error(), "cannot read manifest:") {
			t.Fatalf("the error reads %q", err)
		}
		if err == nil && (m.Name == "" || m.Maintainer == "") {
			t.Fatalf("accepted without a name: %+v", m)
		}
	})
}
