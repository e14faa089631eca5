package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// exitLater is the status of an executable that cannot do what it was asked for
// now, and wants to be asked again.
const exitLater = 21

// Later is the error of an executable that wants to be asked again. Its text is
// the last line that was printed.
type Later struct{ Reason string }

func (l *Later) Error() string { return "not now: " + l.Reason }

// maxAnswer bounds what an executable may answer, in bytes.
const maxAnswer = 64 << 10

// Answer is Run for an executable that answers on its standard output, which is
// returned; more than 64 KiB of it are an error. What it says on standard error
// goes to log, whose writes must not fail, and its last line is the reason if it fails. Exit status 21 is a
// *Later. It dies with this process: nobody would know that it is at work.
func Answer(ctx context.Context, limit time.Duration, env []string, log io.Writer, path string, args ...string) ([]byte, error) {
	late := fmt.Errorf("it took more than %s", limit)
	limited, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var said tail
	var answer bounded
	cmd.Stdout, cmd.Stderr = &answer, io.MultiWriter(&said, log)
	// The kernel ties Pdeathsig to the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case limited.Err() != nil:
		return nil, context.Cause(limited)
	case errors.As(err, &exit) && exit.ExitCode() == exitLater:
		reason := said.last()
		if reason == "" {
			reason = "it did not say why"
		}
		return nil, &Later{reason}
	case err != nil && said.last() != "":
		return nil, errors.New(said.last())
	case err != nil:
		return nil, err
	case answer.over:
		return nil, fmt.Errorf("it answered more than %d bytes", maxAnswer)
	}
	return answer.text, nil
}

// bounded keeps the first bytes that are written to it, and never fails.
type bounded struct {
	text []byte
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	kept := p[:min(len(p), maxAnswer-len(b.text))]
	b.text = append(b.text, kept...)
	b.over = b.over || len(kept) < len(p)
	return len(p), nil
}
