// Package board is a microcontroller on a board of one of two revisions: a boot
// ROM that is always there, and flash in a file, of which every page that was
// written survives whatever happens.
//
// It does not know of which revision its board is. An application that was built
// for another revision drives pins against each other when it starts: the
// microcontroller is dead from then on, whatever is done to it.
package board

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"aptfleet/test/microcontroller/wire"
)

// Board is one microcontroller.
type Board struct {
	Flash    string        // file; one that does not exist is a microcontroller that was never flashed
	Revision string        // that the board is of
	Pace     time.Duration // that erasing and writing a page takes
	Busy     string        // while this file exists it cannot be flashed
	Deaf     string        // while this file exists it does not answer

	running *wire.Image // nil: the boot ROM runs
	left    int64       // bytes that may follow an Erase
}

// bricked is the name of the file that marks a dead microcontroller.
func (b *Board) bricked() string { return b.Flash + ".bricked" }

// Bricked reports whether the microcontroller with this flash is dead.
func Bricked(flash string) bool {
	_, err := os.Stat(flash + ".bricked")
	return err == nil
}

// Run switches the board on and answers on the line until it ends. A dead one
// never answers.
func (b *Board) Run(line io.ReadWriter) error {
	if err := b.boot(wire.InApplication); err != nil {
		return err
	}
	in := bufio.NewReader(line)
	for {
		request, err := wire.Get(in)
		if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read from the line: %w", err)
		}
		answer, err := b.answer(request)
		if err != nil {
			return err
		}
		if Bricked(b.Flash) || exists(b.Deaf) {
			continue
		}
		answer.Number = request.Number
		if err := wire.Put(line, answer); err != nil {
			return fmt.Errorf("cannot write to the line: %w", err)
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return name != "" && err == nil
}

// boot starts the application if that is asked for and it is whole.
func (b *Board) boot(mode byte) error {
	b.running, b.left = nil, 0
	if mode == wire.InBootROM {
		return nil
	}
	raw, err := os.ReadFile(b.Flash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the flash: %w", err)
	}
	image, err := wire.Decode(raw)
	if err != nil {
		return nil // only the boot ROM answers
	}
	if image.Revision != b.Revision {
		return os.WriteFile(b.bricked(), fmt.Appendf(nil, "an application for %s was started on %s\n", image.Revision, b.Revision), 0o644)
	}
	b.running = &image
	return nil
}

func nak(reason string) wire.Frame {
	return wire.Frame{Kind: wire.Nak, Payload: []byte(reason)}
}

// answer does what is asked for. The error is that of the file.
func (b *Board) answer(request wire.Frame) (wire.Frame, error) {
	ack := wire.Frame{Kind: wire.Ack}
	p := request.Payload
	switch {
	case request.Kind == wire.Hello && b.running != nil:
		ack.Payload = append([]byte{wire.InApplication}, b.running.Version...)
	case request.Kind == wire.Hello:
		ack.Payload = []byte{wire.InBootROM}
	case request.Kind == wire.Restart && len(p) == 1:
		if p[0] == wire.InBootROM && exists(b.Busy) && b.running != nil {
			return nak("busy"), nil
		}
		return ack, b.boot(p[0])
	case b.running != nil:
		return nak("only the boot ROM can do that"), nil
	case request.Kind == wire.Erase && len(p) == 4:
		size := int64(binary.LittleEndian.Uint32(p))
		if size > wire.MaxImage {
			return nak("that is more than the flash holds"), nil
		}
		time.Sleep(b.Pace)
		b.left = size
		return ack, os.WriteFile(b.Flash, nil, 0o644)
	case request.Kind == wire.Write && len(p) > 4:
		offset := int64(binary.LittleEndian.Uint32(p))
		if offset+int64(len(p)-4) > b.left {
			return nak("that was not erased"), nil
		}
		time.Sleep(b.Pace)
		return ack, b.write(offset, p[4:])
	case request.Kind == wire.Start:
		if err := b.boot(wire.InApplication); err != nil {
			return wire.Frame{}, err
		}
		if b.running == nil {
			return nak("what is in the flash is not whole"), nil
		}
	default:
		return nak("that is no request"), nil
	}
	return ack, nil
}

func (b *Board) write(offset int64, page []byte) error {
	f, err := os.OpenFile(b.Flash, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot write the flash: %w", err)
	}
	_, err = f.WriteAt(page, offset)
	return errors.Join(err, f.Close())
}
