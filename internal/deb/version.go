package deb

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Version is a version number in its three parts (Policy 5.6.12).
type Version struct {
	Epoch    int
	Upstream string
	Revision string // "" if there is none
}

// String returns the version in its shortest form: an epoch of zero and an
// empty revision are left out.
func (v Version) String() string {
	s := v.Upstream
	if v.Epoch != 0 {
		s = strconv.Itoa(v.Epoch) + ":" + s
	}
	if v.Revision != "" {
		s += "-" + v.Revision
	}
	return s
}

// ParseVersion reads a version number by the letter of Policy 5.6.12: the
// upstream part starts with a digit; a colon needs an epoch before it, a
// hyphen a revision behind it.
func ParseVersion(s string) (Version, error) {
	fail := func(reason string) (Version, error) {
		return Version{}, fmt.Errorf("cannot parse version %q: %s", s, reason)
	}
	var v Version
	rest := s
	if epoch, after, found := strings.Cut(s, ":"); found {
		n, err := strconv.ParseUint(epoch, 10, 64)
		if err != nil {
			return fail("the epoch is not a number")
		}
		if n > math.MaxInt32 {
			return fail("the epoch is too large")
		}
		v.Epoch, rest = int(n), after
	}
	v.Upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		v.Upstream, v.Revision = rest[:i], rest[i+1:]
		if v.Revision == "" {
			return fail("the revision after the last hyphen is empty")
		}
	}
	if v.Upstream == "" {
		return fail("the upstream part is empty")
	}
	if !isDigit(v.Upstream[0]) {
		return fail("the upstream part must start with a digit")
	}
	for i := range len(v.Upstream) {
		if c := v.Upstream[i]; !isAlphanumeric(c) && !strings.ContainsRune(".+-~:", rune(c)) {
			return fail(fmt.Sprintf("%q is not allowed in the upstream part", c))
		}
	}
	for i := range len(v.Revision) {
		if c := v.Revision[i]; !isAlphanumeric(c) && !strings.ContainsRune(".+~", rune(c)) {
			return fail(fmt.Sprintf("%q is not allowed in the revision", c))
		}
	}
	return v, nil
}

// Compare orders two version numbers as dpkg does and returns a negative
// number, zero or a positive number. It never fails: text that is no valid
// version is ordered by the same rules. Digit runs may have any length.
func Compare(a, b string) int {
	aEpoch, aUpstream, aRevision := splitVersion(a)
	bEpoch, bUpstream, bRevision := splitVersion(b)
	if order := comparePart(aEpoch, bEpoch); order != 0 {
		return order
	}
	if order := comparePart(aUpstream, bUpstream); order != 0 {
		return order
	}
	return comparePart(aRevision, bRevision)
}

// splitVersion cuts at the first colon, if only digits stand before it, and
// at the last hyphen.
func splitVersion(s string) (epoch, upstream, revision string) {
	upstream = strings.TrimSpace(s)
	if before, after, found := strings.Cut(upstream, ":"); found && before != "" && strings.Trim(before, "0123456789") == "" {
		epoch, upstream = before, after
	}
	if i := strings.LastIndexByte(upstream, '-'); i >= 0 {
		upstream, revision = upstream[:i], upstream[i+1:]
	}
	return epoch, upstream, revision
}

// comparePart compares alternating runs of non-digits, by weight, and of
// digits, by value.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !isDigit(a[0])) || (b != "" && !isDigit(b[0])) {
			if order := weight(a) - weight(b); order != 0 {
				return order
			}
			a, b = a[1:], b[1:]
		}
		var aRun, bRun string
		aRun, a = cutDigits(a)
		bRun, b = cutDigits(b)
		if order := len(aRun) - len(bRun); order != 0 {
			return order
		}
		if order := strings.Compare(aRun, bRun); order != 0 {
			return order
		}
	}
	return 0
}

// weight is how the first character of s sorts against others outside a run
// of digits: a tilde before everything, even the end; letters before all
// other characters.
func weight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case isLetter(s[0]):
		return int(s[0])
	}
	return int(s[0]) + 256
}

// cutDigits returns the digits s starts with, without leading zeros, and what
// follows them.
func cutDigits(s string) (run, rest string) {
	end := 0
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	return strings.TrimLeft(s[:end], "0"), s[end:]
}

// Satisfies reports whether version stands in the relation op ("<<", "<=",
// "=", ">=", ">>", or "" for any) to wanted. An unknown op is never satisfied.
func Satisfies(version, op, wanted string) bool {
	order := Compare(version, wanted)
	switch op {
	case "":
		return true
	case "<<":
		return order < 0
	case "<=":
		return order <= 0
	case "=":
		return order == 0
	case ">=":
		return order >= 0
	case ">>":
		return order > 0
	}
	return false
}

func isDigit(c byte) bool        { return c >= '0' && c <= '9' }
func isLetter(c byte) bool       { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlphanumeric(c byte) bool { return isDigit(c) || isLetter(c) }
