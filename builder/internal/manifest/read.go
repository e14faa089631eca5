package manifest

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/deb"
)

// maxManifest bounds the file, in bytes.
const maxManifest = 1 << 20

// Error is everything that is wrong with a manifest, each "file:line: what".
type Error struct{ Problems []string }

func (e *Error) Error() string {
	return "cannot read manifest: " + strings.Join(e.Problems, "; ")
}

// Read reads the manifest at file. env looks environment variables up; they
// are expanded in name, arch, platform, version, release, prerelease,
// maintainer, vendor, homepage, description, the relations, deb.fields and,
// with "expand: true", in src and dst: where nfpm expands them.
func Read(file string, env func(string) (string, bool)) (*Manifest, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest: %w", err)
	}
	if info.Size() > maxManifest {
		return nil, fmt.Errorf("cannot read manifest: %s has more than %d bytes", file, maxManifest)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read manifest: %w", err)
	}
	return Parse(file, data, env)
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// Parse is Read for a manifest's bytes.
func Parse(file string, data []byte, env func(string) (string, bool)) (*Manifest, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		if at := yamlLine.FindStringSubmatch(err.Error()); at != nil {
			return nil, &Error{[]string{file + ":" + at[1] + ": it is no YAML: " + at[2]}}
		}
		return nil, &Error{[]string{file + ": it is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	if len(document.Content) == 0 {
		return nil, &Error{[]string{file + ": it is empty"}}
	}
	w := &walker{file: file, env: env}
	m := &Manifest{
		File:      file,
		Arch:      Architecture(runtime.GOARCH),
		Section:   "misc",
		Priority:  "optional",
		Relations: map[string][]string{},
		Scripts:   map[string]string{},
		Systemd:   Systemd{Default: UnitPolicy{Enable: true, Start: true, Restart: true}, Units: map[string]UnitPolicy{}},
	}
	w.manifest(m, document.Content[0])
	w.check(m)
	if len(w.problems) == 0 {
		return m, nil
	}
	slices.SortStableFunc(w.problems, func(a, b problem) int { return a.line - b.line })
	var e Error
	for _, p := range w.problems {
		e.Problems = append(e.Problems, fmt.Sprintf("%s:%d: %s", file, p.line, p.text))
	}
	return nil, &e
}

// onlyDeb is why sections of other package formats are refused.
const onlyDeb = "only .deb packages are built"

func (w *walker) manifest(m *Manifest, n *yaml.Node) {
	platform := "linux"
	relation := func(key, field string) func(*yaml.Node) {
		return w.relation(m, key, field)
	}
	w.fields(n, "", map[string]func(*yaml.Node){
		"name":             w.expanded(&m.Name, "name"),
		"arch":             w.arch(m, "arch"),
		"platform":         w.platform(&platform),
		"epoch":            w.text(&m.Epoch, "epoch"),
		"version":          w.expanded(&m.Version, "version"),
		"version_schema":   w.versionSchema,
		"version_metadata": w.text(&m.Metadata, "version_metadata"),
		"prerelease":       w.expanded(&m.Prerelease, "prerelease"),
		"release":          w.expanded(&m.Release, "release"),
		"section":          w.text(&m.Section, "section"),
		"priority":         w.text(&m.Priority, "priority"),
		"maintainer":       w.expanded(&m.Maintainer, "maintainer"),
		"description":      w.expanded(&m.Description, "description"),
		"vendor":           w.expanded(&m.Vendor, "vendor"),
		"homepage":         w.expanded(&m.Homepage, "homepage"),
		"license":          w.text(&m.License, "license"),
		"disable_globbing": w.boolean(&m.NoGlobs, "disable_globbing"),
		"depends":          relation("depends", "Depends"),
		"recommends":       relation("recommends", "Recommends"),
		"suggests":         relation("suggests", "Suggests"),
		"conflicts":        relation("conflicts", "Conflicts"),
		"breaks":           relation("breaks", "Breaks"),
		"replaces":         relation("replaces", "Replaces"),
		"provides":         relation("provides", "Provides"),
		"contents":         w.contents(m),
		"scripts":          w.scripts(m),
		"deb":              w.deb(m),
		"aptfleet":         w.aptfleet(m),
	}, map[string]string{
		"rpm": onlyDeb, "apk": onlyDeb, "archlinux": onlyDeb, "ipk": onlyDeb, "msix": onlyDeb,
		"overrides": onlyDeb + "; write its values at the top",
		"changelog": "the changelog is generated; ship your own as contents below /usr/share/doc",
		"umask":     "modes are 0644 and 0755; set file_info.mode",
		"mtime":     "times come from SOURCE_DATE_EPOCH or the commit; set file_info.mtime",
	})
}

// check complains about what is missing or cannot be a control field. These
// have no line of their own, so they are reported for the first one.
func (w *walker) check(m *Manifest) {
	if m.Name == "" {
		w.complain(1, "the key name is missing")
	} else if err := deb.ValidPackageName(m.Name); err != nil {
		w.complain(1, "%v", err)
	}
	if err := deb.ValidArchitecture(m.Arch); err != nil {
		w.complain(1, "%v", err)
	}
	if m.Maintainer == "" {
		w.complain(1, "the key maintainer is missing: \"Name <address>\"")
	}
	if strings.TrimSpace(m.Description) == "" {
		w.complain(1, "the key description is missing: a short line, then paragraphs")
	}
	for key, value := range map[string]string{"maintainer": m.Maintainer, "section": m.Section, "priority": m.Priority, "homepage": m.Homepage, "vendor": m.Vendor, "version": m.Version, "license": m.License} {
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			w.complain(1, "%s must be one line", key)
		}
	}
	if m.Epoch != "" {
		if _, err := strconv.ParseUint(m.Epoch, 10, 31); err != nil {
			w.complain(1, "epoch must be a number")
		}
	}
}

