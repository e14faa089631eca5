package update

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
)

// Progress is how far a phase is.
type Progress struct {
	Text  string // a few words
	Done  int64
	Total int64  // 0: unknown
	Unit  string // of both: "bytes" or "packages"
}

// progress puts p into the status.
func (m *Machine) progress(p Progress) {
	m.say(func(s *Status) { s.Progress, s.Done, s.Total, s.Unit = p.Text, p.Done, p.Total, p.Unit })
}

// fetched says how far a download is.
func fetched(f apt.Fetched) Progress {
	return Progress{
		Text: fmt.Sprintf("%d of %d packages, %s of %s MB", f.Files, f.AllFiles, tenths(f.Bytes), tenths(f.AllBytes)),
		Done: f.Bytes, Total: f.AllBytes, Unit: "bytes",
	}
}

// tenths are megabytes of a million bytes, as people count downloads.
func tenths(bytes int64) string { return fmt.Sprintf("%d.%d", bytes/1e6, bytes/1e5%10) }

// installPause is how often at most the progress of an installation is told:
// each time is a write to the disk.
const installPause = time.Second

// installMeter passes on what an installation prints, without the lines in which
// apt says how far it is; those it counts.
type installMeter struct {
	to    io.Writer
	total int // packages to install and to remove
	tell  func(Progress)
	clock func() time.Time
	line  []byte // what has come of it and was not passed on
	mid   bool   // the beginning of the line was passed on
	done  map[string]bool
	last  time.Time // when tell was called
}

// maxStatusLine bounds a line of apt's status in bytes.
const maxStatusLine = 1024

// statusPrefix begins a line of APT::Status-Fd about the work of dpkg
// (README.progress-reporting of apt): pmstatus:PACKAGE:PERCENT:WORDS.
const statusPrefix = "pmstatus:"

func (i *installMeter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		whole := end > 0
		if !whole {
			end = len(p)
		}
		i.line, p = append(i.line, p[:end]...), p[end:]
		// What cannot become a line of apt's is passed on at once.
		if whole || i.mid || !bytes.HasPrefix(i.line, []byte(statusPrefix)[:min(len(i.line), len(statusPrefix))]) || len(i.line) > maxStatusLine {
			if err := i.flush(); err != nil {
				return 0, err
			}
			i.mid = !whole
		}
	}
	return n, nil
}

// flush passes on what has come of a line, if it is not one of apt's.
func (i *installMeter) flush() error {
	line := i.line
	i.line = i.line[:0]
	if len(line) == 0 || !i.mid && i.count(string(line)) {
		return nil
	}
	_, err := i.to.Write(line)
	return err
}

// count reports whether a line is one of apt's.
func (i *installMeter) count(line string) bool {
	parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 4)
	if len(parts) != 4 || parts[0]+":" != statusPrefix {
		return false
	}
	for _, word := range []string{"Installed ", "Removed ", "Completely removed "} {
		if what, ok := strings.CutPrefix(parts[3], word); ok {
			if i.done == nil {
				i.done = make(map[string]bool)
			}
			i.done[what] = true
		}
	}
	if now := i.clock(); i.last.IsZero() || now.Sub(i.last) >= installPause || now.Before(i.last) || len(i.done) == i.total {
		i.last = now
		done := min(len(i.done), i.total)
		i.tell(Progress{Text: fmt.Sprintf("%d of %d packages", done, i.total), Done: int64(done), Total: int64(i.total), Unit: "packages"})
	}
	return true
}
