package rig

import (
	"errors"
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
	// The child must die with this program. The kernel ties that to the thread
	// that started it, so the thread has to stay.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), apart+"=1", "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "cannot run in a mount namespace:", err)
		return 1, true
	}
	go func() {
		for s := range signals {
			// It may have ended meanwhile.
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		fmt.Fprintln(os.Stderr, cmd.ProcessState)
		code = 1
	}
	return code, true
}
