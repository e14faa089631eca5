// Package firmware brings what runs beside the processor (microcontrollers,
// modems) to the firmware that the booted deployment has for this hardware
// revision. It converges: what is wanted follows from what is booted, so an
// update flashes the newer firmware and a rollback the older one, and a flash
// that was cut off is done again. Where that is not safe nothing is touched,
// and why is written down.
package firmware

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// Converger works on one device; only one process at a time may.
type Converger struct {
	Root     string // "/": of the booted deployment
	Dir      string // of the updater's records
	Revision func(context.Context) (string, error)
	Clock    func() time.Time
}

// Situation is in what state of the device it converges.
type Situation struct {
	Deployment int    // that is booted
	Release    string // id of its state
	Trial      bool   // it is on trial: what fails is an error, and ctx ends when its time is up
	Held       string // why nothing may be done that cannot be undone; "": it may
	Due        bool   // only if a hook wanted to be asked again about now
	Person     bool   // somebody wants it: what failed before is tried again
	Component  string // only this one; "": all
	DryRun     bool   // probe, and only say what would be done
	Progress   func(string)
}

// Change is an image that is put on a component. From is "" if the component had
// no firmware that it could run.
type Change struct{ Component, From, To string }

// Converge brings every component to what is wanted and returns what was, or in
// a dry run would be, done. What it finds out is in the book, also if it fails.
// The error says what failed; that a component is left as it is for a good
// reason is none. In a trial, what was in trouble before the update is none
// either.
//
// An apply that has begun is not stopped when ctx ends: half an image is worse
// than a late one. It has its own time limit.
func (c *Converger) Converge(ctx context.Context, s Situation) ([]Change, error) {
	book, err := Read(c.Dir)
	if err != nil {
		return nil, err
	}
	if s.Due && !book.due(c.Clock()) {
		return nil, nil
	}
	book.closeCut(c.now())
	descriptors, err := Load(filepath.Join(c.Root, Dir))
	if err != nil {
		book.Problem = err.Error()
		return nil, errors.Join(err, c.keep(&book, s))
	}
	book.Problem = ""
	wanted := func(name string) bool {
		return slices.ContainsFunc(descriptors, func(d Descriptor) bool { return d.Component == name })
	}
	if s.Component != "" && !wanted(s.Component) {
		return nil, fmt.Errorf("cannot find component %q: this release has no firmware for it", s.Component)
	}
	book.forget(wanted)
	if err := c.keep(&book, s); err != nil {
		return nil, err
	}
	var revision, against string
	if len(descriptors) > 0 {
		revision, against = c.revision(ctx)
	}
	var changes []Change
	var failures []error
	for _, d := range descriptors {
		if s.Component != "" && d.Component != s.Component {
			continue
		}
		one := &task{Converger: c, Situation: s, book: &book, d: d, revision: revision}
		change, err := one.converge(ctx, against)
		if change != nil {
			changes = append(changes, *change)
		}
		if kept := c.keep(&book, s); kept != nil {
			return changes, errors.Join(err, kept)
		}
		if ctx.Err() != nil || err != nil && s.Trial {
			return changes, err
		}
		failures = append(failures, err)
	}
	return changes, errors.Join(failures...)
}

// revision returns the hardware revision, or why nothing may be touched.
func (c *Converger) revision(ctx context.Context) (revision, against string) {
	revision, err := c.Revision(ctx)
	switch {
	case err != nil:
		return "", err.Error()
	case revision == "":
		return "", "nobody knows the hardware revision of this device"
	}
	return revision, ""
}

func (c *Converger) keep(book *Book, s Situation) error {
	if s.DryRun {
		return nil
	}
	return book.write(c.Dir)
}

func (c *Converger) now() time.Time { return c.Clock().UTC().Truncate(time.Second) }
