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

// Run runs an executable for at most limit, with what of the environment is
// added to ours. The error of one that fails is a *Failed, of an *Exit if it ended
// by itself: the last line that it printed, if it printed any. When the time is
// up, or ctx ends, it is killed with all its children.
func Run(ctx context.Context, limit time.Duration, env []string, path string, args ...string) error {
	late := fmt.Errorf("it took more than %s", limit)
	limited, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env = append(os.Environ(), env...)
	// A session of its own, so that its children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case limited.Err() != nil:
		err = context.Cause(limited)
	case err == nil:
		return nil
	case errors.As(err, &ended) && ended.Exited():
		err = &Exit{ended.ExitCode(), out.last()}
	case out.last() != "":
		err = errors.New(out.last())
	}
	return &Failed{err, string(out.text)}
}

// Bytes of an output that are kept, and of its last line.
const (
	keepOutput = 8 << 10
	keepLine   = 500
)

// tail keeps the last bytes that are written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - keepOutput; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

func (t *tail) last() string {
	text := strings.TrimSpace(string(t.text))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(strings.TrimSpace(text[max(0, len(text)-keepLine):]), "?")
}
