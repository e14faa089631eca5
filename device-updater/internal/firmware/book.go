package firmware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
)

// Book is what is known about the firmware of a device. It outlives
// deployments.
type Book struct {
	Problem    string      `json:"problem,omitempty"` // why nothing can be wanted at all, a sentence
	Components []Component `json:"components,omitempty"`
	Acts       []Act       `json:"acts,omitempty"` // oldest first
}

// Component is one component as it was seen last.
type Component struct {
	Name     string   `json:"name"`
	State    string   `json:"state,omitempty"`   // as it was probed; "": never
	Version  string   `json:"version,omitempty"` // that it runs
	Wanted   string   `json:"wanted,omitempty"`  // "": nothing
	Why      string   `json:"why,omitempty"`     // why it has not what is wanted, a sentence
	Floor    string   `json:"floor,omitempty"`   // version below which it cannot go any more
	Trouble  bool     `json:"trouble,omitempty"` // something failed in a deployment that was committed
	Attempts Attempts `json:"attempts,omitzero"`
}

// Attempts count what was done to bring one version to a component in one
// deployment.
type Attempts struct {
	Deployment int       `json:"deployment"`
	Version    string    `json:"version"`
	Failed     int       `json:"failed,omitempty"`
	Cut        int       `json:"cut,omitempty"`   // cut off: the power failed, or the updater was killed
	Later      int       `json:"later,omitempty"` // the hook wanted to be asked again
	NotBefore  time.Time `json:"not_before,omitzero"`
	Reason     string    `json:"reason,omitempty"` // of the last one
}

// Act is one image that was put on a component, or was to be.
type Act struct {
	At         time.Time `json:"at"`
	Ended      time.Time `json:"ended,omitzero"`
	Component  string    `json:"component"`
	From       string    `json:"from,omitempty"` // version; "": only the boot ROM answered
	To         string    `json:"to"`
	Revision   string    `json:"revision"` // of the hardware
	Deployment int       `json:"deployment"`
	Release    string    `json:"release,omitempty"` // id of its state
	Result     string    `json:"result,omitempty"`  // "": it is under way
	Reason     string    `json:"reason,omitempty"`
}

// Results of an act.
const (
	Done        = "done"
	Failed      = "failed"
	Later       = "later"       // the hook could not do it then
	Interrupted = "interrupted" // the power failed, or the updater was killed
)

// keepActs bounds the memory of acts; the oldest go first.
const keepActs = 50

const bookFile = "firmware.json"

// Read returns the book in dir, the directory of the updater's records; empty
// if there is none.
func Read(dir string) (Book, error) {
	var b Book
	text, err := os.ReadFile(filepath.Join(dir, bookFile))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err != nil {
		return Book{}, fmt.Errorf("cannot read what is known about firmware: %s: %w", bookFile, err)
	}
	return b, nil
}

// write replaces the book in dir, durably, unless it is the same.
func (b *Book) write(dir string) error {
	if over := len(b.Acts) - keepActs; over > 0 {
		b.Acts = slices.Delete(b.Acts, 0, over)
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot keep what is known about firmware: %w", err)
	}
	path := filepath.Join(dir, bookFile)
	text = append(text, '\n')
	have, err := os.ReadFile(path)
	if err == nil && bytes.Equal(have, text) || errors.Is(err, fs.ErrNotExist) && len(b.Components)+len(b.Acts) == 0 && b.Problem == "" {
		return nil
	}
	if err := atomicfile.Write(path, text, 0o600); err != nil {
		return fmt.Errorf("cannot keep what is known about firmware: %w", err)
	}
	return nil
}

// component returns the entry of a component, which is made if there is none.
// It is valid until the next one is made.
func (b *Book) component(name string) *Component {
	i, found := slices.BinarySearchFunc(b.Components, name, func(c Component, name string) int { return bytes.Compare([]byte(c.Name), []byte(name)) })
	if !found {
		b.Components = slices.Insert(b.Components, i, Component{Name: name})
	}
	return &b.Components[i]
}

// closeCut ends the acts that were cut off: whoever did them is gone.
func (b *Book) closeCut(now time.Time) {
	for i := range b.Acts {
		if act := &b.Acts[i]; act.Result == "" {
			act.Result, act.Ended, act.Reason = Interrupted, now, "it was cut off"
			b.component(act.Component).attempts(act.Deployment, act.To).Cut++
		}
	}
}

// forget drops what a release that has no firmware for a component wanted of
// it. What it cannot do any more stays known.
func (b *Book) forget(wanted func(name string) bool) {
	for i := range b.Components {
		c := &b.Components[i]
		if wanted(c.Name) {
			continue
		}
		*c = Component{Name: c.Name, State: c.State, Version: c.Version, Floor: c.Floor}
		if last := slices.IndexFunc(b.Acts, func(a Act) bool { return a.Component == c.Name }); last >= 0 && c.State == BootROM {
			c.Why = "it has no firmware that it can run, and this release brings none for it"
		}
	}
}

// due reports whether a component whose hook wanted to be asked later has
// waited long enough. A clock that was set back ends the wait.
func (b *Book) due(now time.Time) bool {
	return slices.ContainsFunc(b.Components, func(c Component) bool { return c.Attempts.Later > 0 && !c.Attempts.resting(now) })
}

// resting reports whether a component is left alone for now.
func (a Attempts) resting(now time.Time) bool {
	left := a.NotBefore.Sub(now)
	return left > 0 && left <= lastPause
}

// attempts are those at a version in a deployment; others are forgotten.
func (c *Component) attempts(deployment int, version string) *Attempts {
	if c.Attempts.Deployment != deployment || c.Attempts.Version != version {
		c.Attempts = Attempts{Deployment: deployment, Version: version}
	}
	return &c.Attempts
}

// cannotGoBelow notes that nothing older than version may follow.
func (c *Component) cannotGoBelow(version string) {
	if c.Floor == "" || deb.Compare(version, c.Floor) > 0 {
		c.Floor = version
	}
}

// Report is what the server is told.
func (b Book) Report() []protocol.Firmware {
	var all []protocol.Firmware
	for _, c := range b.Components {
		all = append(all, protocol.Firmware{Component: c.Name, Version: c.Version, Wanted: c.Wanted, Reason: c.Why})
	}
	if b.Problem != "" {
		all = append(all, protocol.Firmware{Reason: b.Problem})
	}
	return all
}
