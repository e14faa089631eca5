package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// apart marks a process that Apart started.
const apart = "APTFLEET_APART"

// Apart gives this program a mount namespace of its own: what it mounts goes
// with its last process, however that ends, and no other program holds it. It
// has a directory for temporary files of its own, too, which is removed after
// it. It starts the program again there; code is then that program's, and the
// caller has to end with it. Without root nothing can be mounted, and nothing
// happens.
func Apart() (code int, ended bool) {
	if os.Getenv(apart) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "cannot make mounts private:", err)
			return 1, true
		}
		return 0, false
	}
	if os.Geteuid() != 0 {
		return 0, false
	}
	// The path is short: Unix sockets have little room for theirs.
	dir, err := os.MkdirTemp("", "af-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}()
	// What ends this program ends that one, which cleans up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Again(ctx, syscall.CLONE_NEWNS, apart+"=1", "TMPDIR="+dir), true
}

// Again runs this program once more, with the same arguments, in namespaces of
// its own and with more in its environment, and returns its exit code. It gets a
// SIGTERM when ctx ends, and dies with this program. What went wrong with either
// is printed.
func Again(ctx context.Context, namespaces uintptr, env ...string) (code int) {
	// The kernel ties the death of a child to that of the thread that started it,
	// so the thread has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "cannot run in namespaces of its own:", err)
		return 1
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		fmt.Fprintln(os.Stderr, cmd.ProcessState)
		code = 1
	}
	return code
}
