package build

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/debwriter"
)

// commonLicenses are the texts every Debian system has, by SPDX identifier.
var commonLicenses = map[string]string{
	"Apache-2.0": "Apache-2.0", "Artistic-1.0": "Artistic", "BSD-3-Clause": "BSD", "CC0-1.0": "CC0-1.0",
	"GPL-1.0": "GPL-1", "GPL-2.0": "GPL-2", "GPL-3.0": "GPL-3", "LGPL-2.0": "LGPL-2", "LGPL-2.1": "LGPL-2.1", "LGPL-3.0": "LGPL-3",
	"MPL-1.1": "MPL-1.1", "MPL-2.0": "MPL-2.0",
}

// documents returns the two files that Policy 12.5 and 12.7 ask every package
// for, unless the manifest brings them.
func documents(c *collector, version string, commit string, at time.Time) ([]debwriter.Entry, error) {
	dir := "/usr/share/doc/" + c.m.Name + "/"
	changelog := dir + "changelog.gz"
	if strings.Contains(version, "-") { // with a revision the upstream has the plain name
		changelog = dir + "changelog.Debian.gz"
	}
	var entries []debwriter.Entry
	if !c.has(dir + "copyright") {
		entries = append(entries, memoryEntry(dir+"copyright", []byte(copyrightText(c.m, at))))
	}
	if !c.has(changelog) {
		packed, err := gzipped(changelogText(c.m, version, commit, at))
		if err != nil {
			return nil, fmt.Errorf("cannot write %s: %w", changelog, err)
		}
		entries = append(entries, memoryEntry(changelog, packed))
	}
	return entries, nil
}

// copyrightText follows the machine-readable format 1.0.
func copyrightText(m *manifest.Manifest, at time.Time) string {
	var b strings.Builder
	b.WriteString("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: " + m.Name + "\n")
	if m.Homepage != "" {
		b.WriteString("Source: " + m.Homepage + "\n")
	}
	owner := m.Vendor
	if owner == "" {
		owner = m.Maintainer
	}
	license := strings.Join(strings.Fields(m.License), "-")
	if license == "" {
		license = "unspecified"
	}
	fmt.Fprintf(&b, "\nFiles: *\nCopyright: %d %s\nLicense: %s\n", at.Year(), owner, license)
	base := strings.TrimSuffix(strings.TrimSuffix(license, "-only"), "-or-later")
	switch text, common := commonLicenses[base]; {
	case common:
		fmt.Fprintf(&b, " On Debian systems the full text is in /usr/share/common-licenses/%s.\n", text)
	case m.License == "":
		b.WriteString(" No license is stated; ask the maintainer of this package.\n")
	default:
		fmt.Fprintf(&b, " The package is distributed under the terms of %s.\n", m.License)
	}
	return b.String()
}

func changelogText(m *manifest.Manifest, version, commit string, at time.Time) string {
	what := "Build of version " + version + "."
	if commit != "" {
		what = "Build of commit " + commit + "."
	}
	return fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n", m.Name, version, what, m.Maintainer, at.UTC().Format(time.RFC1123Z))
}

// gzipped compresses like gzip -9n: no name and no time in it.
func gzipped(text string) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// memoryEntry is a file whose content the builder made.
func memoryEntry(path string, content []byte) debwriter.Entry {
	return debwriter.Entry{
		Path: path,
		Mode: fs.FileMode(0o644),
		Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}
