package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// sayer writes the progress of a run: one line a step, with the seconds since
// the start.
type sayer struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	last  time.Time // when progress was last written
	text  string    // that was
}

func newSayer(out io.Writer) *sayer { return &sayer{out: out, start: time.Now()} }

func (s *sayer) line(text string) {
	fmt.Fprintf(s.out, "%5.0f s  %s\n", time.Since(s.start).Seconds(), text)
}

// note writes one line.
func (s *sayer) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.text = time.Time{}, ""
	s.line(text)
}

// progress writes a line at most every three seconds, and none twice in a row.
func (s *sayer) progress(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.last) >= 3*time.Second && text != s.text {
		s.last, s.text = now, text
		s.line("  " + text)
	}
}

// done writes the last line.
func (s *sayer) done(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n%s\n", text)
}
