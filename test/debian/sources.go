package debian

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// readSources reads apt's sources below root in the order in which apt does:
// sources.list, then the files of sources.list.d by name.
func readSources(root string) ([]source, error) {
	paths := []string{filepath.Join(root, "etc/apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		more, err := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("cannot list apt's sources: %w", err)
		}
		paths = append(paths, more...)
	}
	sort.SliceStable(paths[1:], func(i, j int) bool { return paths[1+i] < paths[1+j] })

	var all []source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read apt's sources: %w", err)
		}
		parse := parseOneLine
		if strings.HasSuffix(path, ".sources") {
			parse = parseDeb822
		}
		for _, s := range parse(string(text)) {
			uris, err := expandMirrorList(root, s.uri)
			if err != nil {
				return nil, fmt.Errorf("cannot read the mirror list named in %s: %w", path, err)
			}
			for _, uri := range uris {
				s.uri = uri
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// parseOneLine reads the one-line format:
//
//	deb [ option=value … ] uri suite component …
func parseOneLine(text string) []source {
	var all []source
	for _, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		rest, isBinary := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !isBinary || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
			continue
		}
		rest = strings.TrimSpace(rest)
		var signedBy string
		if options, isBracketed := strings.CutPrefix(rest, "["); isBracketed {
			var closed bool
			if options, rest, closed = strings.Cut(options, "]"); !closed {
				continue
			}
			for _, option := range strings.Fields(options) {
				if name, value, _ := strings.Cut(option, "="); strings.EqualFold(name, "signed-by") {
					signedBy = value
				}
			}
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			continue
		}
		all = append(all, source{uri: words[0], suite: words[1], components: words[2:], signedBy: signedBy})
	}
	return all
}

// parseDeb822 reads the paragraphs of a .sources file. Types, URIs and Suites
// are lists; every combination is a source.
func parseDeb822(text string) []source {
	var all []source
	for _, fields := range paragraphs(text) {
		if no := strings.ToLower(fields["enabled"]); no == "no" || no == "false" || no == "0" {
			continue
		}
		isBinary := false
		for _, kind := range strings.Fields(fields["types"]) {
			isBinary = isBinary || kind == "deb"
		}
		if !isBinary {
			continue
		}
		for _, uri := range strings.Fields(fields["uris"]) {
			for _, suite := range strings.Fields(fields["suites"]) {
				all = append(all, source{
					uri:        uri,
					suite:      suite,
					components: strings.Fields(fields["components"]),
					signedBy:   strings.TrimSpace(fields["signed-by"]),
				})
			}
		}
	}
	return all
}

// paragraphs splits deb822 text into its fields, names in lower case, lines
// of comment left out.
func paragraphs(text string) []map[string]string {
	var all []map[string]string
	fields, last := map[string]string{}, ""
	for _, line := range strings.Split(text+"\n", "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			if len(fields) > 0 {
				all = append(all, fields)
			}
			fields, last = map[string]string{}, ""
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				fields[last] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, isField := strings.Cut(line, ":")
			if !isField {
				continue
			}
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.TrimSpace(value)
		}
	}
	return all
}

// expandMirrorList replaces a `mirror+file:` URI, which Debian's cloud images
// use, by the mirrors of the list it names: one URI a line, options after it.
func expandMirrorList(root, uri string) ([]string, error) {
	path, isList := strings.CutPrefix(uri, "mirror+file:")
	if !isList {
		return []string{uri}, nil
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.Clean("/"+strings.TrimLeft(path, "/"))))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			all = append(all, words[0])
		}
	}
	return all, nil
}
