package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Boots returns every boot since the machine was created or opened, oldest
// first.
func (m *Machine) Boots() []Boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.boots)
}

// AwaitBoots waits until cond holds for Boots, or the machine is off and it
// does not, or ctx ends.
func (m *Machine) AwaitBoots(ctx context.Context, cond func([]Boot) bool) ([]Boot, error) {
	for {
		m.mu.Lock()
		boots, on, changed := slices.Clone(m.boots), m.power != nil, m.changed
		m.mu.Unlock()
		if cond(boots) {
			return boots, nil
		}
		if !on {
			return boots, fmt.Errorf("cannot wait for %s: it is off", m.config.Name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return boots, fmt.Errorf("cannot wait for %s: %w", m.config.Name, ctx.Err())
		}
	}
}

// AwaitOff waits until the machine is off and returns why, if it went off
// because nothing boots.
func (m *Machine) AwaitOff(ctx context.Context) error {
	m.mu.Lock()
	p := m.power
	m.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for %s: %w", m.config.Name, ctx.Err())
	}
}

// AwaitUp waits until the system that runs has finished starting, well or
// with failed units, and returns systemd's word for that.
func (m *Machine) AwaitUp(ctx context.Context) (string, error) {
	for {
		out, err := m.Exec(ctx, "systemctl", "is-system-running", "--wait")
		state := strings.TrimSpace(out)
		if state == "running" || state == "degraded" {
			return state, nil
		}
		select {
		case <-ctx.Done():
			return state, errors.Join(fmt.Errorf("cannot wait for %s to be up: %w", m.config.Name, ctx.Err()), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Exec runs a program inside the running device as root and returns its
// standard output. The error of a program that failed wraps *exec.ExitError
// and holds its standard error.
func (m *Machine) Exec(ctx context.Context, argv ...string) (string, error) {
	leader, err := m.leader()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/", "--",
	}, argv...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"}
	cmd.WaitDelay = 2 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("cannot run %s on %s: %w: %s", strings.Join(argv, " "), m.config.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// leader returns PID 1 of the running system as the host numbers it.
func (m *Machine) leader() (int, error) {
	m.mu.Lock()
	pid := 0
	if m.power != nil {
		pid = m.power.pid
	}
	m.mu.Unlock()
	if pid != 0 {
		for _, child := range children(pid) {
			// While nspawn prepares the container its child is not PID 1 yet.
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(status)) {
				if rest, ok := strings.CutPrefix(line, "NSpid:"); ok && len(strings.Fields(rest)) > 1 {
					return child, nil
				}
			}
		}
	}
	return 0, fmt.Errorf("cannot reach %s: no system runs", m.config.Name)
}
