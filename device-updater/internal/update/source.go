package update

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/drift"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/sandbox"
)

// Source is the Releases of a real device: one base of an archive, or what a
// server assigns, and apt.
type Source struct {
	Client       *archive.Client
	Assignments  Assignments                 // what is assigned; nil: Base is followed
	Server       func(context.Context) error // asks the server for an answer, where there are Assignments
	Architecture string                      // Debian's name of this device's
	Access       archive.Access              // to the archive, for apt
	CA           string                      // path of the only authority of the archive's certificate; "": the system's
	Base         string                      // what is followed, below the archive
	StateBase    func(state string) string   // the base of one state
	Components   []string
	TopLevel     []string
	Dir          string // for apt's private root
	Records      Records
	BuildTime    time.Time                 // of this program: that time has passed
	SetClock     func(now time.Time) error // sets the system clock
	Run          apt.Run                   // runs commands inside a root
	offer        archive.Offer             // the last one believed
	assigned     *assigned                 // what offer was assigned with
	private      *apt.Private              // for the state opened
	opened       string
	found        drift.Report            // of the root that was planned for last
	planned      string                  // that root
	recorded     map[string]rootfs.Entry // its manifest; nil: it has none
}

// Offer asks the base, or takes what is assigned.
func (s *Source) Offer(ctx context.Context) (Offer, error) {
	if s.Assignments != nil {
		return s.offerAssigned(ctx)
	}
	offer, err := s.ask(ctx, s.Client, s.Base)
	return Offer{State: offer.State, Snapshot: offer.Snapshot}, err
}

// ask asks a base. What a signed date says has passed moves the floor of the
// clock; a clock that stands before it is set forward, because apt refuses
// signatures from the future.
func (s *Source) ask(ctx context.Context, client *archive.Client, base string) (archive.Offer, error) {
	times, err := s.Records.Times()
	if err != nil {
		return archive.Offer{}, err
	}
	floor := times.Floor
	if s.BuildTime.After(floor) {
		floor = s.BuildTime
	}
	seen := times.Seen[base]
	if s.Assignments != nil {
		seen = time.Time{} // the text itself is assigned
	}
	offer, err := client.Check(ctx, base, floor, seen)
	if err != nil {
		return archive.Offer{}, err
	}
	if err := s.learn(times, base, offer.Date); err != nil {
		return archive.Offer{}, err
	}
	if offer.Date.After(floor) {
		floor = offer.Date
	}
	if err := s.forward(floor); err != nil {
		return archive.Offer{}, err
	}
	s.offer = offer
	return offer, nil
}

// forward sets a clock that stands before the floor forward to it.
func (s *Source) forward(floor time.Time) error {
	// apt allows ten seconds (Acquire::Max-FutureTime).
	now := s.Client.Clock()
	if floor.Sub(now) <= 10*time.Second {
		return nil
	}
	if err := s.SetClock(floor); err != nil {
		return fmt.Errorf("cannot set the clock, which stands at %s, to %s: %w", now.UTC().Format(time.RFC3339), floor.Format(time.RFC3339), err)
	}
	return nil
}

// floor is a time that has passed, whatever the clock says: that of this program
// and of what was signed.
func (s *Source) floor() (time.Time, error) {
	times, err := s.Records.Times()
	if s.BuildTime.After(times.Floor) {
		return s.BuildTime, err
	}
	return times.Floor, err
}

// learn keeps the date if it is news.
func (s *Source) learn(times Times, base string, date time.Time) error {
	if !date.After(times.Seen[base]) && !date.After(times.Floor) {
		return nil
	}
	if date.After(times.Floor) {
		times.Floor = date
	}
	// Only what is followed now is remembered: the file stays small.
	times.Seen = map[string]time.Time{base: date}
	return s.Records.PutTimes(times)
}

