package aptroot

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"aptfleet/internal/deb"
)

// Package is one entry of the exact list of a release.
type Package struct {
	Name         string `json:"name"`
	Architecture string `json:"architecture"` // may be "all"
	Version      string `json:"version"`
	SHA256       string `json:"sha256,omitempty"` // lower-case hex; "" where only dpkg was asked
	Size         int64  `json:"size,omitempty"`   // bytes
	File         string `json:"file,omitempty"`   // apt's name of the file in its cache
	Local        string `json:"local,omitempty"`  // path of the .deb, where it is not one of the archive
}

// String returns name:arch=version.
func (p Package) String() string { return p.Name + ":" + p.Architecture + "=" + p.Version }

// Argument is how apt-get install is told exactly this package. Packages for
// all architectures go by their bare name, local ones by their file.
func (p Package) Argument() string {
	if p.Local != "" {
		return p.Local
	}
	if p.Architecture == "all" {
		return p.Name + "=" + p.Version
	}
	return p.String()
}

// Check returns why p cannot be a package.
func (p Package) Check() error {
	if err := deb.ValidPackageName(p.Name); err != nil {
		return err
	}
	if _, err := deb.ParseVersion(p.Version); err != nil {
		return err
	}
	return deb.ValidArchitecture(p.Architecture)
}

// Compare orders packages by name, architecture and version, as bytes.
func Compare(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Architecture, b.Architecture), cmp.Compare(a.Version, b.Version))
}

// UnsolvableError says that no packages of the lists are what was asked for: a
// verdict, which the same lists give again.
type UnsolvableError struct {
	Summary string // one line
	Said    string // all that apt said about it, in lines
}

func (e *UnsolvableError) Error() string { return e.Summary }

// Solve lets apt compute what the top-level packages need, with every essential
// and required package, from an empty system: so the list depends on the
// source alone and never on what was installed before. The list is sorted. If
// there is none the error has an *UnsolvableError. options are more options of
// apt-get.
func (r *Root) Solve(ctx context.Context, topLevel []string, options ...string) ([]Package, error) {
	args := slices.Concat([]string{"apt-get", "-q"}, options, []string{"--print-uris", "install", "?essential", "?priority(required)"}, topLevel)
	var out bytes.Buffer
	if err := r.Run(ctx, "solve.conf", &out, args...); err != nil {
		if isVerdict(err.Error()) {
			said := explanation(out.String(), err.Error())
			err = &UnsolvableError{Summary: summary(said, err.Error()), Said: said}
		}
		return nil, fmt.Errorf("cannot compute the packages of the release: %w", err)
	}
	list, err := ParseURIs(&out)
	if err != nil {
		return nil, err
	}
	for _, name := range topLevel {
		if !slices.ContainsFunc(list, func(p Package) bool { return p.Name == name }) {
			left := "apt left " + name + " out"
			return nil, fmt.Errorf("cannot compute the packages of the release: %w", &UnsolvableError{Summary: left, Said: left})
		}
	}
	return list, nil
}

// isVerdict tells what apt's solver says about packages from what apt says
// about the machine it runs on. The first three are of apt-get's command line
// (apt-private/private-cacheset.cc), the others of its solvers.
func isVerdict(complaint string) bool {
	for _, phrase := range []string{
		"Unable to locate package ", " has no installation candidate", "Couldn't find any package by ",
		"you have held broken packages", "Unable to satisfy dependencies", "Unmet dependencies",
	} {
		if strings.Contains(complaint, phrase) {
			return true
		}
	}
	return false
}

// explanation is what apt printed for people, without progress and without the
// paragraph that it says about every failure.
func explanation(out, complaint string) string {
	if _, after, ok := strings.Cut(out, unmet); ok {
		out = unmet + after
	}
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if line != "" && !strings.HasPrefix(line, "'") && !strings.HasSuffix(line, "...") && len(lines) < maxExplanation {
			lines = append(lines, line)
		}
	}
	return strings.Join(append(lines, complaint), "\n")
}

// unmet comes before what apt-get says of each package (ShowBroken in
// apt-private/private-output.cc).
const unmet = "The following packages have unmet dependencies:\n"

// summary is the first cause that an explanation names: apt's complaint itself
// is the same for all of them.
func summary(said, complaint string) string {
	list, ok := strings.CutPrefix(said, unmet)
	if !ok {
		return complaint
	}
	first, others, _ := strings.Cut(strings.TrimSuffix(list, complaint), "\n")
	if first = strings.TrimSpace(first); first == "" {
		return complaint
	}
	if n := strings.Count(others, "\n"); n > 0 {
		first += fmt.Sprintf(", and %d more", n)
	}
	return first
}

// maxExplanation bounds an explanation, in lines.
const maxExplanation = 200

// maxPackages bounds every list that is read.
const maxPackages = 20_000

// ParseURIs reads what `apt-get --print-uris` prints for each file to fetch,
//
//	'URI' file size SHA256:hex
//
// and returns the packages sorted. The file's name is apt's own,
// name_version_architecture.deb with %-escapes.
func ParseURIs(r io.Reader) ([]Package, error) {
	var all []Package
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "'") {
			continue // a message
		}
		fields := strings.Fields(line)
		if len(fields) != 4 {
			return nil, fmt.Errorf("cannot read apt's answer %q: it has not four fields", line)
		}
		p := Package{File: fields[1]}
		stem, ok := strings.CutSuffix(fields[1], ".deb")
		parts := strings.Split(stem, "_")
		if !ok || len(parts) != 3 || p.File != path.Base(p.File) {
			return nil, fmt.Errorf("cannot read apt's answer %q: %q is not name_version_architecture.deb", line, fields[1])
		}
		var err error
		for i, to := range []*string{&p.Name, &p.Version, &p.Architecture} {
			if *to, err = url.PathUnescape(parts[i]); err != nil {
				return nil, fmt.Errorf("cannot read apt's answer %q: %w", line, err)
			}
		}
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("cannot read apt's answer %q: %w", line, err)
		}
		if p.Size, err = strconv.ParseInt(fields[2], 10, 64); err != nil || p.Size < 0 {
			return nil, fmt.Errorf("cannot read apt's answer %q: %q is not a size", line, fields[2])
		}
		hash, ok := strings.CutPrefix(fields[3], "SHA256:")
		if raw, err := hex.DecodeString(hash); !ok || err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("cannot read apt's answer %q: the index has no SHA-256", line)
		}
		p.SHA256 = strings.ToLower(hash)
		if all = append(all, p); len(all) > maxPackages {
			return nil, fmt.Errorf("cannot read apt's answer: more than %d packages", maxPackages)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read apt's answer: %w", err)
	}
	slices.SortFunc(all, Compare)
	return all, nil
}
