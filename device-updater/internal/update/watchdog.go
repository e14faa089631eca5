package update

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Watchdog is the hardware that resets a machine whose kernel or PID 1 hangs:
// no timer of PID 1 could. PID 1 serves it where there is one
// (systemd-system.conf(5), RuntimeWatchdogSec=).
type Watchdog struct {
	Timeout time.Duration // of the hardware; 0: it is left alone
	Keep    bool          // also after the trial
}

const (
	managerConf = "etc/systemd/system.conf"
	managerDir  = managerConf + ".d"
	// watchdogDropIn sorts before what administrators write, so that theirs
	// counts.
	watchdogDropIn = managerDir + "/00-aptfleet-watchdog.conf"
)

// arm makes PID 1 serve the watchdog in the boots of a deployment. What its
// administrator says about watchdogs stays as it is.
func (w Watchdog) arm(root *os.Root) error {
	if w.Timeout == 0 {
		return w.disarm(root)
	}
	said, err := saysWatchdog(root)
	if err != nil || said {
		return err
	}
	if err := root.MkdirAll(managerDir, 0o755); err != nil {
		return err
	}
	// What a shutdown may take is systemd's to say.
	text := fmt.Sprintf("# Written by device-updater for trial boots.\n[Manager]\nRuntimeWatchdogSec=%ds\n", int(w.Timeout.Seconds()))
	return root.WriteFile(watchdogDropIn, []byte(text), 0o644)
}

// disarm makes that end with the next boot.
func (w Watchdog) disarm(root *os.Root) error {
	if err := root.Remove(watchdogDropIn); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// saysWatchdog looks for a RuntimeWatchdogSec= of the administrator's in the
// file that ours would go before. Drop-ins of others come after ours.
func saysWatchdog(root *os.Root) (bool, error) {
	text, err := fs.ReadFile(root.FS(), path.Clean(managerConf))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if name, _, ok := strings.Cut(lines.Text(), "="); ok && strings.TrimSpace(name) == "RuntimeWatchdogSec" {
			return true, nil
		}
	}
	return false, lines.Err()
}