// open prepares apt for the state of o. From here on only that state's own
// base is used, so that a stage that moves meanwhile cannot mix releases.
func (s *Source) open(ctx context.Context, o Offer) error {
	if s.private != nil && s.opened == o.State {
		return nil
	}
	s.private = nil
	// What was offered may be from before the clock was set back.
	floor, err := s.floor()
	if err == nil {
		err = s.forward(floor)
	}
	if err != nil {
		return err
	}
	origin, err := s.origin(o)
	if err != nil {
		return err
	}
	client := *s.Client
	client.Distribution = origin.Distribution
	offer, err := s.trusted(ctx, &client, origin.Base, o)
	if err != nil {
		return err
	}
	private, err := apt.NewPrivate(s.Dir, apt.Source{
		URL: client.URL + "/" + origin.Base, Distribution: origin.Distribution, Components: origin.Components, Keyring: client.Keyring,
		User: s.Access.User, Password: s.Access.Password, CA: s.CA,
	})
	if err != nil {
		return err
	}
	if err := private.Update(ctx); err != nil {
		return err
	}
	// apt fetched the file once more: it must still be the same release.
	text, err := private.InRelease()
	if err != nil {
		return err
	}
	if err := client.CheckText(origin.Base, text, offer, s.BuildTime); err != nil {
		return err
	}
	s.private, s.opened = private, o.State
	return nil
}

// origin is where the packages of o lie: as they were assigned, else as the
// configuration says.
func (s *Source) origin(o Offer) (Origin, error) {
	if o.Origin != nil {
		return *o.Origin, nil
	}
	if s.Assignments != nil {
		return Origin{}, &Refused{Reason: fmt.Sprintf("cannot tell where the packages of %s lie: the server did not assign it", o), Hint: "device-updater update"}
	}
	return Origin{Base: s.StateBase(o.State), Distribution: s.Client.Distribution, Components: s.Components}, nil
}

// trusted returns the signed text of the state's own base: what the server
// offers, or if o is what is booted, what that base holds.
func (s *Source) trusted(ctx context.Context, client *archive.Client, base string, o Offer) (archive.Offer, error) {
	if o.Booted && o.State != s.offer.State {
		return client.Check(ctx, base, s.BuildTime, time.Time{})
	}
	if o.State != s.offer.State {
		return archive.Offer{}, fmt.Errorf("cannot use state %s: the server offers %s", o.State, s.offer.State)
	}
	return s.offer, client.CheckState(ctx, base, s.offer, s.BuildTime)
}

// Plan takes the exact list from the bill of materials, or lets apt compute it,
// and adds what was damaged in root since it was made: its packages are
// installed again.
func (s *Source) Plan(ctx context.Context, o Offer, root string, d Deployment) (apt.Plan, error) {
	// The files are looked at while apt thinks.
	looked := make(chan error, 1)
	go func() { looked <- s.look(ctx, root, d) }()
	list, native, err := s.wanted(ctx, o)
	if err = cmp.Or(err, <-looked); err != nil {
		return apt.Plan{}, err
	}
	installed, err := installedIn(root)
	if err != nil {
		return apt.Plan{}, err
	}
	plan := apt.MakePlan(list, installed, d.hashes(), native)
	plan.Repair(s.found.Packages())
	plan.Mend = plan.Mend || len(s.found.Damage) > 0
	err = s.private.Measure(ctx, &plan)
	return plan, err
}

// wanted is what must be installed, and the architecture of the device.
func (s *Source) wanted(ctx context.Context, o Offer) (list []apt.Package, native string, err error) {
	if err := s.open(ctx, o); err != nil {
		return nil, "", err
	}
	list, err = s.list(ctx, o)
	s.judgePackages(o, err)
	if err != nil {
		return nil, "", err
	}
	native, err = s.private.Native(ctx)
	return list, native, err
}

// look finds what has changed in root, that of deployment d, since it was made.
func (s *Source) look(ctx context.Context, root string, d Deployment) (err error) {
	if s.recorded, err = s.Records.files(d.ID); err != nil {
		return err
	}
	s.planned = root
	s.found, err = drift.Changed(ctx, root, s.recorded)
	return err
}

// list is what must be installed, the overlay included.
func (s *Source) list(ctx context.Context, o Offer) (list []apt.Package, err error) {
	switch {
	case o.BOM == nil && s.Assignments != nil:
		// Nothing says what is wanted: apt would take everything away.
		return nil, &Refused{Reason: fmt.Sprintf("cannot tell which packages %s has: the server did not assign it", o), Hint: "device-updater update"}
	case o.BOM == nil:
		list, err = s.private.Solve(ctx, s.topLevel(o))
	case o.BOM.State != o.State:
		err = &archive.Error{Kind: archive.Package, What: "the bill of materials", Err: fmt.Errorf("it is of state %s, not %s", o.BOM.State, o.State)}
	default:
		if list, err = s.private.Exact(ctx, *o.BOM); err != nil && ctx.Err() == nil {
			err = &archive.Error{Kind: archive.Package, What: "the bill of materials", Err: err}
		}
	}
	if err != nil || len(o.Overlay) == 0 {
		return list, err
	}
	for _, p := range o.Overlay {
		if err := s.fits(ctx, p); err != nil {
			return nil, err
		}
	}
	if list, err = s.private.Layer(ctx, list, s.Records.local(o.Overlay)); err != nil {
		return nil, fmt.Errorf("%w; `device-updater rejoin` gives up %s", err, strings.Join(o.Overlay.Names(), ", "))
	}
	return list, nil
}

