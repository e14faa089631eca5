package main

import (
	"fmt"
	"strings"
	"time"

	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/internal/term"
)

// stateView is what lies in the state, and what was kept of it.
type stateView struct {
	Units []rootfs.Live `json:"units,omitempty"`
	Kept  []rootfs.Copy `json:"kept,omitempty"`
	// Trouble is why it cannot be told.
	Trouble string `json:"state_trouble,omitempty"`
}

// lookState reads which state units there are.
func (p *program) lookState() (v stateView) {
	units := rootfs.Units{Sysroot: p.sysroot}
	var err error
	if v.Units, err = units.Live(); err == nil {
		v.Kept, err = units.Kept()
	}
	if err != nil {
		v.Trouble = err.Error()
	}
	return v
}

// lines are what people read about the state.
func (v stateView) lines() string {
	var b strings.Builder
	for _, u := range v.Units {
		fmt.Fprintf(&b, "state    %s of epoch %d since %s, in %s\n", u.Name, u.Epoch, u.Since.UTC().Format(time.RFC3339), strings.Join(u.Paths, " "))
	}
	for _, c := range v.Kept {
		fmt.Fprintf(&b, "kept     %s of epoch %d, as deployment %d left it at %s, in %s\n", c.Name, c.Epoch, c.Deployment, c.At.UTC().Format(time.RFC3339), c.Dir)
	}
	if v.Trouble != "" {
		fmt.Fprintf(&b, "state    %s\n", term.Printable(v.Trouble))
	}
	return b.String()
}
