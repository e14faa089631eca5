package build

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// isPattern reports whether a source has characters of a pattern.
func isPattern(source string) bool { return strings.ContainsAny(source, "*?[") }

// match is one file that a pattern found.
type match struct {
	path     string // on this machine
	relative string // below the pattern's fixed part
}

// glob finds the files of a pattern below dir: *, ? and [...] match within one
// name, ** any number of directories. Directories themselves do not match.
// The result is sorted.
func glob(dir, pattern string) ([]match, error) {
	if strings.Contains(pattern, "{") {
		return nil, fmt.Errorf("alternatives {…} in a pattern are not supported: write two entries")
	}
	segments := strings.Split(filepath.ToSlash(filepath.Clean(pattern)), "/")
	fixed := slices.IndexFunc(segments, isPattern)
	base := strings.Join(segments[:fixed], "/")
	switch {
	case base == "" && path.IsAbs(pattern):
		base = "/"
	case !path.IsAbs(base):
		base = filepath.Join(dir, base)
	}
	segments = segments[fixed:]
	for _, segment := range segments {
		if _, err := path.Match(segment, ""); err != nil {
			return nil, fmt.Errorf("the pattern %q is malformed", pattern)
		}
	}
	var found []match
	err := filepath.WalkDir(base, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			return nil // a link to a directory
		}
		relative, err := filepath.Rel(base, file)
		if err != nil {
			return err
		}
		if relative = filepath.ToSlash(relative); matches(segments, strings.Split(relative, "/")) {
			found = append(found, match{file, relative})
		}
		return nil
	})
	return found, err
}

// matches compares the segments of a pattern, which are well-formed, and of a
// path.
func matches(pattern, names []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for skip := range len(names) + 1 {
				if matches(pattern[1:], names[skip:]) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], names[0]); err != nil || !ok {
			return false
		}
		pattern, names = pattern[1:], names[1:]
	}
	return len(names) == 0
}