// fits refuses a local package of another architecture.
func (s *Source) fits(ctx context.Context, p LocalPackage) error {
	ours, err := s.private.Architectures(ctx)
	if err != nil {
		return err
	}
	if p.Architecture != "all" && !slices.Contains(ours, p.Architecture) {
		return fmt.Errorf("cannot try %s: it is for %s, and this device is %s", p.File, p.Architecture, strings.Join(ours, " "))
	}
	return nil
}

// Compare reads every file of root and looks for what was changed in it since
// deployment n was made.
func Compare(ctx context.Context, records Records, root string, n int) (drift.Report, error) {
	recorded, err := records.files(n)
	if err != nil {
		return drift.Report{}, err
	}
	return drift.Check(ctx, root, recorded)
}

// Record writes the manifest of a root that nothing runs in, made from one of
// which before is the manifest, nil if there is none. What is not damaged gets a
// stamp.
func Record(ctx context.Context, manifest io.Writer, root string, before map[string]rootfs.Entry, strange func(path string) bool, damaged []drift.Damage) error {
	bad := make(map[string]bool)
	for _, d := range damaged {
		bad[d.Place()] = true
	}
	return rootfs.Recording{
		Strange: strange,
		Known: func(path string, now rootfs.Stamp) (string, bool) {
			was, ok := before[path]
			return was.Content, ok && was.Stamp == now
		},
		Stamped: func(path string) bool { return !bad[path] },
	}.Write(ctx, manifest, root)
}

func dpkgStatus(root string) ([]byte, error) {
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("cannot tell what is installed: %w", err)
	}
	return status, nil
}

// Download fetches and verifies.
func (s *Source) Download(ctx context.Context, o Offer, plan apt.Plan, root string, progress func(Progress)) error {
	if err := s.open(ctx, o); err != nil {
		return err
	}
	status, err := dpkgStatus(root)
	if err != nil {
		return err
	}
	return s.private.Download(ctx, plan, status, func(f apt.Fetched) { progress(fetched(f)) })
}

// Install verifies the downloads once more and installs them.
func (s *Source) Install(ctx context.Context, o Offer, plan apt.Plan, root string, log io.Writer) error {
	if err := s.open(ctx, o); err != nil {
		return err
	}
	if err := s.private.Recheck(ctx, plan); err != nil {
		// They were verified when they came.
		return fmt.Errorf("%w: %w", err, errDisturbed)
	}
	if err := s.found.Mend(root); err != nil {
		return err
	}
	topLevel := s.topLevel(o)
	for _, p := range o.Overlay {
		topLevel = append(slices.Clip(topLevel), p.Name)
	}
	return s.private.Install(ctx, s.Run, root, plan, topLevel, log)
}

func (s *Source) topLevel(o Offer) []string {
	if o.BOM != nil {
		return o.BOM.TopLevel
	}
	return s.TopLevel
}

// errDisturbed means that somebody changed the root while an update was made
// from it: that says nothing about the release.
var errDisturbed = errors.New("it was changed on this device while the update was prepared")

// intact judges the files of all packages in root, also by what dpkg itself
// knows of them. Configuration files are the administrator's. Of a package that
// was there before, a file that is wrong in the running root too was changed by
// somebody; one that is not, by a script.
func (s *Source) intact(ctx context.Context, root string, plan apt.Plan) (drift.Report, error) {
	report, err := drift.Installed(ctx, root, s.recorded)
	if err != nil || len(report.Damage) == 0 {
		return report, err
	}
	d := report.Damage[0]
	err = fmt.Errorf("cannot accept what was installed: %s of %s is not as the package has it (%s)", d.Path, d.Packages[0], d.Kind)
	if !plan.Installs(d.Packages[0]) && sameFile(filepath.Join(s.planned, d.Path), filepath.Join(root, d.Path)) {
		err = fmt.Errorf("%w: %w", err, errDisturbed)
	}
	return report, err
}

