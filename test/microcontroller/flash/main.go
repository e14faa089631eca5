// Command flash is the hook of the sample microcontroller, as a package ships
// it: `flash probe`, `flash apply IMAGE`, `flash verify`. The microcontroller is
// at MCU_TTY, or /dev/mcu.
package main

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/test/microcontroller/wire"
)

// exitLater asks the updater to come again (docs/device-firmware.md).
const exitLater = 21

func main() {
	err := run(os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, errBusy) {
		os.Exit(exitLater)
	}
	os.Exit(1)
}

var errBusy = errors.New("the pump is running")

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: flash probe | apply IMAGE | verify")
	}
	tty, err := os.OpenFile(cmp.Or(os.Getenv("MCU_TTY"), "/dev/mcu"), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("cannot reach the microcontroller: %w", err)
	}
	defer tty.Close()
	// Answers to a conversation that was cut off have other numbers.
	l := &line{tty, bufio.NewReader(tty), byte(os.Getpid())}
	switch {
	case args[0] == "apply" && len(args) == 2:
		return l.apply(args[1])
	case (args[0] == "probe" || args[0] == "verify") && len(args) == 1:
		return l.probe()
	}
	return fmt.Errorf("cannot %s", args[0])
}

// line is the serial line with a conversation on it.
type line struct {
	tty    *os.File
	in     *bufio.Reader
	number byte // of the last request
}

// ask sends a request, if need be again, and returns the payload of the answer.
func (l *line) ask(kind wire.Kind, payload []byte) ([]byte, error) {
	for range 3 {
		l.number++
		if err := wire.Put(l.tty, wire.Frame{Kind: kind, Number: l.number, Payload: payload}); err != nil {
			return nil, err
		}
		answer, err := l.answer()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return nil, err
		case answer.Kind == wire.Nak && string(answer.Payload) == "busy":
			return nil, errBusy
		case answer.Kind == wire.Nak:
			return nil, fmt.Errorf("the microcontroller refuses: %s", answer.Payload)
		}
		return answer.Payload, nil
	}
	return nil, errors.New("the microcontroller does not answer")
}

// answer returns the answer to the last request.
func (l *line) answer() (wire.Frame, error) {
	if err := l.tty.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return wire.Frame{}, err
	}
	for {
		answer, err := wire.Get(l.in)
		if err != nil || answer.Number == l.number {
			return answer, err
		}
	}
}

func (l *line) probe() error {
	said, err := l.ask(wire.Hello, nil)
	if err != nil {
		return err
	}
	answer := map[string]string{"state": "boot-rom"}
	if len(said) > 1 && said[0] == wire.InApplication {
		answer = map[string]string{"state": "running", "version": string(said[1:])}
	}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func (l *line) apply(image string) error {
	raw, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	if _, err := wire.Decode(raw); err != nil {
		return fmt.Errorf("cannot use the image: %w", err)
	}
	if _, err := l.ask(wire.Restart, []byte{wire.InBootROM}); err != nil {
		return err
	}
	if _, err := l.ask(wire.Erase, binary.LittleEndian.AppendUint32(nil, uint32(len(raw)))); err != nil {
		return err
	}
	for offset := 0; offset < len(raw); offset += wire.Page {
		page := raw[offset:min(offset+wire.Page, len(raw))]
		if _, err := l.ask(wire.Write, append(binary.LittleEndian.AppendUint32(nil, uint32(offset)), page...)); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%d bytes written\n", len(raw))
	_, err = l.ask(wire.Start, nil)
	return err
}
