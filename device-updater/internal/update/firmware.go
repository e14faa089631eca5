package update

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/protocol"
)

// Firmware brings what runs beside the processor to what the booted deployment
// has for it; see firmware.Converger.
type Firmware interface {
	Converge(ctx context.Context, s firmware.Situation) ([]firmware.Change, error)
}

// situation describes the booted deployment to Firmware.
func (m *Machine) situation() (firmware.Situation, error) {
	current, err := m.Boot.Current()
	if err != nil {
		return firmware.Situation{}, err
	}
	booted, err := m.Records.Deployment(current)
	if err != nil {
		return firmware.Situation{}, err
	}
	held := m.Releases.Held()
	if held == "" {
		held = m.heldHere()
	}
	return firmware.Situation{
		Deployment: current, Release: booted.State, Held: held,
		Progress: func(what string) { m.say(func(s *Status) { s.Progress = what }) },
	}, nil
}

// tryFirmware gives a deployment on trial its firmware. The error says why the
// trial is bad.
func (m *Machine) tryFirmware(ctx context.Context) error {
	if m.Firmware == nil {
		return nil
	}
	s, err := m.situation()
	if err != nil {
		return err
	}
	s.Trial = true
	_, err = m.Firmware.Converge(ctx, s)
	return err
}

// keepFirmware brings the firmware to what the committed deployment has, with
// each start of the updater, and so after each commit and each rollback. due
// does so only where a hook wanted to be asked again. What fails is in the
// status: it takes nothing back.
func (m *Machine) keepFirmware(ctx context.Context, due bool) {
	if m.Firmware == nil || !m.mayFlash() {
		return
	}
	s, err := m.situation()
	if err == nil {
		s.Due = due
		_, err = m.Firmware.Converge(ctx, s)
	}
	m.say(func(s *Status) {
		s.Progress = ""
		if err != nil && ctx.Err() == nil {
			s.LastError = err.Error()
		}
	})
}

// mayFlash reports whether what is booted is committed and stays so for now.
func (m *Machine) mayFlash() bool {
	if m.Rebooting() || m.Unfinished() {
		return false
	}
	d, err := m.Boot.Default()
	if err != nil {
		return false
	}
	current, err := m.Boot.Current()
	return err == nil && current == d.Committed
}

// ApplyFirmware does what keepFirmware does because a person wants it, also
// where it failed before; component "" is all of them. A dry run only says what
// would be done.
func (m *Machine) ApplyFirmware(ctx context.Context, component string, dryRun bool) ([]apt.Change, error) {
	if m.Firmware == nil || !m.mayFlash() {
		return nil, &Refused{Reason: fmt.Sprintf("cannot apply firmware: an update is in phase %s", m.Journal.Last().Phase), Hint: "device-updater status"}
	}
	s, err := m.situation()
	if err != nil {
		return nil, err
	}
	s.Person, s.Component, s.DryRun = true, component, dryRun
	done, err := m.Firmware.Converge(ctx, s)
	m.say(func(s *Status) { s.Progress = "" })
	changes := []apt.Change{}
	for _, c := range done {
		changes = append(changes, apt.Change{Name: c.Component, Old: c.From, New: c.To})
	}
	return changes, err
}

// firmwareFailed is the verdict about a trial.
func (m *Machine) firmwareFailed(ctx context.Context, tx journal.Record, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // the trial goes on with the next start
	}
	m.keepEvidence(tx, m.Records.firmwareSaid())
	return m.giveUp(ctx, tx, err.Error())
}

// firmwareSaid is what the hook said that spoke last.
func (r Records) firmwareSaid() []protocol.Excerpt {
	logs, err := filepath.Glob(r.path("logs/firmware-*"))
	if err != nil {
		return nil
	}
	newest, at := "", time.Time{}
	for _, path := range logs {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			newest, at = path, info.ModTime()
		}
	}
	if newest == "" {
		return nil
	}
	return evidence.File("the hook of firmware "+strings.TrimPrefix(filepath.Base(newest), "firmware-"), newest)
}
