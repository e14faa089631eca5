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

// facts are what people read about the state.
func (v stateView) facts(io *term.IO) (attention, fine []term.Fact) {
	for _, u := range v.Units {
		fine = append(fine, term.Fact{Name: "state", Value: fmt.Sprintf("%s of epoch %d since %s, in %s", u.Name, u.Epoch, u.Since.UTC().Format(time.RFC3339), strings.Join(u.Paths, " "))})
	}
	var kept []term.Fact
	for _, c := range v.Kept {
		kept = append(kept, term.Fact{Name: "kept", Value: fmt.Sprintf("%s of epoch %d, as deployment %d left it %s, in %s", c.Name, c.Epoch, c.Deployment, io.When(c.At), c.Dir)})
	}
	return []term.Fact{{Name: "state", Value: v.Trouble}}, append(abridged(fine, everything), abridged(kept, everything)...)
}
