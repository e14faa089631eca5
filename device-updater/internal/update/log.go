package update

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"aptfleet/device-updater/internal/sandbox"
)

// maxLog is how much of what an installation prints is kept, in bytes.
const maxLog = 1 << 20

// boundedLog passes on what is written until the limit, and remembers in which
// line apt or dpkg complained. It never fails.
type boundedLog struct {
	to   io.Writer
	left int
	line []byte // the current line, at most 1 KiB of it
	said string
	full bool // a disk was full
	dead bool // a script was killed
}

func (l *boundedLog) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			if len(l.line) < 1024 {
				l.line = append(l.line, c)
			}
			continue
		}
		l.read(string(l.line))
		l.line = l.line[:0]
	}
	if n := min(l.left, len(p)); n > 0 {
		l.left -= n
		if _, err := l.to.Write(p[:n]); err != nil {
			// The log ends here. Were this an error, the program would die of
			// a broken pipe, and that would look like its own failure.
			l.left = 0
			l.full = l.full || errors.Is(err, syscall.ENOSPC)
		}
	}
	return len(p), nil
}

// read keeps the first complaint of dpkg: what follows is mostly its echo.
func (l *boundedLog) read(line string) {
	line = strings.TrimSpace(line)
	l.full = l.full || strings.Contains(strings.ToLower(line), syscall.ENOSPC.Error())
	l.dead = l.dead || strings.Contains(line, "was killed by signal (Killed)") // lib/dpkg/subproc.c
	switch {
	case strings.HasPrefix(line, "dpkg: error"), strings.HasPrefix(line, "dpkg: unrecoverable"):
		if !strings.HasPrefix(l.said, "dpkg: ") {
			l.said = strings.TrimSuffix(line, ":")
		}
	case strings.HasPrefix(line, "E: ") && l.said == "":
		l.said = strings.TrimPrefix(line, "E: ")
	}
}

// explain adds to err what was complained about.
func (l *boundedLog) explain(err error) error {
	if l.said != "" {
		err = fmt.Errorf("%w: %s", err, strings.ToValidUTF8(l.said, "?"))
	}
	if l.dead && !errors.Is(err, sandbox.ErrKilled) {
		err = fmt.Errorf("%w: %w", err, sandbox.ErrKilled)
	}
	if l.full {
		err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	}
	return err
}
