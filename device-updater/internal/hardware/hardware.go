// Package hardware tells which hardware revision a device is of. Several
// sources may know it: what the board carries, what the factory wrote, what the
// kernel was told. The first that knows it counts, and no other may disagree:
// whoever flashes firmware by a guess destroys hardware.
package hardware

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"aptfleet/device-updater/internal/identity"
)

// Board is the hardware as the running system sees it.
type Board struct {
	Root       string                 // "/": below it lie sys, proc, and what a release says in Dir
	Factory    func() (string, error) // what the factory wrote, "" for nothing
	Configured string                 // what the device's owner wrote, "" for nothing

	mu   sync.Mutex
	kept string
}

// Answer is what one source says.
type Answer struct {
	Source   string `json:"source"`             // e.g. "nvmem eeprom0", "the factory"
	Revision string `json:"revision,omitempty"` // "": it does not know
	Error    string `json:"error,omitempty"`    // why it cannot be understood
}

// Pattern is what a hardware revision looks like.
var Pattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// Revision returns the hardware revision, "" if no source knows it. It is an
// error if two sources disagree, or if one of them is there and cannot be
// understood: it might disagree. A revision that is known is not asked for
// again: it does not change while a system runs.
func (b *Board) Revision(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept != "" {
		return b.kept, nil
	}
	answers, err := b.Ask(ctx)
	if err == nil {
		b.kept, err = Agree(answers)
	}
	return b.kept, err
}

// Agree returns what the sources say together.
func Agree(answers []Answer) (string, error) {
	var first Answer
	for _, a := range answers {
		switch {
		case a.Error != "":
			return "", fmt.Errorf("cannot tell the hardware revision: %s: %s", a.Source, a.Error)
		case a.Revision == "" || a.Revision == first.Revision:
		case first.Revision == "":
			first = a
		default:
			return "", fmt.Errorf("cannot tell the hardware revision: %s says %q, %s %q", first.Source, first.Revision, a.Source, a.Revision)
		}
	}
	return first.Revision, nil
}

// Ask asks every source, in the order in which they count: what the release
// names (NVMEM, device tree, DMI, scripts), the factory, the configuration, the
// kernel command line. The error is that of a file in Dir.
func (b *Board) Ask(ctx context.Context) ([]Answer, error) {
	sources, err := Load(filepath.Join(b.Root, Dir))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(sources, func(x, y Source) int { return x.rank() - y.rank() })
	var all []Answer
	for _, s := range sources {
		revision, err := s.ask(ctx, b.Root)
		all = append(all, answer(s.String(), revision, err))
	}
	factory, err := "", error(nil)
	if b.Factory != nil {
		factory, err = b.Factory()
	}
	all = append(all, answer("the factory", factory, err), answer("the configuration", b.Configured, nil))
	for _, revision := range b.commandLine() {
		all = append(all, answer("the kernel command line", revision, nil))
	}
	return all, nil
}

// answer checks what a source says.
func answer(source, revision string, err error) Answer {
	if err == nil && revision != "" && !Pattern.MatchString(revision) {
		revision, err = "", fmt.Errorf("it says %q, which is no hardware revision", revision)
	}
	a := Answer{Source: source, Revision: revision}
	if err != nil {
		a.Revision, a.Error = "", err.Error()
	}
	return a
}

// parameter of the kernel command line.
const parameter = "aptfleet.revision="

// commandLine returns the revisions that the kernel was told; in a container
// those that its PID 1 was told, as systemd does it (kernel-command-line(7)).
func (b *Board) commandLine() []string {
	name, separator := "proc/cmdline", " \n"
	if identity.InContainer(os.DirFS(b.Root)) {
		name, separator = "proc/1/cmdline", "\x00"
	}
	text, err := os.ReadFile(filepath.Join(b.Root, name))
	if err != nil {
		return nil
	}
	var all []string
	for _, word := range strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(separator, r) }) {
		if value, ok := strings.CutPrefix(word, parameter); ok {
			all = append(all, value)
		}
	}
	return all
}

// absent reports whether a source is simply not there: another board has it.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
