package manifest

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (w *walker) contents(m *Manifest) func(*yaml.Node) {
	return func(n *yaml.Node) {
		n = resolve(n)
		if n.Kind != yaml.SequenceNode {
			w.complain(n.Line, "contents must be a list")
			return
		}
		for _, item := range n.Content {
			if c, ok := w.content(item); ok {
				m.Contents = append(m.Contents, c)
			}
		}
	}
}

func (w *walker) content(n *yaml.Node) (Content, bool) {
	before := len(w.problems)
	c := Content{Type: TypeFile, Line: n.Line}
	packager, expand := "", false
	w.fields(n, "contents", map[string]func(*yaml.Node){
		"src":       w.text(&c.Source, "src"),
		"dst":       w.text(&c.Destination, "dst"),
		"type":      w.contentType(&c),
		"expand":    w.boolean(&expand, "expand"),
		"packager":  w.text(&packager, "packager"),
		"file_info": w.fileInfo(&c),
	}, map[string]string{"disown_subtree": onlyDeb})
	if expand {
		c.Source, c.Destination = w.expand(c.Source, n.Line), w.expand(c.Destination, n.Line)
	}
	switch {
	case len(w.problems) > before:
	case packager != "" && packager != "deb":
		return c, false // nfpm: for other packagers only
	case c.Destination == "":
		w.complain(n.Line, "dst is missing")
	case !path.IsAbs(c.Destination):
		w.complain(n.Line, "dst %q must be an absolute path", c.Destination)
	case slices.Contains(strings.Split(c.Destination, "/"), ".."):
		w.complain(n.Line, "dst %q must not contain ..", c.Destination)
	case strings.ContainsFunc(c.Destination, func(r rune) bool { return r < ' ' || r == 0x7f }):
		w.complain(n.Line, "dst %q must not contain control characters", c.Destination)
	case c.Source == "" && c.Type != TypeDir:
		w.complain(n.Line, "src is missing")
	case c.Source != "" && c.Type == TypeDir:
		w.complain(n.Line, "a dir has no src: it is an empty directory (type: tree copies one)")
	}
	return c, len(w.problems) == before
}

func (w *walker) contentType(c *Content) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch kind := w.scalar(n, "type"); kind {
		case "", "file", "doc", "license", "licence", "readme":
			c.Type = TypeFile
		case "config", "config|noreplace":
			c.Type = TypeConfig
		case TypeDir, TypeSymlink, TypeTree:
			c.Type = kind
		default:
			w.complain(n.Line, "the type %q is not supported: want file, config, config|noreplace, dir, symlink or tree", kind)
		}
	}
}

func (w *walker) fileInfo(c *Content) func(*yaml.Node) {
	return func(n *yaml.Node) {
		w.fields(n, "file_info", map[string]func(*yaml.Node){
			"owner": w.text(&c.Owner, "owner"),
			"group": w.text(&c.Group, "group"),
			"mtime": w.time(&c.ModTime, "mtime"),
			"mode": func(n *yaml.Node) {
				if bits, ok := w.octal(n, "mode"); ok {
					mode := fileMode(bits)
					c.Mode = &mode
				}
			},
		}, map[string]string{"lang": onlyDeb})
	}
}

// fileMode turns the twelve bits of chmod(1) into Go's mode.
func fileMode(bits uint32) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	if bits&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if bits&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if bits&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
