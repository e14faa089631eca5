package update

import (
	"slices"
	"time"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/protocol"
)

// Status is what the updater is doing, as it last said so.
type Status struct {
	Phase      string    `json:"phase"`
	Progress   string    `json:"progress,omitempty"`
	Done       int64     `json:"done,omitempty"`
	Total      int64     `json:"total,omitempty"`       // of Done; 0: unknown
	Unit       string    `json:"unit,omitempty"`        // of both: "bytes", "packages"
	Wanted     string    `json:"wanted,omitempty"`      // state id
	WantedName string    `json:"wanted_name,omitempty"` // snapshot id
	WhyNot     string    `json:"why_not,omitempty"`     // why it does not run what is wanted, a sentence
	LastError  string    `json:"last_error,omitempty"`
	Checked    time.Time `json:"checked,omitzero"` // when the server was last asked
}

// Status returns the current status.
func (m *Machine) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// say changes the status, keeps it, and tells whoever listens. A status that
// cannot be kept must not stop an update: the journal is what counts.
func (m *Machine) say(change func(*Status)) {
	m.mu.Lock()
	before := m.status
	change(&m.status)
	now := m.status
	m.mu.Unlock()
	if now == before {
		return
	}
	if err := m.Records.PutStatus(now); err != nil {
		now.LastError = err.Error()
	}
	if m.Notify != nil {
		m.Notify(now)
	}
}

// role is what a deployment is for a device.
type role struct {
	n    int
	role string
}

// View is all there is to see of a device, in one value.
type View struct {
	Report    protocol.Report `json:"report"`
	Current   int             `json:"current"`
	Committed int             `json:"committed"`
	Previous  *int            `json:"previous,omitempty"`
	Trial     *boot.Trial     `json:"trial,omitempty"`
	Checked   time.Time       `json:"checked,omitzero"`
	Overlay   Overlay         `json:"overlay,omitempty"` // of the booted deployment
	Develop   *protocol.Hold  `json:"develop,omitempty"` // who has it follow nothing, and why
	Etc       *Etc            `json:"etc,omitempty"`     // what its merge of /etc did; nil: there was none
	Edits     []KeptEdits     `json:"kept_edits,omitempty"`
	Verified  *Verified       `json:"verified,omitempty"` // the last comparison of the booted deployment; nil: none yet
}

// Look puts a View together from what lies on the disk. last is the newest
// record of the journal.
func Look(b Boot, r Records, last journal.Record, follow string) (View, error) {
	s, err := r.Status()
	if err != nil {
		return View{}, err
	}
	v := View{Checked: s.Checked}
	if v.Current, err = b.Current(); err != nil {
		return View{}, err
	}
	v.Report = protocol.Report{
		Follow: follow, Wanted: s.Wanted, WantedName: s.WantedName, Phase: string(journal.Idle),
		Progress: s.Progress, WhyNot: s.WhyNot, LastError: s.LastError, Deployments: []protocol.Deployment{},
	}
	if etc, merged, err := r.Etc(v.Current); err != nil {
		return View{}, err
	} else if merged {
		v.Etc = &etc
	}
	if v.Edits, err = r.KeptEdits(); err != nil {
		return View{}, err
	}
	if verified, err := r.Verified(); err != nil {
		return View{}, err
	} else if verified.Deployment == v.Current && !verified.At.IsZero() {
		v.Verified = &verified
	}
	if last.Open() {
		v.Report.Phase = string(last.Phase)
	}
	if v.Report.Failed, err = r.Failed(); err != nil {
		return View{}, err
	}
	book, err := firmware.Read(r.dir)
	if err != nil {
		v.Report.LastError = err.Error()
	}
	v.Report.Firmware = book.Report()
	v.local(r)
	roles, err := v.roles(b, r, last)
	if err != nil {
		return View{}, err
	}
	for _, x := range roles {
		d, err := r.Deployment(x.n)
		if err != nil {
			return View{}, err
		}
		if x.n == v.Current {
			v.Overlay, v.Report.Overlay = d.Overlay, d.Overlay.Names()
		}
		if x.role == "kept" && d.Pin != nil {
			x.role = "pinned"
		}
		v.Report.Deployments = append(v.Report.Deployments, protocol.Deployment{
			ID: x.n, State: d.State, Snapshot: d.Snapshot, BOM: d.bomSum(), Role: x.role, Pinned: d.Pin != nil, Version: d.Version(),
		})
	}
	return v, nil
}

// roles says what each deployment is for the device, what runs first, and notes
// what boot control says.
func (v *View) roles(b Boot, r Records, last journal.Record) ([]role, error) {
	roles := []role{{v.Current, "booted"}}
	if t, ok := b.Trial(); ok && t.Tries > 0 {
		v.Trial = &t
	}
	if d, err := b.Default(); err != nil {
		v.Report.LastError = err.Error()
	} else {
		v.Committed = d.Committed
		if v.Current != d.Committed {
			roles = []role{{v.Current, "trial"}, {d.Committed, "rollback"}}
		} else if d.HasPrevious {
			roles = append(roles, role{d.Previous, "rollback"})
		}
		if d.HasPrevious {
			v.Previous = &d.Previous
		}
	}
	if last.Open() && slices.Contains([]journal.Phase{journal.Staged, journal.Finalise, journal.Reboot}, last.Phase) && last.Deployment != v.Current {
		roles = append(roles, role{last.Deployment, "staged"})
	}
	others, err := r.kept(last)
	if err != nil {
		return nil, err
	}
	for _, n := range others {
		d, err := r.Deployment(n)
		if err != nil {
			continue // pruning says so
		}
		// In a trial there may be others that go when it is over.
		if named := slices.ContainsFunc(roles, func(x role) bool { return x.n == n }); !named && (d.Pin != nil || v.Current == v.Committed) {
			roles = append(roles, role{n, "kept"})
		}
	}
	return roles, nil
}

// local says what people at the device said about it.
func (v *View) local(r Records) {
	h, err := r.Hold()
	if err != nil {
		h = protocol.Hold{Reason: err.Error()}
	}
	if h != (protocol.Hold{}) {
		v.Report.Holds = []protocol.Hold{h}
	}
	d, err := r.Develop()
	if err != nil {
		d = protocol.Hold{Reason: err.Error()}
	}
	if d != (protocol.Hold{}) {
		v.Develop, v.Report.Developer = &d, true
	}
}
