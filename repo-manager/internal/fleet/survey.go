package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// States are the states of a device, worst first. The last is that of devices
// which are none any more.
var States = []string{
	protocol.DeviceClone, protocol.DeviceFailed, protocol.DevicePending, protocol.DeviceSilent, protocol.DeviceHeld,
	protocol.DeviceBehind, protocol.DeviceOK, protocol.DeviceRetired,
}

// Places in States.
const (
	isClone = iota
	isFailed
	isPending
	isSilent
	isHeld
	isBehind
	isOK
	isRetired
	states
)

// Query asks for some of the devices of one pipeline, a page of them at a time.
// Without a State it takes those that are not retired.
type Query struct {
	protocol.DeviceFilter        // Pipeline is required
	Text                  string // somewhere in the name or the serial number, in upper or lower case
	From                  int    // how many to leave out
	Limit                 int    // how many to return; the others are only counted
}

// Counts counts devices by state; retired ones are counted, too.
type Counts map[string]int

// Survey is what a Query finds.
type Survey struct {
	Counts  Counts            // of what it takes, whatever their state
	Stages  map[string]Counts // the same, by stage
	Total   int               // how many it takes
	Views   []View            // worst first, then by name
	Unknown int               // how many it may take, too: what they run is being computed
}

// Survey looks at all devices of a pipeline, in memory and in one pass, so that
// a page of a large fleet costs little. Check-ins go on meanwhile. Bills of
// materials that Package needs and that are not there are queued, not waited for.
func (s *Service) Survey(ctx context.Context, q Query) (Survey, error) {
	out := Survey{Stages: make(map[string]Counts)}
	var carriers *carriers
	if q.Package != "" {
		if s.Packages == nil || s.BOMs == nil {
			return out, fail(release.Refused, "", "cannot list devices by package: this server makes no bills of materials")
		}
		carriers = s.carriers(q.Package)
	}
	now, targets, text := s.now(), s.targets(), strings.ToLower(q.Text)
	var byState [states][]*device // the first of each that a page may need
	from := max(q.From, 0)
	most := from + max(q.Limit, 0)
	var all [states]int
	stages := make(map[string]*[states]int)
	for at, d := range s.each() {
		if !q.takes(d, text) {
			continue
		}
		should, _ := targets.of(ctx, d)
		g := glance(d, should)
		if q.Snapshot != "" && (!g.runs || !strings.HasPrefix(g.has.Snapshot, q.Snapshot)) {
			continue
		}
		if carriers != nil {
			switch yes, known, err := carriers.carries(ctx, d, g); {
			case err != nil:
				return out, err
			case !known:
				out.Unknown++
				continue
			case !yes:
				continue
			}
		}
		is := g.state(now)
		all[is]++
		stage := stages[d.Stage]
		if stage == nil {
			stage = new([states]int)
			stages[d.Stage] = stage
		}
		stage[is]++
		if q.wants(is) && len(byState[is]) < most {
			byState[is] = append(byState[is], at)
		}
	}
	out.Counts = counts(all)
	for name, of := range stages {
		out.Stages[name] = counts(*of)
	}
	for is, found := range byState {
		if !q.wants(is) {
			continue
		}
		out.Total += all[is]
		left := min(from, all[is])
		from -= left
		found = found[min(left, len(found)):]
		for _, d := range found[:min(len(found), max(q.Limit-len(out.Views), 0))] {
			out.Views = append(out.Views, s.view(ctx, s.copyOf(d), now))
		}
	}
	return out, nil
}

func counts(of [states]int) Counts {
	c := make(Counts)
	for is, n := range of {
		if n > 0 {
			c[States[is]] = n
		}
	}
	return c
}

// takes tells whether what an operator said of a device fits; text is Text in
// lower case.
func (q *Query) takes(d *Device, text string) bool {
	return d.Pipeline == q.Pipeline && (q.Product == "" || d.Product == q.Product) && (q.Stage == "" || d.Stage == q.Stage) &&
		(q.Revision == "" || d.HardwareRevision() == q.Revision) &&
		(text == "" || strings.Contains(strings.ToLower(d.Name), text) || strings.Contains(strings.ToLower(d.Serial), text))
}

// wants tells whether State takes devices of a place in States.
func (q *Query) wants(is int) bool {
	return q.State == States[is] || q.State == "" && is != isRetired
}

// glanced is how many devices are copied under one lock.
const glanced = 256

// each goes through all devices in the order of their names. What it yields is
// good until the next one; no lock is held meanwhile.
func (s *Service) each() func(yield func(*device, *Device) bool) {
	return func(yield func(*device, *Device) bool) {
		s.mu.RLock()
		all := slices.Clone(s.inOrder)
		s.mu.RUnlock()
		var copies [glanced]Device
		for some := range slices.Chunk(all, glanced) {
			s.mu.RLock()
			for i, d := range some {
				copies[i] = d.Device
			}
			s.mu.RUnlock()
			for i, d := range some {
				if !yield(d, &copies[i]) {
					return
				}
			}
		}
	}
}

// targets remembers what the devices of one pass should run: many should run
// the same.
type targets struct {
	service *Service
	all     map[targetKey]target
	last    targetKey // and what it led to: neighbours are often alike
	known   target
}

type targetKey struct{ pipeline, stage, pin string }

type target struct {
	should *protocol.Runs
	err    error
}

func (s *Service) targets() *targets {
	return &targets{service: s, all: make(map[targetKey]target)}
}

