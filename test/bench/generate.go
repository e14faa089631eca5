package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"aptfleet/internal/deb"
)

// seed decides everything that is drawn.
const seed = 20261120

// generated returns n packages like those of a Debian release: names over the
// whole alphabet with many lib*, stanzas of several hundred bytes with
// dependencies on each other. The same n gives the same bytes, and the first
// packages of a larger n are those of a smaller one but for dependencies.
func generated(ctx context.Context, n int, as members, cache string, workers int) (*corpus, error) {
	names := drawNames(n)
	c := &corpus{label: as.label("generated"), count: n, as: as, stanza: func(i int) (deb.Stanza, error) { return drawStanza(names, i) }, close: func() error { return nil }}
	return c, c.fill(ctx, cache, fmt.Sprintf("generated %d %d", seed, n), workers)
}

var (
	onsets = []string{"b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "q", "r", "s", "t", "v", "w", "x", "y", "z", "", "br", "ch", "gn", "gr", "pl", "sh", "st", "th", "tr"}
	vowels = []string{"a", "e", "i", "o", "u", "ai", "ee", "io", "ou"}
	codas  = []string{"", "", "", "c", "d", "k", "l", "m", "n", "p", "r", "s", "t", "x", "ck", "ll", "nt", "rd", "st"}
	fills  = []string{
		"library", "tool", "fast", "small", "data", "format", "reading", "writing", "network", "files", "support", "with", "for", "the", "and",
		"interface", "module", "shared", "common", "device", "protocol", "server", "client", "analysis", "text", "images", "audio", "simple", "of", "from",
	}
	sections = []string{"libs", "libdevel", "python", "perl", "golang", "utils", "net", "admin", "devel", "doc", "science", "games", "sound", "graphics"}
)

func word(r *rand.Rand) string {
	var b strings.Builder
	for range 2 + r.IntN(2) {
		b.WriteString(onsets[r.IntN(len(onsets))] + vowels[r.IntN(len(vowels))] + codas[r.IntN(len(codas))])
	}
	return b.String()
}

// drawNames draws n distinct names. About a third begin with lib, as in
// Debian, and some with a digit.
func drawNames(n int) []string {
	r := rand.New(rand.NewPCG(seed, 0))
	names, taken := make([]string, 0, n), make(map[string]bool, n)
	for len(names) < n {
		name := word(r)
		switch k := r.IntN(100); {
		case k < 12:
			name = fmt.Sprintf("lib%s%d", name, r.IntN(9))
		case k < 22:
			name = "lib" + name + "-dev"
		case k < 30:
			name = "lib" + name + "-perl"
		case k < 37:
			name = "python3-" + name
		case k < 41:
			name = "golang-github-" + name + "-dev"
		case k < 55:
			name += "-" + word(r)
		case k < 57:
			name = fmt.Sprintf("%d%s", r.IntN(10), name)
		}
		if !taken[name] {
			taken[name] = true
			names = append(names, name)
		}
	}
	return names
}

// drawStanza draws the rest of package i.
func drawStanza(names []string, i int) (deb.Stanza, error) {
	r := rand.New(rand.NewPCG(seed, uint64(i)+1))
	name := names[i]
	depends := []string{"libc6 (>= 2.36)"}
	for range 2 + r.IntN(6) {
		on := names[r.IntN(len(names))]
		if r.IntN(2) == 0 {
			on = fmt.Sprintf("%s (>= %d.%d)", on, r.IntN(9), r.IntN(40))
		}
		depends = append(depends, on)
	}
	architecture := "amd64"
	if r.IntN(4) == 0 {
		architecture = "all"
	}
	words := func(n int) string {
		all := make([]string, n)
		for k := range all {
			all[k] = fills[r.IntN(len(fills))]
		}
		return strings.Join(all, " ")
	}
	text := fmt.Sprintf(`Package: %s
Source: %s-src
Version: %d.%d.%d-%d
Architecture: %s
Maintainer: %s Maintainers <%s@lists.test.example>
Installed-Size: %d
Depends: %s
Section: %s
Priority: optional
Homepage: https://%s.test.example/
Description: %s
 %s
 %s.
`, name, name, r.IntN(10), r.IntN(30), r.IntN(20), 1+r.IntN(8), architecture, strings.ToUpper(name[:1])+name[1:], name, 20+r.IntN(9000),
		strings.Join(depends, ", "), sections[r.IntN(len(sections))], name, words(5), words(10), words(8))
	return deb.ParseStanza([]byte(text))
}
