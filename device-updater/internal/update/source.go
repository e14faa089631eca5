package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/boot"
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
	private      *apt.Private              // for offer
	assigned     *assigned                 // what offer was assigned with
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
	// apt allows ten seconds (Acquire::Max-FutureTime).
	if now := s.Client.Clock(); floor.Sub(now) > 10*time.Second {
		if err := s.SetClock(floor); err != nil {
			return archive.Offer{}, fmt.Errorf("cannot set the clock, which stands at %s, to %s: %w", now.UTC().Format(time.RFC3339), floor.Format(time.RFC3339), err)
		}
	}
	if offer.State != s.offer.State {
		s.private = nil
	}
	s.offer = offer
	return offer, nil
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
	if o.State != s.offer.State {
		return fmt.Errorf("cannot use state %s: the server offers %s", o.State, s.offer.State)
	}
	if s.private != nil {
		return nil
	}
	client, components, base := s.Client, s.Components, ""
	if s.assigned != nil {
		client, components, base = s.assigned.client, s.assigned.release.Components, s.assigned.release.Base
	} else {
		base = s.StateBase(o.State)
	}
	if err := client.CheckState(ctx, base, s.offer, s.BuildTime); err != nil {
		return err
	}
	private, err := apt.NewPrivate(s.Dir, apt.Source{
		URL: client.URL + "/" + base, Distribution: client.Distribution, Components: components, Keyring: client.Keyring,
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
	if err := client.CheckText(base, text, s.offer, s.BuildTime); err != nil {
		return err
	}
	s.private = private
	return nil
}

// Plan lets apt compute the exact list.
func (s *Source) Plan(ctx context.Context, o Offer, root string, d Deployment) (apt.Plan, error) {
	if err := s.open(ctx, o); err != nil {
		return apt.Plan{}, err
	}
	list, err := s.private.Solve(ctx, s.topLevel(o))
	if err != nil {
		return apt.Plan{}, err
	}
	status, err := dpkgStatus(root)
	if err != nil {
		return apt.Plan{}, err
	}
	installed, err := apt.ParseStatus(bytes.NewReader(status))
	if err != nil {
		return apt.Plan{}, err
	}
	native, err := s.private.Native(ctx)
	if err != nil {
		return apt.Plan{}, err
	}
	return apt.MakePlan(list, installed, d.hashes(), native), nil
}

func dpkgStatus(root string) ([]byte, error) {
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("cannot tell what is installed: %w", err)
	}
	return status, nil
}

// Download fetches and verifies.
func (s *Source) Download(ctx context.Context, o Offer, plan apt.Plan, root string, progress func(string)) error {
	if err := s.open(ctx, o); err != nil {
		return err
	}
	status, err := dpkgStatus(root)
	if err != nil {
		return err
	}
	return s.private.Download(ctx, plan, status, func(done, total int) {
		progress(fmt.Sprintf("%d of %d packages", done, total))
	})
}

// Install verifies the downloads once more and installs them.
func (s *Source) Install(ctx context.Context, o Offer, plan apt.Plan, root string, log io.Writer) error {
	if err := s.open(ctx, o); err != nil {
		return err
	}
	if err := s.private.Recheck(ctx, plan); err != nil {
		return err
	}
	return s.private.Install(ctx, s.Run, root, plan, s.topLevel(o), log)
}

func (s *Source) topLevel(o Offer) []string {
	if o.BOM != nil {
		return o.BOM.TopLevel
	}
	return s.TopLevel
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
	if err := apt.Audit(ctx, s.Run, root, plan.List); err != nil {
		return err
	}
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
	return rootfs.WriteManifest(ctx, manifest, root)
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
	status, err := dpkgStatus(root)
	if err != nil {
		return nil, err
	}
	installed, err := apt.ParseStatus(bytes.NewReader(status))
	if err != nil {
		return nil, err
	}
	packages := make([]apt.Package, 0, len(installed))
	for _, i := range installed {
		packages = append(packages, i.Package)
	}
	return packages, nil
}