// debianArchitectures are the names nfpm takes from Go, in Debian's words.
var debianArchitectures = map[string]string{
	"386": "i386", "arm5": "armel", "arm6": "armhf", "arm7": "armhf", "arm": "armhf",
	"mips64le": "mips64el", "mipsle": "mipsel", "ppc64le": "ppc64el", "s390": "s390x",
	"x86_64": "amd64", "aarch64": "arm64", "noarch": "all",
}

// Architecture returns Debian's name of an architecture that may be given in
// Go's.
func Architecture(name string) string {
	if debian, found := debianArchitectures[name]; found {
		return debian
	}
	return name
}

func (w *walker) arch(m *Manifest, where string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if arch := w.expand(w.scalar(n, where), n.Line); arch != "" {
			m.Arch = Architecture(arch)
		}
	}
}

func (w *walker) platform(to *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if *to = w.expand(w.scalar(n, "platform"), n.Line); *to != "linux" && *to != "" {
			w.complain(n.Line, "platform must be linux")
		}
	}
}

func (w *walker) versionSchema(n *yaml.Node) {
	if schema := w.scalar(n, "version_schema"); schema != "semver" && schema != "none" && schema != "" {
		w.complain(n.Line, "version_schema must be semver or none")
	}
}

// relation reads a list of relations, each checked where it stands.
func (w *walker) relation(m *Manifest, key, field string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		w.list(key, func(s string) {
			if _, err := deb.ParseRelations(s); err != nil {
				w.complain(lineOf(n, s), "%s: %v", key, err)
				return
			}
			m.Relations[field] = append(m.Relations[field], s)
		})(n)
	}
}

// lineOf returns the line of the list's entry that reads s, else the list's.
func lineOf(n *yaml.Node, s string) int {
	for _, item := range resolve(n).Content {
		if strings.TrimSpace(item.Value) == s {
			return item.Line
		}
	}
	return n.Line
}

// script reads the path of a maintainer script into the manifest.
func (w *walker) script(m *Manifest, key, name string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if file := w.scalar(n, key); file != "" {
			m.Scripts[name] = file
		}
	}
}

func (w *walker) scripts(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		w.fields(n, "scripts", map[string]func(*yaml.Node){
			"preinstall":  w.script(m, "preinstall", "preinst"),
			"postinstall": w.script(m, "postinstall", "postinst"),
			"preremove":   w.script(m, "preremove", "prerm"),
			"postremove":  w.script(m, "postremove", "postrm"),
		}, nil)
	}
}
