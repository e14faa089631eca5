package release

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// validName is what pipelines, stages and distributions may be called: they
// are directories, words of sources.list and parts of URLs. None can be
// mistaken for a snapshot's id, which begins with a digit.
var validName = regexp.MustCompile(`^[a-z][a-z0-9+.-]{0,62}$`)

// Names that have a meaning of their own in the published tree.
var (
	reservedPipelines = []string{"pool", "archive-keyring.asc", "archive-keyring.deb", "ca.pem", "device", "healthz", "api"}
	reservedStages    = []string{"pool", "dists", "snapshots", "states", "boms"}
)

// Pipelines lists all pipelines by name.
func (e *Engine) Pipelines(context.Context) ([]Pipeline, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	pipelines := make([]Pipeline, 0, len(e.lines))
	for _, l := range e.lines {
		pipelines = append(pipelines, l.Pipeline)
	}
	slices.SortFunc(pipelines, func(a, b Pipeline) int { return cmp.Compare(a.Name, b.Name) })
	return pipelines, nil
}

// Pipeline returns one pipeline.
func (e *Engine) Pipeline(_ context.Context, name string) (Pipeline, error) {
	l, err := e.line(name)
	if err != nil {
		return Pipeline{}, err
	}
	return l.Pipeline, nil
}

// CreatePipeline creates a pipeline without components, and publishes its
// first stage. Name, Distribution, Architectures, Stages, Retention and Private
// are taken from p; without stages it gets dev, canary and production, without
// retention the default one. Retention and Private can be changed later.
func (e *Engine) CreatePipeline(ctx context.Context, a Actor, p Pipeline) (Pipeline, error) {
	p = Pipeline{
		Name: p.Name, Distribution: p.Distribution, Created: e.now(),
		Architectures: slices.Sorted(slices.Values(p.Architectures)), Stages: slices.Clone(p.Stages), Retention: p.Retention, Private: p.Private,
	}
	if p.Retention == (Retention{}) {
		p.Retention = DefaultRetention
	}
	if len(p.Stages) == 0 {
		p.Stages = []string{"dev", "canary", "production"}
	}
	if err := p.validate(); err != nil {
		return Pipeline{}, err
	}
	err := e.do(&job{ctx: ctx, pipeline: p.Name, act: func(ctx context.Context) error {
		if _, err := e.line(p.Name); err == nil {
			return fail(Conflict, "", "cannot create pipeline %s: it exists", p.Name)
		}
		empty, err := snapshots.New(ctx, e.Chunks, nil)
		if err != nil {
			return because(err, "cannot create pipeline %s", p.Name)
		}
		fresh := &line{Pipeline: p, states: make([]snapshots.State, len(p.Stages))}
		for i, name := range p.Stages {
			fresh.standings = append(fresh.standings, Standing{Stage: Stage{Pipeline: p.Name, Name: name, Position: i}})
		}
		t := e.turn("create", fresh)
		t.batch.Pipelines = []Pipeline{p}
		t.batch.Standings = slices.Clone(t.line.standings[1:])
		t.act(a, "create", "pipeline "+p.Name, strings.Join(p.Stages, " → "))
		t.event("pipeline", p.Name)
		if err := t.follow(ctx, a.Name, "pipeline created", empty); err != nil {
			return err
		}
		return t.commit(ctx)
	}})
	return p, err
}

// validate refuses what cannot be published.
func (p Pipeline) validate() error {
	refuse := func(cause string, args ...any) error {
		return fail(Invalid, "repo-manager pipeline create --help", "cannot create pipeline %q: "+cause, append([]any{p.Name}, args...)...)
	}
	const form = "wants a lower-case letter, then letters, digits and + . -, at most 63"
	if !validName.MatchString(p.Name) {
		return refuse("the name %s", form)
	}
	if slices.Contains(reservedPipelines, p.Name) {
		return refuse("the name is taken by a file of the archive")
	}
	if !validName.MatchString(p.Distribution) {
		return refuse("the distribution %q %s", p.Distribution, form)
	}
	if len(p.Architectures) == 0 {
		return refuse("it needs an architecture, for example amd64")
	}
	for i, architecture := range p.Architectures {
		if err := deb.ValidArchitecture(architecture); err != nil || architecture == "all" {
			return refuse("%q is no architecture of devices", architecture)
		}
		if i > 0 && p.Architectures[i-1] == architecture {
			return refuse("architecture %s is named twice", architecture)
		}
	}
	for i, stage := range p.Stages {
		if !validName.MatchString(stage) || slices.Contains(reservedStages, stage) {
			return refuse("the stage %q %s, and is none of %s", stage, form, strings.Join(reservedStages, ", "))
		}
		if slices.Contains(p.Stages[:i], stage) {
			return refuse("stage %s is named twice", stage)
		}
	}
	return p.Retention.validate(p.Name)
}

// CreateRepository adds a rolling repository to a pipeline. It holds the keep
// highest versions per package and architecture; less than 1 means 1.
func (e *Engine) CreateRepository(ctx context.Context, a Actor, pipeline, name string, keep int) (Component, error) {
	return e.createComponent(ctx, a, Component{Pipeline: pipeline, Name: name, Kind: Repository, Keep: max(keep, 1)})
}

func (e *Engine) createComponent(ctx context.Context, a Actor, c Component) (Component, error) {
	if err := snapshots.ValidComponent(c.Name); err != nil {
		return Component{}, fail(Invalid, "", "cannot create %s %q: %v", c.Kind, c.Name, err)
	}
	err := e.do(&job{ctx: ctx, pipeline: c.Pipeline, stage: e.firstStage(c.Pipeline), act: func(ctx context.Context) error {
		l, err := e.line(c.Pipeline)
		if err != nil {
			return err
		}
		if existing, err := l.component(c.Name, ""); err == nil {
			return fail(Conflict, "", "cannot create %s %s: pipeline %s has a %s of that name", c.Kind, c.Name, l.Name, existing.Kind)
		}
		c.Created = e.now()
		t := e.turn("create", l)
		head, err := snapshots.WithKeys(ctx, e.Chunks, l.head(), l.keys(c)...)
		if err != nil {
			return because(err, "cannot create %s %s", c.Kind, c.Name)
		}
		t.batch.Components = []Component{c}
		t.line.Components = append(t.line.Components, c)
		slices.SortFunc(t.line.Components, func(a, b Component) int { return cmp.Compare(a.Name, b.Name) })
		t.act(a, "create", string(c.Kind)+" "+c.Name, "")
		t.event("component", c.Name)
		if err := t.follow(ctx, a.Name, string(c.Kind)+" "+c.Name+" created", head); err != nil {
			return err
		}
		return t.commit(ctx)
	}})
	return c, err
}

// component finds a component of a kind, or of any kind if it is "".
func (l *line) component(name string, kind ComponentKind) (Component, error) {
	for _, c := range l.Components {
		if c.Name != name {
			continue
		}
		if kind != "" && c.Kind != kind {
			return Component{}, fail(Refused, "", "cannot use %s as a %s: it is a %s", name, kind, c.Kind)
		}
		return c, nil
	}
	if kind == "" {
		kind = "component"
	}
	return Component{}, fail(NotFound, "repo-manager pipeline show "+l.Name, "cannot find %s %q in pipeline %s", kind, name, l.Name)
}
