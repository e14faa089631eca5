package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/journal"
)

// Pin keeps a deployment from being pruned.
type Pin struct {
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
}

// Pin keeps deployment n until Unpin. One that has not been committed yet is
// refused: nobody knows whether it is worth it.
func (m *Machine) Pin(n int, by, reason string) error {
	d, err := m.bootable("pin", n)
	if err != nil {
		return err
	}
	d.Pin = &Pin{Reason: reason, By: by, At: m.recordTime()}
	return m.Records.PutDeployment(d)
}

// Unpin lets deployment n be pruned once nothing else needs it.
func (m *Machine) Unpin(n int) error {
	d, err := m.bootable("unpin", n)
	if err != nil || d.Pin == nil {
		return err
	}
	d.Pin = nil
	return m.Records.PutDeployment(d)
}

// bootable returns the record of a deployment that was committed.
func (m *Machine) bootable(verb string, n int) (Deployment, error) {
	if !m.Roots.Exists(deployment(n)) {
		return Deployment{}, &Refused{Reason: fmt.Sprintf("cannot %s deployment %d: there is none", verb, n), Hint: "device-updater status lists those there are"}
	}
	if tx := m.Journal.Last(); tx.Open() && tx.Deployment == n && !tx.Manual {
		return Deployment{}, &Refused{Reason: fmt.Sprintf("cannot %s deployment %d: it is in phase %s, and not committed yet", verb, n, tx.Phase), Hint: "device-updater status"}
	}
	return m.Records.Deployment(n)
}

// tidy prunes. What cannot be deleted costs room, not updates.
func (m *Machine) tidy(ctx context.Context) {
	if err := m.Prune(ctx); err != nil {
		m.say(func(s *Status) { s.LastError = err.Error() })
	}
}

// Prune deletes what nobody needs: all but the booted, the committed, the
// previous deployment, that of an open transaction, pinned ones, and as many
// others as are to be kept. What cannot be deleted keeps it from nothing else.
func (m *Machine) Prune(ctx context.Context) error {
	current, d, err := m.boots()
	if err != nil {
		return err
	}
	keep := m.indispensable(current, d)
	if err := m.retain(keep); err != nil {
		return err
	}
	var failures []error
	for _, dir := range []string{"deployments", "pristine", "base"} {
		names, err := m.Roots.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, ok := number(name)
			if !ok || keep[n] {
				continue
			}
			err := m.States.SettleSeeds(n)
			if err == nil {
				err = m.deleteDeployment(ctx, n)
			}
			failures = append(failures, err)
		}
	}
	if d.HasPrevious {
		// Else the device went back by itself, and what was put aside may be all
		// that there is of somebody's data.
		failures = append(failures, m.States.Prune(func(n int) bool { return keep[n] }))
	}
	return errors.Join(append(failures, m.sweepLocal())...)
}

// boots returns what is booted, and what the loader boots if nothing is on trial.
func (m *Machine) boots() (current int, d boot.Default, err error) {
	if current, err = m.Boot.Current(); err == nil {
		d, err = m.Boot.Default()
	}
	return current, d, err
}

// indispensable are the deployments that nobody could give back: the booted, the
// committed and the previous one, and those of a trial or an open transaction.
func (m *Machine) indispensable(current int, d boot.Default) map[int]bool {
	needed := map[int]bool{current: true, d.Committed: true}
	if d.HasPrevious {
		needed[d.Previous] = true
	}
	if t, ok := m.Boot.Trial(); ok && t.Tries > 0 {
		needed[t.Deployment] = true
	}
	if tx := m.Journal.Last(); tx.Open() {
		needed[tx.Deployment], needed[tx.From] = true, true
	}
	return needed
}

// retain adds to what stays pinned deployments, and the newest others until
// there are as many as are to be kept.
func (m *Machine) retain(keep map[int]bool) error {
	names, err := m.Roots.List("deployments")
	if err != nil {
		return err
	}
	kept := 0
	var others []Deployment
	for _, name := range names {
		n, ok := number(name)
		if !ok || strings.HasSuffix(name, work) {
			continue
		}
		if keep[n] {
			kept++
			continue
		}
		d, err := m.Records.Deployment(n)
		switch {
		case err != nil:
			return err // perhaps it is pinned
		case d.Pin != nil:
			keep[n] = true
		default:
			others = append(others, d)
		}
	}
	// A number is never given twice: the highest was made last.
	slices.SortFunc(others, func(a, b Deployment) int { return b.ID - a.ID })
	for _, d := range others[:min(len(others), max(0, m.Settings.Keep-kept))] {
		keep[d.ID] = true
	}
	return nil
}

// kept are the numbers of deployments that have a record, highest first,
// without that of a transaction that is open.
func (r Records) kept(last journal.Record) ([]int, error) {
	entries, err := os.ReadDir(r.path("deployments"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list deployments: %w", err)
	}
	var all []int
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err == nil && (!last.Open() || n != last.Deployment) {
			all = append(all, n)
		}
	}
	slices.SortFunc(all, func(a, b int) int { return b - a })
	return all, nil
}

// spare says which deployments take room that a person could give back, and
// about how much; "" if there are none. A deployment shares with others what
// they have alike: its own are the packages that no other has.
func (m *Machine) spare(needed map[int]bool) string {
	names, err := m.Roots.List("deployments")
	if err != nil {
		return ""
	}
	owners := make(map[string]int)
	own := make(map[int]map[string]int64)
	var all []int
	for _, name := range names {
		n, ok := number(name)
		if !ok || strings.HasSuffix(name, work) {
			continue
		}
		sizes, err := apt.InstalledSizes(m.Roots.Path(deployment(n)))
		if err != nil {
			sizes = nil // of one whose size nobody knows
		}
		for p := range sizes {
			owners[p]++
		}
		own[n], all = sizes, append(all, n)
	}
	slices.Sort(all)
	var said []string
	for _, n := range all {
		if needed[n] {
			continue
		}
		var bytes int64
		for p, size := range own[n] {
			if owners[p] == 1 {
				bytes += size
			}
		}
		said = append(said, fmt.Sprintf("deployment %d (about %d MB)", n, bytes>>20))
	}
	return strings.Join(said, ", ")
}