// sameFile reports whether two files are alike, or both cannot be read.
func sameFile(a, b string) bool {
	one, err := rootfs.Describe(a, true)
	other, err2 := rootfs.Describe(b, true)
	return one == other && (err == nil) == (err2 == nil)
}

// updaterFiles must be in every deployment: without them it could never be
// updated again, or its trial would never end.
var updaterFiles = []string{
	"usr/bin/device-updater",
	"usr/lib/systemd/system/aptfleet-updater.service",
	"usr/lib/systemd/system/multi-user.target.wants/aptfleet-updater.service",
	"usr/lib/systemd/system/aptfleet-state.service",
	"usr/lib/systemd/system/local-fs.target.requires/aptfleet-state.service",
	"usr/lib/systemd/system/aptfleet-trial.timer",
	"usr/lib/systemd/system/aptfleet-trial.service",
	"usr/lib/systemd/system/sysinit.target.wants/aptfleet-trial.timer",
	"usr/lib/systemd/system/emergency.service.d/aptfleet.conf",
	"usr/lib/systemd/system/rescue.service.d/aptfleet.conf",
}

// Verify compares what is installed with the list, tries the updater that is
// in it, tells the loader which kernel starts it, and lists all files.
func (s *Source) Verify(ctx context.Context, plan apt.Plan, root string, manifest io.Writer) error {
	var report drift.Report
	var damage error
	judged := make(chan struct{})
	go func() {
		defer close(judged)
		report, damage = s.intact(ctx, root, plan)
	}()
	// What did not belong there before still does not, unless a package has it
	// now.
	stray := s.found.Stray()
	strange := func(path string) bool {
		if !stray(path) {
			return false
		}
		<-judged
		return !report.Owned(path)
	}
	audited := apt.Audit(ctx, s.Run, root, plan.List)
	var rest error
	if audited == nil {
		rest = s.complete(ctx, root)
	}
	// A sandbox has a file of its own in root: nothing may run there while all
	// are listed.
	if audited == nil && rest == nil {
		rest = Record(ctx, manifest, root, s.recorded, strange, nil)
	}
	<-judged
	return cmp.Or(audited, damage, rest)
}

// complete looks for the updater in root and tries it, and tells the loader
// which kernel starts root.
func (s *Source) complete(ctx context.Context, root string) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("cannot open root %s: %w", root, err)
	}
	defer dir.Close()
	for _, name := range updaterFiles {
		if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot accept what was installed: there is no /%s in it, so it could never be updated", name)
		} else if err != nil {
			return fmt.Errorf("cannot accept what was installed: %w", err)
		}
	}
	if err := boot.WriteEntry(dir); err != nil && !errors.Is(err, boot.ErrNoKernel) {
		return fmt.Errorf("cannot accept what was installed: %w", err)
	}
	var out bytes.Buffer
	if err := s.Run(ctx, sandbox.Command{Root: root, Argv: []string{"/usr/bin/device-updater", "--version"}}, &out); err != nil {
		return fmt.Errorf("cannot accept what was installed: its updater does not run: %w", err)
	}
	if !strings.HasPrefix(out.String(), "device-updater ") {
		return errors.New("cannot accept what was installed: its updater does not say its version")
	}
	return nil
}

// Reachable asks for what is followed, or the server that assigns.
func (s *Source) Reachable(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if s.Assignments != nil {
		return s.Server(limited)
	}
	return s.Client.Reachable(limited, s.Base)
}

// Clean deletes the downloads.
func (s *Source) Clean() error { return apt.Clean(s.Dir) }

// InstalledPackages returns what dpkg says is installed in root.
func InstalledPackages(root string) ([]apt.Package, error) {
	installed, err := installedIn(root)
	packages := make([]apt.Package, 0, len(installed))
	for _, i := range installed {
		packages = append(packages, i.Package)
	}
	return packages, err
}

// Mismatch compares what dpkg says is installed in root with the exact list of
// d and names the first difference; "" if there is none, or d has no list.
func Mismatch(root string, d Deployment) (string, error) {
	installed, err := installedIn(root)
	if err != nil || len(d.Packages) == 0 {
		return "", err
	}
	return apt.Mismatch(d.Packages, installed), nil
}

func installedIn(root string) ([]apt.Installed, error) {
	status, err := dpkgStatus(root)
	if err != nil {
		return nil, err
	}
	return apt.ParseStatus(bytes.NewReader(status))
}
