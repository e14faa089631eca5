//go:build faults

package faultpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled reports whether this build can die at a fault point.
const Enabled = true

// plan reads the environment once: which point, and at which passage.
var plan = sync.OnceValue(func() *countdown {
	name, count, counted := cutLast(os.Getenv("APTFLEET_FAULT"))
	left := 1
	if counted {
		left = count
	}
	return &countdown{name: name, left: left}
})

type countdown struct {
	name string
	mu   sync.Mutex
	left int
}

// trace is where passages are written, or nil.
var trace = sync.OnceValue(func() *os.File {
	path := os.Getenv("APTFLEET_FAULT_TRACE")
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		panic(err)
	}
	return file
})

// Hit marks a passage of the point called name and kills the process there
// if APTFLEET_FAULT says so.
func Hit(name string) {
	if to := trace(); to != nil {
		// One write is one line, whoever else writes. If nobody reads any
		// more there is nobody to tell.
		_, _ = to.WriteString(name + "\n")
	}
	p := plan()
	if p.name != name {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	if p.left > 0 {
		return
	}
	// SIGKILL cannot be handled; the select only keeps this goroutine from
	// doing anything more until the signal is delivered.
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}

// cutLast splits "name:n" at the last colon. Names contain colons
// themselves ("upload:synced"), so only a number after the last one counts.
func cutLast(s string) (name string, n int, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, 0, false
	}
	n, err := strconv.Atoi(s[i+1:])
	if err != nil {
		return s, 0, false
	}
	return s[:i], n, true
}
