package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"aptfleet/internal/atomicfile"
)

// maxSession is what is believed of others: a number that a device reaches by
// starting has room above it, up to protocol.MaxNumber.
const maxSession = 1 << 40

// NextSession returns a session number that this device never used, and is
// above the given one; it is durable before it is returned. A file that was
// damaged counts as absent: it guards the server against repeated check-ins,
// and the server says where it stands.
func (d Dir) NextSession(above uint64) (uint64, error) {
	last, err := d.session()
	if err != nil {
		return 0, err
	}
	if above > maxSession {
		return 0, fmt.Errorf("cannot begin a session above %d: no device has begun so many", above)
	}
	next := max(above, last) + 1
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
	if err != nil || n > 2*maxSession {
		return 0, nil
	}
	return n, nil
}
