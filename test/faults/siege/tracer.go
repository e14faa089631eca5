package siege

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// tracer reads the fault points that servers pass from a FIFO.
type tracer struct {
	path string
	fifo *os.File
	done chan struct{}

	mu      sync.Mutex
	last    string        // point, "" since reset
	wanted  []string      // points that someone waits for
	reached chan struct{} // closed when one of them is passed
	marks   chan struct{} // one for each mark
}

// mark is a line that no server writes.
const mark = "-"

func newTracer(path string) (*tracer, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make FIFO: %w", err)
	}
	// Open for both, it neither waits for a writer nor ends with one.
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	t := &tracer{path: path, fifo: fifo, done: make(chan struct{}), marks: make(chan struct{}, 1)}
	go t.read()
	return t, nil
}

func (t *tracer) read() {
	defer close(t.done)
	lines := bufio.NewReader(t.fifo)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return // closed
		}
		point := strings.TrimSuffix(line, "\n")
		if point == mark {
			t.marks <- struct{}{}
			continue
		}
		t.mu.Lock()
		t.last = point
		if slices.Contains(t.wanted, point) {
			close(t.reached)
			t.wanted = nil
		}
		t.mu.Unlock()
	}
}

// reset forgets what was passed: a new server starts.
func (t *tracer) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last, t.wanted = "", nil
}

// passes returns a channel that is closed when one of these points is passed next.
func (t *tracer) passes(points ...string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wanted, t.reached = points, make(chan struct{})
	return t.reached
}

// now is the point that was passed last, among all that were written so far.
func (t *tracer) now() (string, error) {
	if _, err := t.fifo.WriteString(mark + "\n"); err != nil {
		return "", err
	}
	select {
	case <-t.marks:
	case <-t.done:
		return "", errors.New("the trace has ended")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, nil
}

func (t *tracer) close() error {
	err := t.fifo.Close()
	<-t.done
	return err
}
