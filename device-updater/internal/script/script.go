// Package script runs the executables that a release brings along: checks of
// its health, hooks of its configuration. Each gets a limited time and a session
// of its own, and its last line of output says why it failed.
package script

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"aptfleet/device-updater/internal/evidence"
)

// Executables lists the executable files of a directory in the order of their
// names. A directory that is not there has none.
func Executables(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		all = append(all, path)
	}
	return all, nil
}

// Failed is the error of an executable that failed.
type Failed struct {
	Cause  error  // an *Exit, or why it was ended
	Output string // the last 8 KiB that it printed, as they were
}

func (f *Failed) Error() string { return f.Cause.Error() }

// Unwrap returns the cause.
func (f *Failed) Unwrap() error { return f.Cause }

// Exit is the error of an executable that ended with a status of its own.
type Exit struct {
	Status int
	Said   string // the last line that it printed; "": none
}

func (e *Exit) Error() string {
	if e.Said != "" {
		return e.Said
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Later is the status of an executable that cannot do what it was asked for now,
// and wants to be asked again.
const Later = 21

// Run runs an executable for at most limit, with what of the environment is
// added to ours. The error of one that fails is a *Failed, of an *Exit if it ended
// by itself: the last line that it printed, if it printed any. When the time is
// up, or ctx ends, it is killed with all its children.
func Run(ctx context.Context, limit time.Duration, env []string, path string, args ...string) error {
	limited, cancel := within(ctx, limit)
	defer cancel()
	cmd := command(limited, env, path, args)
	out := &evidence.Tail{Most: keepOutput}
	cmd.Stdout, cmd.Stderr = out, out
	if err := ended(limited, cmd.Run(), out); err != nil {
		return &Failed{err, out.String()}
	}
	return nil
}

func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took more than %s", limit))
}

// command is an executable in a session of its own, so that its children end
// with it.
func command(limited context.Context, env []string, path string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// ended says how an executable ended that printed out: with an *Exit, or why it
// did not end by itself.
func ended(limited context.Context, err error, out *evidence.Tail) error {
	said := lastLine(out.String())
	var exit *exec.ExitError
	switch {
	case limited.Err() != nil:
		return context.Cause(limited)
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.Exited():
		return &Exit{exit.ExitCode(), said}
	case said != "":
		return errors.New(said)
	}
	return err
}

// Bytes of an output that are kept, and of its last line.
const (
	keepOutput = 8 << 10
	keepLine   = 500
)

// lastLine is the last line of an output that is not empty.
func lastLine(output string) string {
	text := strings.TrimSpace(output)
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(strings.TrimSpace(text[max(0, len(text)-keepLine):]), "?")
}
