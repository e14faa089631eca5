package health

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/uplink"
)

// unit is what the service manager says about one unit.
type unit struct {
	id       string
	active   string // ActiveState
	sub      string // SubState
	restarts int    // NRestarts
	entered  int64  // ActiveEnterTimestampMonotonic, microseconds
}

// units asks systemctl for all loaded units.
func units(ctx context.Context) ([]unit, error) {
	out, err := systemctl(ctx, "show", "--all", "--property=Id,ActiveState,SubState,NRestarts,ActiveEnterTimestampMonotonic", "*")
	if err != nil {
		return nil, err
	}
	return parseUnits(out)
}

// parseUnits reads paragraphs of Name=value lines.
func parseUnits(text string) ([]unit, error) {
	var all []unit
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		var u unit
		for line := range strings.Lines(paragraph) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "Id":
				u.id = value
			case "ActiveState":
				u.active = value
			case "SubState":
				u.sub = value
			case "NRestarts":
				n, err := strconv.Atoi(value)
				if err != nil {
					return nil, fmt.Errorf("cannot read units: NRestarts is %q", value)
				}
				u.restarts = n
			case "ActiveEnterTimestampMonotonic":
				n, err := strconv.ParseInt(value, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("cannot read units: ActiveEnterTimestampMonotonic is %q", value)
				}
				u.entered = n
			}
		}
		if u.id != "" {
			all = append(all, u)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("cannot read units: the service manager names none")
	}
	return all, nil
}

// defaultTarget returns the name of the target that the machine boots to.
func defaultTarget(ctx context.Context) (string, error) {
	out, err := systemctl(ctx, "get-default")
	return strings.TrimSpace(out), err
}

func systemctl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			line, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
			return "", fmt.Errorf("cannot ask the service manager: systemctl %s: %s", args[0], line)
		}
		return "", fmt.Errorf("cannot ask the service manager: %w", err)
	}
	return string(out), nil
}

// Baseline is what was wrong before an update already: none of it is held
// against the new release.
type Baseline struct {
	Failed     []string     `json:"failed,omitempty"`     // units
	Restarting []string     `json:"restarting,omitempty"` // units that did not stay up
	Incomplete bool         `json:"incomplete,omitempty"` // boot-complete.target was waited for and not reached
	Reachable  bool         `json:"reachable"`            // whether the server answered
	Uplink     *uplink.Path `json:"uplink,omitempty"`     // by which way; nil: it did not, or nobody can tell
}

// settled is how long a unit that was restarted must be up to be fine again: one
// crash in the life of a boot must not excuse it from being looked at.
const settled = 5 * time.Minute

// restless reports whether a unit is being restarted, or was a moment ago. now
// is the time of the monotonic clock.
func (u unit) restless(now time.Duration) bool {
	up := now - time.Duration(u.entered)*time.Microsecond
	return u.sub == "auto-restart" || u.restarts > 0 && (u.active != "active" || u.entered == 0 || up < settled)
}

// Units takes the baseline of the units that run now.
func Units(ctx context.Context) (Baseline, error) {
	all, err := units(ctx)
	if err != nil {
		return Baseline{}, err
	}
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		return Baseline{}, fmt.Errorf("cannot tell how long units are up: %w", err)
	}
	now := time.Duration(clock.Nano())
	var b Baseline
	for _, u := range all {
		if u.active == "failed" {
			b.Failed = append(b.Failed, u.id)
		}
		if u.restless(now) {
			b.Restarting = append(b.Restarting, u.id)
		}
	}
	slices.Sort(b.Failed)
	slices.Sort(b.Restarting)
	b.Incomplete = awaited(all) && !active(all, bootComplete)
	return b, nil
}

const (
	// bootComplete is what units that judge a boot are ordered before and
	// required by: systemd.special(7), boot-complete.target.
	bootComplete = "boot-complete.target"
	// awaitsComplete is our own unit that has it reached in every boot: by itself
	// nothing does. An old release may lack it.
	awaitsComplete = "aptfleet-boot-complete.target"
)

func awaited(all []unit) bool {
	return slices.ContainsFunc(all, func(u unit) bool { return u.id == awaitsComplete })
}

func active(all []unit, id string) bool {
	return slices.ContainsFunc(all, func(u unit) bool { return u.id == id && u.active == "active" })
}

// broken names a unit that failed or restarts and did not before, and says
// which of the two; restarts holds the restarts of each unit when the
// observation began.
func (b Baseline) broken(now []unit, restarts map[string]int) (id, how string) {
	for _, u := range now {
		switch {
		case slices.Contains(b.Failed, u.id), slices.Contains(b.Restarting, u.id):
		case u.active == "failed":
			return u.id, "failed"
		case u.sub == "auto-restart":
			return u.id, "does not stay up: it is being restarted"
		case u.restarts > restarts[u.id]:
			return u.id, fmt.Sprintf("does not stay up: it was restarted %d times", u.restarts)
		}
	}
	return "", ""
}
