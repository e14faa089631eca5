package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Engine is what an update needs of the release engine.
type Engine interface {
	Pipeline(ctx context.Context, name string) (release.Pipeline, error)
	// StartChange runs an update as a change of the server.
	StartChange(ctx context.Context, actor release.Actor, change release.Change, run func(context.Context, *release.Progress) error) (release.Change, error)
	// ReplaceMirror makes packages the whole content of a mirror, as one new
	// state, after moving files into the pool.
	ReplaceMirror(ctx context.Context, actor release.Actor, pipeline, component string, packages []snapshots.Package, files []release.File) (snapshots.ID, error)
	// Head is the newest state of a pipeline.
	Head(ctx context.Context, pipeline string) (snapshots.State, error)
}

// Pool tells which files need not be downloaded.
type Pool interface {
	Has(sha256 [32]byte, name string) bool
}

// Progress receives how far an update has come; *release.Progress is one.
type Progress interface {
	Total(n int64, unit string)
	Add(n int64)
	Logf(format string, args ...any)
}

// Updater updates mirrors. Its methods may be called concurrently for
// different mirrors; the engine lets no two changes work on the same one.
type Updater struct {
	config Config

	mu    sync.Mutex
	looks map[string]chan struct{} // of each mirror; whoever looks at its upstream holds it
}

// Config is what an Updater works with.
type Config struct {
	Engine  Engine
	Chunks  snapshots.Chunks
	Pool    Pool
	Dir     string           // for downloads; on the file system of the pool
	Reserve int64            // bytes of that file system that downloads leave free
	Client  *http.Client     // nil: proxies from the environment, bounded waiting
	Clock   func() time.Time // nil: time.Now
	Pause   time.Duration    // before a file is tried a second time; 0: half a second
	Stall   time.Duration    // in which a transfer must bring something; 0: a minute

	Free func(dir string) (bytes int64, err error) // on a file system; nil asks it
}

// New returns an Updater. It touches nothing.
func New(config Config) *Updater {
	if config.Client == nil {
		config.Client = newClient()
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	if config.Pause == 0 {
		config.Pause = time.Second / 2
	}
	if config.Stall == 0 {
		config.Stall = stallLimit
	}
	if config.Free == nil {
		config.Free = free
	}
	return &Updater{config: config, looks: make(map[string]chan struct{})}
}

// Update starts to bring a mirror up to date with its upstream and returns
// the change that does it. An unknown component is an error at once;
// everything that has to do with the upstream is the change's error.
func (u *Updater) Update(ctx context.Context, actor release.Actor, pipeline, component string, options Options) (release.Change, error) {
	p, err := u.config.Engine.Pipeline(ctx, pipeline)
	if err != nil {
		return release.Change{}, err
	}
	config, err := mirrorOf(p, component)
	if err != nil {
		return release.Change{}, err
	}
	change := release.Change{
		Kind:     "mirror-update",
		Pipeline: pipeline,
		Subject:  component,
		Summary:  fmt.Sprintf("update mirror %s from %s", component, config.Where()),
	}
	return u.config.Engine.StartChange(ctx, actor, change, func(ctx context.Context, progress *release.Progress) error {
		return u.run(ctx, actor, p, component, *config, options, progress)
	})
}

func mirrorOf(p release.Pipeline, component string) (*release.MirrorConfig, error) {
	for _, c := range p.Components {
		if c.Name != component {
			continue
		}
		if c.Kind != release.Mirror || c.Mirror == nil {
			return nil, &release.Error{
				Code: release.Invalid,
				Text: fmt.Sprintf("cannot update %s/%s: it is a %s, not a mirror", p.Name, component, c.Kind),
				Hint: "upload packages to it with: repo-manager package add " + component + " FILE",
			}
		}
		return c.Mirror, nil
	}
	return nil, &release.Error{
		Code: release.NotFound,
		Text: fmt.Sprintf("cannot update mirror %s: pipeline %s has no such component", component, p.Name),
		Hint: "list what it has with: repo-manager mirror list",
	}
}

// Options say what an update may do.
type Options struct {
	// AllowRebuilt takes other bytes under a name, version and architecture
	// that the mirror holds. Without it such an update is refused: to apt and
	// to devices that have the first ones the second are the same package.
	AllowRebuilt bool
}

// maxTries is how often an update looks into the pool for what it need not
// download. A gc removes a file once.
const maxTries = 3

// run is one update, from the InRelease to the engine.
func (u *Updater) run(ctx context.Context, actor release.Actor, p release.Pipeline, component string, config release.MirrorConfig, options Options, progress Progress) error {
	plan, err := u.plan(ctx, p, component, config, true, progress)
	if err != nil {
		return err
	}
	m := u.memory(p.Name, component)
	if len(plan.rebuilt) > 0 && !options.AllowRebuilt {
		return plan.refuseRebuilt(component)
	}
	if plan.changesNothing() {
		progress.Logf("nothing changed")
		return errors.Join(m.accept(plan.releases), m.keepOutcome(outcome{plan.basis, contentOf(plan.head, component, p.Architectures)}), m.packages().clear())
	}
	var total int64
	for _, s := range plan.missing {
		total += s.Size
	}
	progress.Logf("%d packages selected, %d of them to download (%d bytes)", len(plan.selected), len(plan.missing), total)
	progress.Total(sizes(plan.indices())+total, "bytes")
	files, err := u.download(ctx, m.packages(), plan.missing, progress)
	if err != nil {
		return err
	}
	if err := m.accept(plan.releases); err != nil {
		return err
	}
	packages := make([]snapshots.Package, len(plan.selected))
	for i, s := range plan.selected {
		packages[i] = s.Package
	}
	state, err := u.config.Engine.ReplaceMirror(ctx, actor, p.Name, component, packages, files)
	for try := 1; errors.Is(err, release.ErrVanished) && try < maxTries; try++ {
		// What the pool had before the downloads began, a gc may have removed.
		var missing []selected
		if missing, err = u.missing(plan.selected); err != nil {
			return err
		}
		if files, err = u.download(ctx, m.packages(), missing, progress); err != nil {
			return err
		}
		state, err = u.config.Engine.ReplaceMirror(ctx, actor, p.Name, component, packages, files)
	}
	if err != nil {
		return err
	}
	progress.Logf("%d packages are in state %s", len(packages), state)
	head, err := u.config.Engine.Head(ctx, p.Name)
	if err != nil {
		return err
	}
	return errors.Join(m.keepOutcome(outcome{plan.basis, contentOf(head, component, p.Architectures)}), m.packages().clear())
}
