// Package bench gives tests the sample microcontroller as hardware: power that
// can be switched and cut, and an eye on whether it is still alive.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"aptfleet/test/microcontroller/board"
	"aptfleet/test/microcontroller/wire"
)

// Programs are what Bench and its users need of this module, for rig.Build.
var Programs = []string{"test/microcontroller", "test/microcontroller/flash"}

// Bench is one board with its microcontroller.
type Bench struct {
	Program  string // microcontroller
	Dir      string // of its own
	Revision string
	Pace     time.Duration // that a page takes

	running *exec.Cmd
}

func (b *Bench) file(name string) string { return filepath.Join(b.Dir, name) }

// TTY is the path at which the processor finds it while it has power: a link.
func (b *Bench) TTY() string { return b.file("tty") }

// On gives it power and returns when it can be talked to. It is on already if
// it was not cut.
func (b *Bench) On(ctx context.Context) error {
	if b.running != nil {
		return nil
	}
	if err := os.Remove(b.TTY()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd := exec.Command(b.Program, "-flash", b.file("flash"), "-revision", b.Revision, "-tty", b.TTY(), "-pace", b.Pace.String(), "-busy", b.file("busy"), "-deaf", b.file("deaf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot switch the microcontroller on: %w", err)
	}
	b.running = cmd
	for {
		if _, err := os.Stat(b.TTY()); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), b.Cut())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Cut takes the power away. What was written to the flash stays.
func (b *Bench) Cut() error {
	cmd := b.running
	if cmd == nil {
		return nil
	}
	b.running = nil
	if err := cmd.Process.Kill(); err != nil {
		return fmt.Errorf("cannot cut the power of the microcontroller: %w", err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return fmt.Errorf("the microcontroller had ended by itself: %v", err)
	}
	return nil
}

// Busy keeps it from being flashed, or lets it be.
func (b *Bench) Busy(yes bool) error { return b.mark("busy", yes) }

// Deaf keeps it from answering, or lets it.
func (b *Bench) Deaf(yes bool) error { return b.mark("deaf", yes) }

func (b *Bench) mark(name string, yes bool) error {
	if yes {
		return os.WriteFile(b.file(name), nil, 0o644)
	}
	return os.Remove(b.file(name))
}

// Flashed is what is in its flash: the version of a whole image, "half" for a
// part of one, "" for nothing. A board that was destroyed is an error.
func (b *Bench) Flashed() (string, error) {
	if board.Bricked(b.file("flash")) {
		why, err := os.ReadFile(b.file("flash") + ".bricked")
		return "", errors.Join(fmt.Errorf("the microcontroller of %s is destroyed: %s", b.Revision, why), err)
	}
	raw, err := os.ReadFile(b.file("flash"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	image, err := wire.Decode(raw)
	if err != nil {
		return "half", nil
	}
	if image.Revision != b.Revision {
		return "", fmt.Errorf("the microcontroller of %s holds an image for %s: it is destroyed at its next start", b.Revision, image.Revision)
	}
	return image.Version, nil
}

// Factory writes an image into the flash, as the factory does.
func (b *Bench) Factory(version string) error {
	raw, err := Image(b.Revision, version)
	if err != nil {
		return err
	}
	return os.WriteFile(b.file("flash"), raw, 0o644)
}

// imageSize is that of the body of an image: enough pages for a cut to fall
// between two of them.
const imageSize = 16 << 10

// Image makes an image for a revision. The bodies of two images differ in every
// page.
func Image(revision, version string) ([]byte, error) {
	body := make([]byte, 0, imageSize)
	for i := 0; len(body) < imageSize; i++ {
		body = fmt.Appendf(body, "%s %s %d\n", revision, version, i)
	}
	return wire.Image{Revision: revision, Version: version, Body: body[:imageSize]}.Encode()
}
