package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"aptfleet/internal/atomicfile"
)

// NextSession returns a session number that this device never used, and is
// above the given one; it is durable before it is returned. A file that was
// damaged counts as absent: it guards the server against repeated check-ins,
// and the server says where it stands.
func (d Dir) NextSession(above uint64) (uint64, error) {
	last, err := d.session()
	if err != nil {
		return 0, err
	}
	if above = max(above, last); above == math.MaxUint64 {
		return 0, errors.New("cannot begin a session: there is no number above the last one")
	}
	next := above + 1
	if err := atomicfile.Write(d.file(sessionFile), []byte(strconv.FormatUint(next, 10)+"\n"), 0o600); err != nil {
		return 0, fmt.Errorf("cannot begin a session: %w", err)
	}
	return next, nil
}

func (d Dir) session() (uint64, error) {
	text, err := os.ReadFile(d.file(sessionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot begin a session: %w", err)
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 64)
	if err != nil {
		return 0, nil
	}
	return n, nil
}
