package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// problem is one thing that is wrong with a manifest.
type problem struct {
	line int
	text string
}

// walker visits YAML nodes and collects what is wrong with them.
type walker struct {
	file     string
	env      func(string) (string, bool)
	problems []problem
}

func (w *walker) complain(line int, format string, args ...any) {
	w.problems = append(w.problems, problem{line, fmt.Sprintf(format, args...)})
}

// resolve follows an alias; YAML permits no alias of an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// fields calls the function of each key of a mapping. unsupported are keys
// that nfpm knows and we do not, each with its reason.
func (w *walker) fields(n *yaml.Node, where string, known map[string]func(*yaml.Node), unsupported map[string]string) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		w.complain(n.Line, "%s must be a mapping of keys and values", orManifest(where))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(where+"."+key.Value, ".")
		read, isKnown := known[key.Value]
		switch {
		case seen[key.Value]:
			w.complain(key.Line, "the key %s occurs twice", path)
		case isKnown:
			read(value)
		case unsupported[key.Value] != "":
			w.complain(key.Line, "the key %s is not supported: %s", path, unsupported[key.Value])
		default:
			w.complain(key.Line, "the key %s is unknown%s", path, suggest(key.Value, known))
		}
		seen[key.Value] = true
	}
}

func orManifest(where string) string {
	if where == "" {
		return "the manifest"
	}
	return where
}

// scalar returns the text of a string, number or boolean as it is written.
func (w *walker) scalar(n *yaml.Node, where string) string {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		w.complain(n.Line, "%s must be a single value", where)
		return ""
	}
	if n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// text reads a scalar into to.
func (w *walker) text(to *string, where string) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = w.scalar(n, where) }
}

// expanded reads a scalar with its environment variables replaced.
func (w *walker) expanded(to *string, where string) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = w.expand(w.scalar(n, where), resolve(n).Line) }
}

// list reads a sequence of scalars, each expanded; entries that expand to
// nothing are dropped, as nfpm does.
func (w *walker) list(where string, add func(string)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		n = resolve(n)
		if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			return
		}
		if n.Kind != yaml.SequenceNode {
			w.complain(n.Line, "%s must be a list", where)
			return
		}
		for _, item := range n.Content {
			if s := strings.TrimSpace(w.expand(w.scalar(item, where), item.Line)); s != "" {
				add(s)
			}
		}
	}
}

func (w *walker) boolean(to *bool, where string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if err := resolve(n).Decode(to); err != nil {
			w.complain(n.Line, "%s must be true or false", where)
		}
	}
}

func (w *walker) time(to *time.Time, where string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		parsed, err := time.Parse(time.RFC3339, w.scalar(n, where))
		if err != nil {
			w.complain(n.Line, "%s must be a time such as 2026-01-02T03:04:05Z", where)
			return
		}
		*to = parsed
	}
}

// octal reads a file mode. YAML reads 0644 as octal and 644 as decimal; both
// are what people write for the same thing.
func (w *walker) octal(n *yaml.Node, where string) (uint32, bool) {
	digits := strings.TrimPrefix(strings.TrimPrefix(w.scalar(n, where), "0o"), "0")
	if digits == "" {
		digits = "0"
	}
	mode, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || mode > 0o7777 {
		w.complain(n.Line, "%s must be an octal number up to 07777, such as 0644", where)
		return 0, false
	}
	return uint32(mode), true
}

// expand replaces $NAME and ${NAME}; "$$" is a dollar sign.
func (w *walker) expand(s string, line int) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if rest, isDollar := strings.CutPrefix(after, "$"); isDollar {
			out.WriteByte('$')
			s = rest
			continue
		}
		name := after
		if inside, isBrace := strings.CutPrefix(after, "{"); isBrace {
			var closed bool
			if name, s, closed = strings.Cut(inside, "}"); !closed {
				w.complain(line, "%q lacks the closing brace", "${"+inside)
				return out.String()
			}
		} else {
			end := 0
			for end < len(name) && isVariable(name[end], end == 0) {
				end++
			}
			name, s = after[:end], after[end:]
		}
		value, set := w.env(name)
		if !set {
			w.complain(line, "the environment variable %q is not set (a dollar sign is written $$)", name)
		}
		out.WriteString(value)
	}
}

func isVariable(c byte, first bool) bool {
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || !first && c >= '0' && c <= '9'
}

// suggest names a known key that is close to a misspelt one.
func suggest(key string, known map[string]func(*yaml.Node)) string {
	best, distance := "", 3
	for candidate := range known {
		d := edits(key, candidate)
		if len(key) >= 4 && strings.HasPrefix(candidate, key) {
			d = 1
		}
		if d < distance || d == distance && candidate < best {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// edits is the number of characters to insert, drop or replace between a
// and b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
