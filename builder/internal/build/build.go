// Package build makes a .deb from a manifest.
//
// A package depends on its sources and on the manifest alone: entries are
// sorted, owned by root, and carry the time of SOURCE_DATE_EPOCH, else of the
// commit, else 2020-01-01; modes do not depend on the checkout's umask. Two
// builds of one commit are identical byte for byte, wherever they happen.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
)

// Options say what to build.
type Options struct {
	Source  string // a directory with a manifest, or a manifest
	Arch    string // instead of the manifest's; "" keeps it
	Version string // instead of the manifest's and git's; "" keeps them
	Output  string // directory for the package; it is made if it is missing
	Env     func(string) (string, bool)
	// Progress, if not nil, is told how many bytes of contents were read, of
	// how many.
	Progress func(done, total int64)
}

// Result is a package that was built. Its JSON is the output of
// "builder build --json".
type Result struct {
	File         string   `json:"file"` // path of the .deb
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Architecture string   `json:"architecture"`
	Size         int64    `json:"size"` // bytes
	SHA256       string   `json:"sha256"`
	Commit       string   `json:"commit,omitempty"` // 40 hex digits, "+dirty" if files differ from it
	Units        []string `json:"units,omitempty"`  // systemd units the scripts care for
	Warnings     []string `json:"warnings,omitempty"`
}

// Build makes the package. The file appears whole or not at all.
func Build(ctx context.Context, o Options) (Result, error) {
	file, err := manifestFile(o.Source)
	if err != nil {
		return Result{}, err
	}
	m, err := manifest.Read(file, o.Env)
	if err != nil {
		return Result{}, err
	}
	if o.Arch != "" {
		m.Arch = manifest.Architecture(o.Arch)
		if err := deb.ValidArchitecture(m.Arch); err != nil {
			return Result{}, err
		}
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return Result{}, fmt.Errorf("cannot build package: %w", err)
	}
	c, err := collect(m, dir)
	if err != nil {
		return Result{}, err
	}
	origin, err := trace(ctx, o, c, file)
	if err != nil {
		return Result{}, err
	}
	spec, units, err := specify(c, origin)
	if err != nil {
		return Result{}, err
	}
	result := Result{
		File:         filepath.Join(o.Output, deb.FileName(m.Name, origin.version, m.Arch)),
		Name:         m.Name,
		Version:      origin.version,
		Architecture: m.Arch,
		Commit:       origin.commit,
		Warnings:     warnings(m, c.entries),
	}
	for _, u := range units {
		result.Units = append(result.Units, u.name)
	}
	if err := os.MkdirAll(o.Output, 0o755); err != nil {
		return Result{}, fmt.Errorf("cannot write package: %w", err)
	}
	// data.tar is collected beside the package: /tmp may be memory.
	spec.TempDir = o.Output
	watch(ctx, spec.Entries, o.Progress)
	if err := write(&result, spec); err != nil {
		return Result{}, err
	}
	return result, nil
}

// manifestFile finds the manifest of a source.
func manifestFile(source string) (string, error) {
	info, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("cannot build %s: %w", source, err)
	}
	if !info.IsDir() {
		return source, nil
	}
	file := filepath.Join(source, manifest.FileName)
	if _, err := os.Stat(file); err != nil {
		return "", advise(fmt.Errorf("cannot build %s: it has no %s", source, manifest.FileName), "give the path of another manifest, such as nfpm.yaml")
	}
	return file, nil
}

// specify puts the parts of the package together.
func specify(c *collector, from origin) (debwriter.Spec, []unit, error) {
	m := c.m
	if err := lint(c); err != nil {
		return debwriter.Spec{}, nil, err
	}
	docs, err := documents(c, from.version, from.commit, from.time)
	if err != nil {
		return debwriter.Spec{}, nil, err
	}
	units, err := findUnits(m, c.entries)
	if err != nil {
		return debwriter.Spec{}, nil, err
	}
	scripts, err := maintainerScripts(m, c.dir, serviceSnippets(units, c.entries))
	if err != nil {
		return debwriter.Spec{}, nil, err
	}
	control, err := controlStanza(m, from.version, from.commit)
	if err != nil {
		return debwriter.Spec{}, nil, err
	}
	files := map[string][]byte{}
	if len(m.Triggers) > 0 {
		files["triggers"] = []byte(strings.Join(m.Triggers, "\n") + "\n")
	}
	if templates := m.Scripts["templates"]; templates != "" {
		if files["templates"], err = readScript(c.dir, templates); err != nil {
			return debwriter.Spec{}, nil, fmt.Errorf("cannot use the templates %s: %w", templates, err)
		}
	}
	return debwriter.Spec{
		Control:      control,
		Scripts:      scripts,
		ControlFiles: files,
		Entries:      append(c.entries, docs...),
		ModTime:      from.time,
		Compression:  debwriter.Compression(m.Compression),
	}, units, nil
}

// write makes the file and fills in its size and hash.
func write(result *Result, spec debwriter.Spec) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(debwriter.Write(w, spec))
	}()
	sum := sha256.New()
	counter := &counter{w: sum}
	err := atomicfile.WriteFrom(result.File, io.TeeReader(r, counter), 0o644)
	// A failed write must not leave debwriter.Write waiting for a reader.
	err = errors.Join(err, r.Close())
	<-done
	if err != nil {
		return err
	}
	result.Size, result.SHA256 = counter.n, hex.EncodeToString(sum.Sum(nil))
	return nil
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}
