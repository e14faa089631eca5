package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cost is what an operation took.
type cost struct {
	wall    time.Duration
	last    time.Duration // of wall, what the last command took
	cpu     time.Duration // user and system, of all processes that took part
	peak    int64         // bytes of memory at most
	written int64         // bytes handed to the file system
}

// runner runs the commands of one tool, one after the other, and adds up what
// they cost.
type runner struct {
	env   []string            // besides ours
	total cost                // of all commands; peak is that of the largest since it was reset
	say   func(string)        // is told each command line before it runs
	known map[string]struct{} // by first words: command lines that were told
}

// run runs a command in dir and returns what it said on its standard output.
func (r *runner) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	r.tell(program, args)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), r.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("cannot run %s: %w", program, err)
	}
	// What a process wrote can be read until somebody waits for it.
	gone := awaitEnd(cmd.Process.Pid)
	r.total.last = time.Since(begin)
	written, ioErr := writtenBy(cmd.Process.Pid)
	err := cmd.Wait()
	if err == nil {
		err = errors.Join(gone, ioErr)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args[:min(len(args), 8)], " "), err, tail(stdout.String()), tail(stderr.String()))
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	r.total.wall += r.total.last
	r.total.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	r.total.peak = max(r.total.peak, usage.Maxrss<<10)
	r.total.written += written
	return stdout.String(), nil
}

// tell says a command line the first time that its kind is run.
func (r *runner) tell(program string, args []string) {
	var kind, line []string
	for i, arg := range args {
		if i >= 12 {
			line = append(line, "…")
			break
		}
		line = append(line, arg)
		if !strings.HasPrefix(arg, "-") && !strings.Contains(arg, "/") && len(kind) < 2 {
			kind = append(kind, arg)
		}
	}
	key := strings.Join(kind, " ")
	if _, ok := r.known[key]; ok || r.say == nil {
		return
	}
	if r.known == nil {
		r.known = make(map[string]struct{})
	}
	r.known[key] = struct{}{}
	r.say(filepath.Base(program) + " " + strings.Join(line, " "))
}

// tail is the end of what a command said.
func tail(text string) string {
	const most = 2000
	if len(text) > most {
		return "…" + text[len(text)-most:]
	}
	return text
}

// awaitEnd waits until a child has ended and leaves it to be waited for.
func awaitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writtenBy returns how many bytes a process, with its children that it has
// waited for, had the kernel write, caches included (proc(5), write_bytes).
func writtenBy(pid int) (int64, error) {
	return procNumber(pid, "io", "write_bytes:")
}

// cpuOf returns the CPU time of a process, to the nanosecond: the clock that
// clock_getcpuclockid(3) names.
func cpuOf(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("cannot read the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// peakOf returns the most memory that a process had since resetPeak, in bytes.
func peakOf(pid int) (int64, error) {
	kib, err := procNumber(pid, "status", "VmHWM:")
	return kib << 10, err
}

// resetPeak begins to measure the peak of a process anew.
func resetPeak(pid int) error {
	const peak = "5" // proc(5), clear_refs
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(peak), 0)
}

// forgetOwnPeak gives memory back to the kernel: a child's peak is at least
// that of the process that started it.
func forgetOwnPeak() error {
	debug.FreeOSMemory()
	return resetPeak(os.Getpid())
}

// procNumber reads the number behind a word of a file of proc(5).
func procNumber(pid int, file, word string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), word)
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, fmt.Errorf("cannot find %s in /proc/%d/%s", word, pid, file)
	}
	return strconv.ParseInt(fields[0], 10, 64)
}