// of is what a device should run, nil if there is nothing yet.
func (t *targets) of(ctx context.Context, d *Device) (*protocol.Runs, error) {
	key := targetKey{d.Pipeline, d.Stage, ""}
	if d.Pin != nil {
		key = targetKey{d.Pipeline, "", d.Pin.Snapshot}
	}
	if key == t.last {
		return t.known.should, t.known.err
	}
	known, ok := t.all[key]
	if !ok {
		offer, err := t.service.target(ctx, d)
		known.err = err
		if err == nil && offer != nil {
			known.should = &protocol.Runs{State: offer.State.String(), Snapshot: offer.Snapshot}
		}
		t.all[key] = known
	}
	t.last, t.known = key, known
	return known.should, known.err
}

// carriers remembers which releases of which products have a package.
type carriers struct {
	service  *Service
	relation string
	all      map[Installed]carries
}

type carries struct{ yes, known bool }

func (s *Service) carriers(relation string) *carriers {
	return &carriers{service: s, relation: relation, all: make(map[Installed]carries)}
}

// carries tells whether what a device runs has the package. It is not known
// while the bill of materials is being computed.
func (c *carriers) carries(ctx context.Context, d *Device, g glimpse) (yes, known bool, err error) {
	if !g.runs {
		return false, true, nil
	}
	key := g.installed()
	found, ok := c.all[key]
	if !ok {
		found.known = key.BOM != ""
		if !found.known {
			_, _, status, _ := c.service.BOMs.Lookup(d.Pipeline, d.Product, d.Modules, g.has.State)
			found.known = status != BOMPending
		}
		if found.known {
			if found.yes, err = c.service.Packages.Has(ctx, key, c.relation); err != nil {
				if release.CodeOf(err) != release.NotFound {
					return false, false, err
				}
				found.known = false // no such product or state any more: nobody can tell
			}
		}
		c.all[key] = found
	}
	return found.yes, found.known, nil
}

// Kind is a product with modules that devices have.
type Kind struct {
	Product string
	Modules []string
	Devices int
}

// Kinds lists which products with which modules the devices of a stage are,
// retired ones left out, by product and modules.
func (s *Service) Kinds(_ context.Context, pipeline, stage string) []Kind {
	type key struct{ product, modules string }
	found := make(map[key]*Kind)
	for _, d := range s.each() {
		if d.Pipeline != pipeline || d.Stage != stage || d.Retired != nil {
			continue
		}
		at := key{d.Product, strings.Join(d.Modules, " ")}
		if found[at] == nil {
			found[at] = &Kind{Product: d.Product, Modules: d.Modules}
		}
		found[at].Devices++
	}
	all := make([]Kind, 0, len(found))
	for _, k := range slices.SortedFunc(maps.Values(found), func(a, b *Kind) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), slices.Compare(a.Modules, b.Modules))
	}) {
		all = append(all, *k)
	}
	return all
}

// glimpse is how a device stands, as far as its state goes.
type glimpse struct {
	*Device
	has    protocol.Runs
	runs   bool           // has is known
	should *protocol.Runs // nil: nothing
	bom    string         // of should, as it was given it; "": not known
}

func glance(d *Device, should *protocol.Runs) glimpse {
	g := glimpse{Device: d, should: should}
	g.has, g.runs = booted(d.Report)
	if r := d.Release; r != nil && should != nil && r.State == should.State {
		g.bom = r.BOM
	}
	return g
}

// wanted is what the device should run, with the bill of materials.
func (g glimpse) wanted() *protocol.Runs {
	if g.should == nil {
		return nil
	}
	wanted := *g.should
	wanted.BOM = g.bom
	return &wanted
}

// installed is what a device runs: the bill of materials that it names, else the
// one that it was given for that state last. There must be something.
func (g glimpse) installed() Installed {
	what := Installed{Pipeline: g.Pipeline, Product: g.Product, State: g.has.State, Modules: strings.Join(g.Modules, " "), BOM: g.has.BOM}
	if r := g.Assigned.Release; what.BOM == "" && r != nil && r.State == what.State {
		what.Modules, what.BOM = strings.Join(g.Assigned.Modules, " "), r.BOM
	}
	return what
}

// behind tells whether a device does not run what it should.
func (g glimpse) behind() bool {
	return g.should != nil && (!g.runs || g.has.State != g.should.State || differ(g.has.BOM, g.bom))
}

// held is the hold that keeps a device as it is, its own or an operator's.
func (g glimpse) held(now time.Time) *protocol.Hold {
	lasts := func(h protocol.Hold) bool { return h.Until.IsZero() || now.Before(h.Until) }
	if g.Hold != nil && lasts(*g.Hold) {
		return g.Hold
	}
	if g.Report != nil {
		for i, h := range g.Report.Holds {
			if lasts(h) {
				return &g.Report.Holds[i]
			}
		}
	}
	return nil
}

// failure is that of the release that it should run.
func (g glimpse) failure() *protocol.Failure {
	if g.Report != nil && g.should != nil {
		for i, f := range g.Report.Failed {
			if f.State == g.should.State {
				return &g.Report.Failed[i]
			}
		}
	}
	return nil
}

// healthy is what the device says of itself; nil if it does not say.
func (g glimpse) healthy() *bool {
	if g.Report != nil && g.Report.Health != nil {
		return &g.Report.Health.OK
	}
	return nil
}

// state is a place in States.
func (g glimpse) state(now time.Time) int {
	healthy := g.healthy()
	switch {
	case g.Retired != nil:
		return isRetired
	case g.Clone != nil:
		return isClone
	case g.Report == nil:
		return isPending
	case g.behind() && g.failure() != nil, healthy != nil && !*healthy:
		return isFailed
	case now.Sub(g.Seen) > SilentAfter:
		return isSilent
	case g.held(now) != nil:
		return isHeld
	case g.behind():
		return isBehind
	}
	return isOK
}
