package api

import (
	"net/http"
	"slices"
	"sync"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/mirror"
	"aptfleet/repo-manager/internal/release"
)

// toMirror leaves the keyrings out: they are large, and every command lists
// the pipelines.
func toMirror(m release.MirrorConfig) *protocol.Mirror {
	return &protocol.Mirror{
		Suites: list(m.Suites, func(s release.MirrorSuite) protocol.MirrorSuite {
			return protocol.MirrorSuite{URL: s.URL, Suite: s.Suite, Components: s.Components, Priority: s.Priority}
		}),
		Packages: m.Packages, Filter: m.Filter, FilterDeps: m.FilterDeps, All: m.All, Recommends: m.Recommends,
	}
}

func fromMirror(m protocol.Mirror) release.MirrorConfig {
	return release.MirrorConfig{
		Suites: list(m.Suites, func(s protocol.MirrorSuite) release.MirrorSuite {
			return release.MirrorSuite{URL: s.URL, Suite: s.Suite, Components: s.Components, Priority: s.Priority, Keyring: s.Keyring}
		}),
		Packages: m.Packages, Filter: m.Filter, FilterDeps: m.FilterDeps, All: m.All, Recommends: m.Recommends,
	}
}

func createMirror(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Component
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	if in.Mirror == nil {
		return 0, nil, invalid("send: {name, mirror: {suites: [{url, suite, components, keyring}], packages}}", "cannot create mirror %q: the request does not say of what", in.Name)
	}
	component, err := s.Releases.CreateMirror(c.Request.Context(), who.Actor(), c.Param("p"), in.Name, fromMirror(*in.Mirror))
	return http.StatusCreated, toComponent(component), err
}

func getMirror(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	component, err := s.mirror(c)
	return http.StatusOK, toComponent(component), err
}

// setMirror replaces what a mirror takes from where. Keyrings that the request
// leaves out stay. With dry-run=1 it only tells what would be.
func setMirror(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	var in protocol.Mirror
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	before, err := s.mirror(c)
	if err != nil {
		return 0, nil, err
	}
	config := fromMirror(in)
	for i := range config.Suites {
		if len(config.Suites[i].Keyring) == 0 {
			config.Suites[i].Keyring = keyringOf(*before.Mirror, config.Suites[i])
		}
	}
	component, err := s.Releases.SetMirror(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("m"), config, dryRun)
	return http.StatusOK, toComponent(component), err
}

// keyringOf is what a mirror verifies a suite with: so far, or another suite of
// the same archive, or the suite of that name of another archive.
func keyringOf(m release.MirrorConfig, wanted release.MirrorSuite) []byte {
	for _, fits := range []func(release.MirrorSuite) bool{
		func(s release.MirrorSuite) bool { return s.URL == wanted.URL && s.Suite == wanted.Suite },
		func(s release.MirrorSuite) bool { return s.URL == wanted.URL },
		func(s release.MirrorSuite) bool { return s.Suite == wanted.Suite },
	} {
		if i := slices.IndexFunc(m.Suites, fits); i >= 0 {
			return m.Suites[i].Keyring
		}
	}
	return nil
}

// mirror finds the mirror that a request is about.
func (s *server) mirror(c *gin.Context) (release.Component, error) {
	p, err := s.Releases.Pipeline(c.Request.Context(), c.Param("p"))
	if err != nil {
		return release.Component{}, err
	}
	for _, component := range p.Components {
		if component.Name == c.Param("m") && component.Mirror != nil {
			return component, nil
		}
	}
	return release.Component{}, notFound("repo-manager mirror list", "mirror", c.Param("m"))
}

func updateMirror(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.MirrorUpdate
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	change, err := s.Mirrors.Update(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("m"), mirror.Options{AllowRebuilt: in.AllowRebuilt})
	return http.StatusAccepted, toChange(change), err
}

// diffMirror asks upstream, and stops when its client leaves. It answers when
// it is done; a client that accepts lines is told meanwhile how far it is.
func diffMirror(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	if !wantsLines(c) {
		preview, err := s.Mirrors.Diff(c.Request.Context(), c.Param("p"), c.Param("m"), &diffProgress{})
		return http.StatusOK, toMirrorDiff(preview), err
	}
	lines, ctx, cancel := s.lines(c)
	defer cancel()
	progress := &diffProgress{lines: lines}
	preview, err := s.Mirrors.Diff(ctx, c.Param("p"), c.Param("m"), progress)
	last := protocol.MirrorDiffLine{}
	if err != nil {
		c.Set(keyError, err)
		_, body := told(c, err)
		last.Error = &body
	} else {
		diff := toMirrorDiff(preview)
		last.Diff = &diff
	}
	progress.end(last)
	return 0, nil, nil
}

func toMirrorDiff(p mirror.Preview) protocol.MirrorDiff {
	return protocol.MirrorDiff{
		Releases: list(p.Releases, func(r mirror.Release) protocol.UpstreamRelease {
			return protocol.UpstreamRelease{URL: r.URL, Date: r.Date.UTC(), Signer: r.Signer}
		}),
		Packages: p.Packages, Download: p.Download, Differences: list(p.Differences, toDifference),
	}
}

// diffProgress is a mirror.Progress that tells who listens.
type diffProgress struct {
	lines *lines // nil: nobody does

	mu   sync.Mutex
	line protocol.MirrorDiffLine
}

func (p *diffProgress) Total(n int64, unit string) {
	p.update(func() { p.line.Total, p.line.Unit = n, unit })
}

func (p *diffProgress) Add(n int64) { p.update(func() { p.line.Done += n }) }

func (p *diffProgress) Logf(string, ...any) {}

func (p *diffProgress) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.lines.progress(p.line)
}

// end writes the line that ends the answer.
func (p *diffProgress) end(line protocol.MirrorDiffLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line.Done, line.Total, line.Unit = p.line.Done, p.line.Total, p.line.Unit
	p.lines.end(line)
}
