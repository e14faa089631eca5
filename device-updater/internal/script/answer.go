package script

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"syscall"
	"time"

	"aptfleet/device-updater/internal/evidence"
)

// maxAnswer bounds what an executable may answer, in bytes.
const maxAnswer = 64 << 10

// Answer is Run for an executable that answers on its standard output, which is
// returned; more than 64 KiB of it are an error. What it says on standard error
// goes to log, whose writes must not fail, and its last line is the reason if it
// fails; the error is an *Exit if it ended by itself. It dies with this process:
// nobody would know that it is at work.
func Answer(ctx context.Context, limit time.Duration, env []string, log io.Writer, path string, args ...string) ([]byte, error) {
	limited, cancel := within(ctx, limit)
	defer cancel()
	cmd := command(limited, env, path, args)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	said := &evidence.Tail{Most: keepOutput}
	var answer bounded
	cmd.Stdout, cmd.Stderr = &answer, io.MultiWriter(said, log)
	// The kernel ties Pdeathsig to the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	switch err := ended(limited, cmd.Run(), said); {
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
