// Package boot holds the verbs by which the updater tells a boot loader what to
// boot: two GRUB environment blocks on the boot-control partition.
//
//	committed.env   committed=<n> previous=<m>
//	grubenv         trial=<n> tries=<k>
//
// The loader decides alone, by the rules in docs/architecture.md; it counts
// tries down before it boots a trial. Each verb changes at most one sector of
// each file, in place and synced, and in an order that leaves a bootable
// default whichever write is the last that reaches the disk. All verbs may be
// repeated.
package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// The files below the boot-control directory.
const (
	committedFile = "committed.env"
	trialFile     = "grubenv"
)

// Blocks reads and overwrites the blocks of a boot-control partition.
type Blocks interface {
	// ReadBlock returns the whole file; fs.ErrNotExist if there is none.
	ReadBlock(name string) ([]byte, error)
	// WriteBlock overwrites the file from its first byte without truncating
	// or replacing it, and returns when the bytes are on the medium.
	WriteBlock(name string, block []byte) error
}

// Control is the boot control of one device.
type Control struct{ blocks Blocks }

// New returns the boot control kept in blocks.
func New(blocks Blocks) *Control { return &Control{blocks} }

// Default is what the loader boots when nothing is on trial.
type Default struct {
	Committed int
	Previous  int // 0 and HasPrevious false: none
	// HasPrevious says whether Previous names a deployment: 0 is a valid one.
	HasPrevious bool
}

// Trial is a deployment that the loader boots while it has tries left. A
// trial with zero Tries was used up.
type Trial struct {
	Deployment int
	Tries      int
}

// ErrUnreadable is in the chain of errors about a block that is missing or
// damaged.
var ErrUnreadable = errors.New("boot control is not readable")

// Current returns the deployment that runs this process.
func (c *Control) Current() (int, error) { return CurrentOfProcess() }

// Default reads what is committed.
func (c *Control) Default() (Default, error) {
	vars, err := c.read(committedFile)
	if err != nil {
		return Default{}, err
	}
	committed, err := number(vars["committed"])
	if err != nil {
		return Default{}, fmt.Errorf("cannot read %s: committed %w: %w", committedFile, err, ErrUnreadable)
	}
	d := Default{Committed: committed}
	if vars["previous"] != "" {
		if d.Previous, err = number(vars["previous"]); err == nil {
			d.HasPrevious = true
		}
	}
	return d, nil
}

// Trial reads what is on trial; ok is false if nothing is, also when the block
// is missing or damaged, as the loader sees it.
func (c *Control) Trial() (t Trial, ok bool) {
	vars, err := c.read(trialFile)
	if err != nil {
		return Trial{}, false
	}
	t.Deployment, err = number(vars["trial"])
	if err != nil {
		return Trial{}, false
	}
	if t.Tries, err = number(vars["tries"]); err != nil || t.Tries > 9 {
		t.Tries = 0
	}
	return t, true
}

// SetTry makes the loader boot deployment on trial, at most tries times (1 to
// 9). It is the last thing that is written before a reboot; what it boots must
// be on the disk already.
func (c *Control) SetTry(deployment, tries int) error {
	if tries < 1 || tries > 9 {
		return fmt.Errorf("cannot put deployment %d on trial: %d tries are not within 1 to 9", deployment, tries)
	}
	d, err := c.Default()
	if err != nil {
		return fmt.Errorf("cannot put deployment %d on trial: %w", deployment, err)
	}
	if d.Committed == deployment {
		return fmt.Errorf("cannot put deployment %d on trial: it is the committed one", deployment)
	}
	return c.write(trialFile, variable{"trial", strconv.Itoa(deployment)}, variable{"tries", strconv.Itoa(tries)})
}

// Commit makes deployment the default and the default until now the previous
// one, then ends the trial. A cut between the two leaves a trial that equals
// the default, which the loader ignores.
func (c *Control) Commit(deployment int) error {
	d, err := c.Default()
	switch {
	case errors.Is(err, ErrUnreadable):
		d = Default{Committed: deployment}
		err = c.writeDefault(d)
	case err == nil && d.Committed != deployment:
		err = c.writeDefault(Default{Committed: deployment, Previous: d.Committed, HasPrevious: true})
	}
	if err != nil {
		return fmt.Errorf("cannot commit deployment %d: %w", deployment, err)
	}
	return c.clearTrial()
}

// MarkBad makes the loader never boot deployment again: it ends its trial; if
// it is the default, the previous one becomes the default.
func (c *Control) MarkBad(deployment int) error {
	d, err := c.Default()
	if err != nil {
		return fmt.Errorf("cannot give up deployment %d: %w", deployment, err)
	}
	switch {
	case d.Committed == deployment && !d.HasPrevious:
		return fmt.Errorf("cannot give up deployment %d: there is no previous one", deployment)
	case d.Committed == deployment:
		err = c.writeDefault(Default{Committed: d.Previous})
	case d.HasPrevious && d.Previous == deployment:
		err = c.writeDefault(Default{Committed: d.Committed})
	}
	if err != nil {
		return fmt.Errorf("cannot give up deployment %d: %w", deployment, err)
	}
	if t, ok := c.Trial(); ok && t.Deployment == deployment {
		return c.clearTrial()
	}
	return nil
}

func (c *Control) writeDefault(d Default) error {
	previous := ""
	if d.HasPrevious {
		previous = strconv.Itoa(d.Previous)
	}
	return c.write(committedFile, variable{"committed", strconv.Itoa(d.Committed)}, variable{"previous", previous})
}

func (c *Control) clearTrial() error {
	return c.write(trialFile, variable{"trial", ""}, variable{"tries", ""})
}

func (c *Control) read(name string) (map[string]string, error) {
	block, err := c.blocks.ReadBlock(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w: %w", name, err, ErrUnreadable)
	}
	vars, err := parseEnv(block)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w: %w", name, err, ErrUnreadable)
	}
	return vars, nil
}

// write leaves a block that already says the same untouched.
func (c *Control) write(name string, vars ...variable) error {
	block, err := formatEnv(vars...)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	old, err := c.blocks.ReadBlock(name)
	if err == nil && bytes.Equal(old, block) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read %s before writing it: %w", name, err)
	}
	return c.blocks.WriteBlock(name, block)
}

func number(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || strconv.Itoa(n) != s {
		return 0, fmt.Errorf("is %q, not a number", s)
	}
	return n, nil
}
