package firmware

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"aptfleet/device-updater/internal/script"
)

// Hook is the executable of a release that knows one component. It is called as
//
//	HOOK probe          what is there?
//	HOOK apply IMAGE    put IMAGE there, whatever is there, also after an apply that was cut off
//	HOOK verify         did it work?
//
// and answers probe and verify with a Probe as JSON on standard output. What it
// says on standard error is logged; the last line of it is the reason if it
// fails. Exit status 21 means not now: it is asked again later.
type Hook struct {
	Path  string
	Limit time.Duration // for one run
	Env   []string
	Log   io.Writer // its writes must not fail
}

// States of a component.
const (
	Running = "running"  // it runs its firmware
	BootROM = "boot-rom" // it answers and has no firmware that it can run
	Absent  = "absent"   // it is not fitted
)

// Probe is how a component is.
type Probe struct {
	State   string `json:"state"`
	Version string `json:"version"` // of its firmware, if that runs
}

// Probe asks how the component is, and changes nothing.
func (h Hook) Probe(ctx context.Context) (Probe, error) { return h.ask(ctx, "probe") }

// Verify asks how the component is after Apply.
func (h Hook) Verify(ctx context.Context) (Probe, error) { return h.ask(ctx, "verify") }

// Apply puts the image at the path there.
func (h Hook) Apply(ctx context.Context, image string) error {
	_, err := script.Answer(ctx, h.Limit, h.Env, h.Log, h.Path, "apply", image)
	return orNotNow(err)
}

// notNow is the error of a hook that wants to be asked later.
type notNow struct{ reason string }

func (n *notNow) Error() string { return "not now: " + n.reason }

// orNotNow tells a hook that wants to be asked later from one that failed.
func orNotNow(err error) error {
	if exit := (*script.Exit)(nil); errors.As(err, &exit) && exit.Status == script.Later {
		return &notNow{cmp.Or(exit.Said, "it did not say why")}
	}
	return err
}

func (h Hook) ask(ctx context.Context, verb string) (Probe, error) {
	text, err := script.Answer(ctx, h.Limit, h.Env, h.Log, h.Path, verb)
	if err != nil {
		return Probe{}, orNotNow(err)
	}
	p, err := ParseProbe(text)
	if err != nil {
		return Probe{}, fmt.Errorf("its hook answers %s with what is no answer: %w", verb, err)
	}
	return p, nil
}

// ParseProbe reads the answer of a hook. Fields that are not known are left out
// of account.
func ParseProbe(text []byte) (Probe, error) {
	var p Probe
	if err := json.Unmarshal(text, &p); err != nil {
		return Probe{}, errors.New("it is not JSON of that form")
	}
	switch {
	case p.State != Running && p.State != BootROM && p.State != Absent:
		return Probe{}, fmt.Errorf("state is %.40q", p.State)
	case p.State == Running && !versionPattern.MatchString(p.Version):
		return Probe{}, fmt.Errorf("version is %.80q", p.Version)
	case p.State != Running:
		p.Version = ""
	}
	return p, nil
}
