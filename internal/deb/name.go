package deb

import (
	"fmt"
	"strings"
)

// MaxFileName is how many bytes the name that FileName makes may have, as file
// systems limit it.
const MaxFileName = 255

const maxName = 128 // characters of a name, a version, an architecture

// ValidPackageName reports why s cannot be the name of a package (Policy
// 5.6.7): lower-case letters, digits, plus, minus and full stop, at least two
// characters, starting with a letter or digit.
func ValidPackageName(s string) error {
	fail := func(reason string) error { return fmt.Errorf("cannot use package name %q: %s", shorten(s), reason) }
	switch {
	case len(s) < 2:
		return fail("it must have at least two characters")
	case len(s) > maxName:
		return fail(fmt.Sprintf("it has more than %d characters", maxName))
	case !isLowerAlphanumeric(s[0]):
		return fail("it must start with a lower-case letter or a digit")
	}
	for i := range len(s) {
		if c := s[i]; !isLowerAlphanumeric(c) && c != '+' && c != '-' && c != '.' {
			return fail(fmt.Sprintf("%q is not allowed in it", c))
		}
	}
	return nil
}

// ValidArchitecture reports why s cannot be the architecture of a binary
// package: lower-case letters, digits and minus. Wildcards such as "any" are
// refused; "all" is accepted.
func ValidArchitecture(s string) error {
	fail := func(reason string) error { return fmt.Errorf("cannot use architecture %q: %s", shorten(s), reason) }
	switch {
	case s == "":
		return fail("it is empty")
	case len(s) > maxName:
		return fail(fmt.Sprintf("it has more than %d characters", maxName))
	case !isLowerAlphanumeric(s[0]):
		return fail("it must start with a lower-case letter or a digit")
	case s == "any" || s == "source" || strings.HasPrefix(s, "any-") || strings.HasSuffix(s, "-any"):
		return fail("a binary package has one architecture, or all")
	}
	for i := range len(s) {
		if c := s[i]; !isLowerAlphanumeric(c) && c != '-' {
			return fail(fmt.Sprintf("%q is not allowed in it", c))
		}
	}
	return nil
}

// FileName returns the conventional name of a package's file, in which the
// version stands without its epoch.
func FileName(name, version, arch string) string {
	if epoch, upstream, revision := splitVersion(version); epoch != "" {
		version = upstream
		if revision != "" {
			version += "-" + revision
		}
	}
	return name + "_" + version + "_" + arch + ".deb"
}

func isLowerAlphanumeric(c byte) bool { return isDigit(c) || (c >= 'a' && c <= 'z') }

// shorten keeps foreign text in messages to one readable line.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
