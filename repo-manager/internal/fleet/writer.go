package fleet

import (
	"context"
	"errors"
)

// maxTogether bounds how many writes share a commit.
const maxTogether = 512

// writer commits what several wait for at once.
type writer struct {
	store Store
	queue chan write
	stop  chan struct{} // closed when it should end
	ended chan struct{} // closed when it has
}

type write struct {
	batch Batch
	done  chan<- error
}

var errStopping = errors.New("the server is stopping")

func startWriter(store Store) *writer {
	w := &writer{store: store, queue: make(chan write, maxTogether), stop: make(chan struct{}), ended: make(chan struct{})}
	go w.run()
	return w
}

// commit returns when a batch is durable, or is not and will not be.
func (w *writer) commit(b Batch) error {
	done := make(chan error, 1)
	select {
	case w.queue <- write{b, done}:
	case <-w.ended:
		return errStopping
	}
	select {
	case err := <-done:
		return err
	case <-w.ended:
	}
	select {
	case err := <-done:
		return err
	default:
		return errStopping
	}
}

// close ends the writer once everything that waits is written.
func (w *writer) close() {
	close(w.stop)
	<-w.ended
}

// run commits whatever came while the last commit was under way.
func (w *writer) run() {
	defer close(w.ended)
	for {
		var writes []write
		select {
		case first := <-w.queue:
			writes = append(writes, first)
		case <-w.stop:
			if len(w.queue) == 0 {
				return
			}
		}
		for len(writes) < maxTogether && len(w.queue) > 0 {
			writes = append(writes, <-w.queue)
		}
		w.write(writes)
	}
}

// write commits writes together; if that fails, each by itself, so that one
// that cannot be written fails alone. Who asked may be gone: that does not
// stop a commit that others wait for.
func (w *writer) write(writes []write) {
	var all Batch
	for _, one := range writes {
		all.add(one.batch)
	}
	err := w.store.CommitFleet(context.Background(), all)
	for _, one := range writes {
		if err != nil && len(writes) > 1 {
			one.done <- w.store.CommitFleet(context.Background(), one.batch)
			continue
		}
		one.done <- err
	}
}
