package manifest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/deb"
)

func (w *walker) deb(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		w.fields(n, "deb", map[string]func(*yaml.Node){
			"arch":        w.arch(m, "deb.arch"),
			"breaks":      w.relation(m, "deb.breaks", "Breaks"),
			"predepends":  w.relation(m, "deb.predepends", "Pre-Depends"),
			"compression": w.compression(m),
			"fields":      w.controlFields(m),
			"triggers":    w.triggers(m),
			"scripts": func(n *yaml.Node) {
				w.fields(n, "deb.scripts", map[string]func(*yaml.Node){
					"config":    w.script(m, "config", "config"),
					"templates": w.script(m, "templates", "templates"),
				}, map[string]string{"rules": "a binary package has no rules"})
			},
		}, map[string]string{
			"arch_variant": "dpkg of Debian does not know it",
			"signature":    "the archive is signed, not the package",
		})
	}
}

func (w *walker) compression(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch m.Compression = w.scalar(n, "compression"); m.Compression {
		case "", "gzip", "zstd", "xz", "none":
		default:
			w.complain(n.Line, "deb.compression must be gzip, zstd, xz or none")
		}
	}
}

// ownFields are written by the builder from other keys.
var ownFields = []string{"Package", "Version", "Architecture", "Maintainer", "Description", "Section", "Priority", "Homepage", "Installed-Size", "Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Status", "Aptfleet-Commit"}

func (w *walker) controlFields(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		n = resolve(n)
		if n.Kind != yaml.MappingNode {
			w.complain(n.Line, "deb.fields must be a mapping of keys and values")
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			text := strings.TrimSpace(w.expand(w.scalar(value, "deb.fields"), value.Line))
			isOwn := func(other string) bool { return strings.EqualFold(key.Value, other) }
			switch {
			case slices.ContainsFunc(ownFields, isOwn) || slices.ContainsFunc(deb.RelationFields[:], isOwn):
				w.complain(key.Line, "deb.fields cannot set %s: it has a key of its own or is computed", key.Value)
			case slices.ContainsFunc(m.Fields, func(f Field) bool { return isOwn(f.Name) }):
				w.complain(key.Line, "the key deb.fields.%s occurs twice", key.Value)
			case text == "":
			default:
				if _, err := deb.ParseStanza([]byte(key.Value + ": " + text + "\n")); err != nil {
					w.complain(key.Line, "deb.fields.%s is no control field: %v", key.Value, err)
					continue
				}
				m.Fields = append(m.Fields, Field{Name: key.Value, Value: text, Line: key.Line})
			}
		}
	}
}

func (w *walker) triggers(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		known := map[string]func(*yaml.Node){}
		for _, kind := range []string{"interest", "interest_await", "interest_noawait", "activate", "activate_await", "activate_noawait"} {
			directive := strings.ReplaceAll(kind, "_", "-")
			known[kind] = w.list("deb.triggers."+kind, func(s string) {
				if strings.ContainsAny(s, " \t\n") {
					w.complain(n.Line, "the trigger %q must be one word", s)
					return
				}
				m.Triggers = append(m.Triggers, directive+" "+s)
			})
		}
		w.fields(n, "deb.triggers", known, nil)
	}
}

func (w *walker) aptfleet(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		w.fields(n, "aptfleet", map[string]func(*yaml.Node){"systemd": w.systemd(m)}, nil)
	}
}

func (w *walker) systemd(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		known := w.unitPolicy(&m.Systemd.Default, "aptfleet.systemd")
		var units *yaml.Node
		known["units"] = func(n *yaml.Node) { units = resolve(n) }
		w.fields(n, "aptfleet.systemd", known, nil)
		if units == nil {
			return
		}
		// After the defaults, which a unit's own policy starts from.
		if units.Kind != yaml.MappingNode {
			w.complain(units.Line, "aptfleet.systemd.units must be a mapping of unit names")
			return
		}
		for i := 0; i+1 < len(units.Content); i += 2 {
			name, policy := units.Content[i].Value, m.Systemd.Default
			where := "aptfleet.systemd.units." + name
			w.fields(units.Content[i+1], where, w.unitPolicy(&policy, where), nil)
			m.Systemd.Units[name] = policy
		}
	}
}

func (w *walker) unitPolicy(to *UnitPolicy, where string) map[string]func(*yaml.Node) {
	return map[string]func(*yaml.Node){
		"enable":  w.boolean(&to.Enable, where+".enable"),
		"start":   w.boolean(&to.Start, where+".start"),
		"restart": w.boolean(&to.Restart, where+".restart"),
	}
}
