package term

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Progress shows how far a long act is, on standard error. On a terminal one
// line is rewritten; elsewhere (a CI log) a line appears at most every ten
// seconds, the first after two. It is silent with --json. Its methods may be
// called from several goroutines.
type Progress struct {
	io    *IO
	what  string
	unit  string
	mu    sync.Mutex
	done  int64
	total int64
	last  time.Time // of the last line shown
	shown bool      // a line on the terminal waits to be cleared
}

const (
	progressFirst    = 2 * time.Second
	progressInterval = 10 * time.Second
	progressRedraw   = 100 * time.Millisecond
)

// NewProgress starts showing "what: done of total unit". total is 0 while it
// is not known. A unit of "bytes" is shown as sizes.
func (t *IO) NewProgress(what string, total int64, unit string) *Progress {
	p := &Progress{io: t, what: Printable(what), unit: unit, total: total}
	p.last = t.Now().Add(progressFirst - p.interval())
	return p
}

func (p *Progress) interval() time.Duration {
	if p.io.ErrTerminal {
		return progressRedraw
	}
	return progressInterval
}

// Set says how far it is; total 0 means not known.
func (p *Progress) Set(done, total int64, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total, p.unit = done, total, unit
	p.show()
}

// Add counts n more.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.show()
}

func (p *Progress) show() {
	now := p.io.Now()
	if p.io.JSON || now.Sub(p.last) < p.interval() {
		return
	}
	p.last = now
	if p.io.ErrTerminal {
		fmt.Fprintf(p.io.Err, "\r\x1b[K%s", p.line())
		p.shown = true
		return
	}
	fmt.Fprintln(p.io.Err, p.line())
}

func (p *Progress) line() string {
	amount := func(n int64) string {
		if p.unit == "bytes" {
			return HumanBytes(n)
		}
		return fmt.Sprint(n)
	}
	line := p.what + ": " + amount(p.done)
	if p.total > 0 {
		line += fmt.Sprintf(" of %s", amount(p.total))
	}
	if p.unit != "" && p.unit != "bytes" {
		line += " " + p.unit
	}
	if p.total > 0 {
		line += fmt.Sprintf(" (%d %%)", p.done*100/p.total)
	}
	return line
}

// Finish clears the line. Nothing is shown afterwards.
func (p *Progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.io.Err, "\r\x1b[K")
		p.shown = false
	}
	p.last = p.io.Now().Add(1000 * time.Hour)
}

// Reader counts what is read from r as progress in bytes.
func (p *Progress) Reader(r io.Reader) io.Reader { return progressReader{p, r} }

type progressReader struct {
	p *Progress
	r io.Reader
}

func (r progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.p.Add(int64(n))
	return n, err
}
