// Package sandbox runs a program inside a root directory as if it were a
// machine of its own: private mount, PID, IPC, UTS and network namespaces,
// fresh /proc, /run, /tmp and /dev, a read-only /sys, no network, no services.
// Whatever the program starts dies with it, also when the caller dies. It is
// root there, without what reaches the machine beyond: it can neither mount, nor
// open devices, nor set the clock, nor load modules, nor change the kernel's
// settings.
//
// The namespaces are made by running this very binary again with Argument as
// its only argument; main must call Main then.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Argument is what the binary is called with to become PID 1 of a sandbox.
const Argument = "internal-sandbox"

// Command is one program to run.
type Command struct {
	Root  string   // directory that becomes /
	Argv  []string // the program, looked up in Path of the root, and its arguments
	Env   []string // besides Path, HOME, LC_ALL and what tells systemd and debconf to keep still
	Binds []Bind   // in this order
	Files []File   // written below /run
	Links []Link   // symbolic links made below /run

	// Status makes file descriptor 3 another name of standard output, for a
	// program that tells its progress there and closes it for those it starts.
	Status bool
}

// Bind shows Source, a file or directory outside, as Target inside, read-only.
// Target is made; it lies below /run.
type Bind struct{ Source, Target string }

// File is a small file made below /run before the program starts.
type File struct {
	Path    string
	Content string
	Mode    fs.FileMode
}

// Link is a symbolic link at Path, below /run.
type Link struct{ Path, To string }

const (
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	// policyPath is where invoke-rc.d and deb-systemd-invoke ask whether they
	// may start a service (policy-rc.d of Debian's init-system-helpers).
	policyPath = "/usr/sbin/policy-rc.d"
)

// ExitError says that the program ran and did not exit with 0.
type ExitError struct {
	Program string
	Status  int // exit status, or 128 + signal
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s ended with status %d", e.Program, e.Status)
}

// ErrKilled says that a program failed when the kernel killed processes for want
// of memory, or was killed itself: that says little about the program.
var ErrKilled = errors.New("it was killed, or others were: the machine had too little memory")

// setupFailed is the exit status of a sandbox that could not be made; its
// reason is the last line on standard error, behind setupPrefix.
const (
	setupFailed = 125
	setupPrefix = "cannot make sandbox: "
)

// Run runs the program with its output going to out, and waits. When ctx ends
// everything in the sandbox is killed. Root looks afterwards as the program
// left it.
func Run(ctx context.Context, c Command, out io.Writer) error {
	release, err := reservePolicy(c.Root)
	if err != nil {
		return err
	}
	err = run(ctx, c, out)
	return errors.Join(err, release())
}

// reservePolicy makes sure that there is a file to mount policy-rc.d over.
func reservePolicy(root string) (release func() error, err error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("cannot open root %s: %w", root, err)
	}
	name := strings.TrimPrefix(policyPath, "/")
	f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return dir.Close, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot keep services from starting in %s: %w", root, err), dir.Close())
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() error { return errors.Join(dir.Remove(name), dir.Close()) }, nil
}

func run(ctx context.Context, c Command, out io.Writer) error {
	spec, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("cannot describe sandbox: %w", err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	defer reader.Close()
	defer writer.Close()
	var last lastLine
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Argument)
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{reader}
	cmd.Stdout = io.MultiWriter(out, &last)
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	// The death signal is sent when the thread that started the child ends,
	// so that thread must last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := oomKills()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot make sandbox: %w", err)
	}
	_, writeErr := writer.Write(spec)
	writeErr = errors.Join(writeErr, writer.Close(), reader.Close())
	err = cmd.Wait()
	after := oomKills()
	if ctx.Err() != nil {
		return fmt.Errorf("cannot finish %s: %w", c.Argv[0], context.Cause(ctx))
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == setupFailed && strings.HasPrefix(last.String(), setupPrefix):
		return errors.New(last.String())
	case errors.As(err, &exit):
		status := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
		failed := &ExitError{Program: c.Argv[0], Status: status}
		if after > before || status == 128+int(syscall.SIGKILL) {
			return fmt.Errorf("%w: %w", failed, ErrKilled)
		}
		return failed
	case err != nil:
		return fmt.Errorf("cannot run %s: %w", c.Argv[0], err)
	case writeErr != nil:
		return fmt.Errorf("cannot describe sandbox: %w", writeErr)
	}
	return nil
}

// lastLine keeps the last line that is written to it, at most 1 KiB of it.
type lastLine struct{ text []byte }

func (l *lastLine) Write(p []byte) (int, error) {
	l.text = append(l.text, p...)
	trimmed := strings.TrimRight(string(l.text), "\n")
	if i := strings.LastIndexByte(trimmed, '\n'); i >= 0 {
		l.text = l.text[i+1:]
	}
	if len(l.text) > 1024 {
		l.text = l.text[:1024]
	}
	return len(p), nil
}

func (l *lastLine) String() string { return strings.TrimRight(string(l.text), "\n") }

// Main is PID 1 of the sandbox: it builds the root, runs the program, reaps
// what is orphaned, and returns the exit status.
func Main() int {
	status, err := inside()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n%s%v\n", setupPrefix, err)
		return setupFailed
	}
	return status
}

func inside() (int, error) {
	spec := os.NewFile(3, "spec")
	var c Command
	if err := json.NewDecoder(spec).Decode(&c); err != nil {
		return 0, fmt.Errorf("cannot read what to run: %w", err)
	}
	if err := spec.Close(); err != nil {
		return 0, err
	}
	if len(c.Argv) == 0 {
		return 0, errors.New("nothing to run")
	}
	if err := buildRoot(c); err != nil {
		return 0, err
	}
	return runAndReap(c)
}

// runAndReap starts the program and waits for every process of the namespace
// that ends, until the program itself does.
func runAndReap(c Command) (int, error) {
	if err := os.Setenv("PATH", path); err != nil {
		return 0, err
	}
	program, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return 0, fmt.Errorf("cannot find program: %w", err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	env := append([]string{
		"PATH=" + path, "HOME=/root", "LC_ALL=C.UTF-8", "SYSTEMD_OFFLINE=1", "SYSTEMD_TMPFILES_FORCE_SUBVOL=0",
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "UCF_FORCE_CONFFOLD=1", "TMPDIR=/tmp",
	}, c.Env...)
	files := []uintptr{null.Fd(), 1, 2}
	if c.Status {
		files = append(files, 1)
	}
	// The program gets its capabilities from the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := errors.Join(nosync(), confine()); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(program, c.Argv, &syscall.ProcAttr{Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return 0, fmt.Errorf("cannot start %s: %w", program, err)
	}
	for {
		var ws unix.WaitStatus
		switch got, err := unix.Wait4(-1, &ws, 0, nil); {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("cannot wait for %s: %w", program, err)
		case got == pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}
