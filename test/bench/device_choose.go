package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/deb"
	"aptfleet/test/debian"
)

// What a device might have and this machine can fetch in little time: the
// sections of Debian whose packages are looked at, how large one may be, and how
// many come from one source.
var chosenSections = []string{"libs", "utils", "httpd", "php", "graphics", "ruby", "python"}

const (
	chosenSize   = 8 << 20
	chosenSource = 10
)

// chooseUpdates names packages of trixie's point release that together have so
// many security updates: with what they need, as apt installs it.
func chooseUpdates(ctx context.Context, cache, scratch string, updates int) (chosen []string, err error) {
	fail := func(err error) ([]string, error) { return nil, fmt.Errorf("cannot choose packages: %w", err) }
	mirror, _, err := debian.Mirror()
	if err != nil {
		return fail(err)
	}
	security, _, err := debian.Security()
	if err != nil {
		return fail(err)
	}
	release, err := fetchIndex(ctx, cache, mirror+"/dists/"+distribution)
	if err != nil {
		return fail(err)
	}
	newer, err := fetchIndex(ctx, cache, security+"/dists/"+distribution+"-security")
	if err != nil {
		return fail(err)
	}
	versions := make(map[string]string)
	if err := eachStanza(release, func(s deb.Stanza) { versions[s.Get("Package")] = s.Get("Version") }); err != nil {
		return fail(err)
	}
	type candidate struct{ name, source string }
	var candidates []candidate
	updated := make(map[string]bool)
	if err := eachStanza(newer, func(s deb.Stanza) {
		name := s.Get("Package")
		old, known := versions[name]
		if !known || deb.Compare(s.Get("Version"), old) <= 0 {
			return
		}
		updated[name] = true
		size, err := strconv.Atoi(s.Get("Size"))
		if err != nil || size > chosenSize || !slices.Contains(chosenSections, s.Get("Section")) {
			return
		}
		source, _, _ := strings.Cut(s.Get("Source"), " ")
		if source == "libreoffice" || strings.HasSuffix(name, "-dev") {
			return // no device has an office suite or builds programs, and they bring much along
		}
		candidates = append(candidates, candidate{name, source})
	}); err != nil {
		return fail(err)
	}
	root, err := aptroot.NewOffline(scratch, architecture, []string{component}, func(_ string, w io.Writer) error {
		_, err := w.Write(release)
		return err
	})
	if err != nil {
		return fail(err)
	}
	of := make(map[string]int)
	for _, c := range candidates {
		if of[c.source] == chosenSource {
			continue
		}
		list, err := root.Solve(ctx, append(slices.Clip(chosen), c.name))
		var verdict *aptroot.UnsolvableError
		if errors.As(err, &verdict) {
			continue // it does not go with those that were chosen before
		}
		if err != nil {
			return fail(err)
		}
		chosen = append(chosen, c.name)
		of[c.source]++
		count := 0
		for _, p := range list {
			if updated[p.Name] {
				count++
			}
		}
		if count >= updates {
			return chosen, os.RemoveAll(scratch)
		}
	}
	return fail(fmt.Errorf("Debian has no %d security updates now that go together; ask for less", updates))
}

// fetchIndex returns the list of packages of a suite's main.
func fetchIndex(ctx context.Context, cache, dists string) ([]byte, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(cache, filepath.Base(dists)+"-Packages.xz")
	r := new(runner)
	if _, err := r.run(ctx, "/", "/usr/lib/apt/apt-helper", "download-file", dists+"/"+component+"/binary-"+architecture+"/Packages.xz", file); err != nil {
		return nil, err
	}
	text, err := r.run(ctx, "/", "xz", "--decompress", "--stdout", file)
	return []byte(text), err
}

func eachStanza(text []byte, each func(deb.Stanza)) error {
	for r := deb.NewStanzaReader(bytes.NewReader(text), deb.MaxStanza); ; {
		stanza, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		each(stanza)
	}
}
