package build

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"aptfleet/builder/internal/gitversion"
	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/deb"
)

// constantTime is the time of a package that has no other.
var constantTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// origin is what a package is a build of.
type origin struct {
	version string
	commit  string // "" without git
	time    time.Time
}

// trace finds version, commit and time.
func trace(ctx context.Context, o Options, c *collector, file string) (origin, error) {
	out := origin{time: constantTime}
	sources, err := c.realSources(file)
	if err != nil {
		return origin{}, err
	}
	version := gitversion.Normalise(c.m.Version)
	commit, err := gitversion.Inspect(ctx, c.dir, sources)
	switch {
	case err == nil:
		out.commit, out.time = commit.Hash, commit.Time
		if commit.Dirty {
			out.commit += "+dirty"
		}
		if version == "" && o.Version == "" {
			version, err = commit.Version(ctx)
		}
	case ctx.Err() != nil:
		return origin{}, ctx.Err()
	case version != "" || o.Version != "":
		err = nil // the package does without a commit
	}
	if err != nil {
		hint := "give --version, or set version in " + c.m.File
		if errors.Is(err, gitversion.ErrShallow) {
			hint = "git fetch --unshallow --tags, or give --version"
		}
		return origin{}, advise(fmt.Errorf("cannot find a version for %s, which its manifest does not give: %w", c.m.Name, err), hint)
	}
	if epoch, set := o.Env("SOURCE_DATE_EPOCH"); set {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || seconds < 0 {
			return origin{}, fmt.Errorf("cannot build package: SOURCE_DATE_EPOCH is %q, want seconds since 1970", epoch)
		}
		out.time = time.Unix(seconds, 0).UTC()
	}
	out.version = gitversion.Normalise(o.Version)
	if o.Version == "" {
		out.version = decorated(version, c.m)
	}
	if _, err := deb.ParseVersion(out.version); err != nil {
		return origin{}, fmt.Errorf("cannot build %s: %w", c.m.Name, err)
	}
	return out, nil
}

// decorated adds the manifest's epoch, prerelease, version_metadata and
// release to a version.
func decorated(version string, m *manifest.Manifest) string {
	if m.Prerelease != "" {
		version += "~" + m.Prerelease
	}
	if m.Metadata != "" {
		version += "+" + m.Metadata
	}
	if m.Release != "" {
		version += "-" + m.Release
	}
	if m.Epoch != "" {
		version = m.Epoch + ":" + version
	}
	return version
}

// realSources returns all files the package is made of, as git knows them:
// absolute and without symbolic links.
func (c *collector) realSources(file string) ([]string, error) {
	sources := append([]string{file}, c.sources...)
	for _, script := range c.m.Scripts {
		sources = append(sources, c.source(script))
	}
	for i := range sources {
		absolute, err := filepath.Abs(sources[i])
		if err != nil {
			return nil, fmt.Errorf("cannot build package: %w", err)
		}
		if resolved, err := filepath.EvalSymlinks(absolute); err == nil {
			absolute = resolved // what is not there is missed when it is read
		}
		sources[i] = absolute
	}
	return sources, nil
}
