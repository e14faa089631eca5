package firmware

import (
	"fmt"
	"os"
	"time"
)

const (
	maxLog  = 64 << 10  // bytes that one converging may write
	longLog = 256 << 10 // bytes at which a log begins anew
)

// log keeps what a hook says on standard error. Its writes never fail: a hook
// must not stop half-way because nobody can write down what it says.
type log struct {
	path  string
	clock func() time.Time
	left  int
	title string // of what is not written yet
	file  *os.File
}

// about says what the hook is asked for. It is written before the first thing
// that it says.
func (l *log) about(what string) { l.title = what }

func (l *log) Write(p []byte) (int, error) {
	if l.file == nil && l.left > 0 {
		l.open()
	}
	if l.title != "" {
		l.put(fmt.Appendf(nil, "== %s %s\n", l.clock().UTC().Format(time.RFC3339), l.title))
		l.title = ""
	}
	l.put(p)
	return len(p), nil
}

func (l *log) put(p []byte) {
	n := min(l.left, len(p))
	if n <= 0 || l.file == nil {
		return
	}
	l.left -= n
	if _, err := l.file.Write(p[:n]); err != nil {
		l.left = 0
	}
}

func (l *log) open() {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(l.path); err == nil && info.Size() > longLog {
		flags |= os.O_TRUNC
	}
	file, err := os.OpenFile(l.path, flags, 0o600)
	if err != nil {
		l.left = 0
		return
	}
	l.file = file
}

func (l *log) close() {
	if l.file != nil {
		l.file.Close()
	}
}
