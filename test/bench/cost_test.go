package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

// A command that is known to write, to need memory and to compute is found to
// have done so.
func TestCostOfACommand(t *testing.T) {
	ctx := context.Background()
	if err := forgetOwnPeak(); err != nil {
		t.Fatal(err)
	}
	var r runner
	dir := onDisk(t)
	if _, err := r.run(ctx, dir, "true"); err != nil {
		t.Fatal(err)
	}
	idle := r.total
	if idle.peak > 60e6 || idle.cpu > time.Second {
		t.Errorf("`true` took %+v", idle)
	}
	if _, err := r.run(ctx, dir, "dd", "if=/dev/zero", "of=file", "bs=80M", "count=1"); err != nil {
		t.Fatal(err)
	}
	if r.total.peak < 80<<20 || r.total.peak > 120<<20 {
		t.Errorf("a program with a buffer of 80 MiB had %d bytes at most", r.total.peak)
	}
	if written := r.total.written - idle.written; written < 80<<20 {
		t.Errorf("80 MiB were written, %d bytes counted", written)
	}
	if r.total.cpu <= idle.cpu || r.total.last <= 0 || r.total.wall < r.total.last {
		t.Errorf("times make no sense: %+v", r.total)
	}
	// What a child of the command does counts too.
	before := r.total
	if _, err := r.run(ctx, dir, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; head -c 10000000 /dev/zero >other; true"); err != nil {
		t.Fatal(err)
	}
	if written := r.total.written - before.written; written < 10e6 {
		t.Errorf("a child wrote 10 MB, %d bytes counted", written)
	}
	if _, err := r.run(ctx, dir, "false"); err == nil {
		t.Error("a command that fails is no error")
	}
}

func TestCostOfAProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := cpuOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	const work = 50 * time.Millisecond
	for begin := ownCPU(t); ownCPU(t)-begin < work; {
	}
	after, err := cpuOf(pid)
	if took := after - before; err != nil || took < work*9/10 || took > 10*time.Second {
		t.Errorf("%s of computing are counted as %s (%v)", work, took, err)
	}
	if err := resetPeak(pid); err != nil {
		t.Fatal(err)
	}
	low, err := peakOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	if high, err := peakOf(pid); err != nil || high < low+32<<20 {
		t.Errorf("64 MiB more moved the peak from %d to %d (%v)", low, high, err)
	}
}

// ownCPU is the CPU time of this process as getrusage(2) has it.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestCommandLinesAreToldOnceOfAKind(t *testing.T) {
	var told []string
	r := runner{say: func(line string) { told = append(told, line) }}
	for range 2 {
		for _, command := range []string{"repo", "snapshot"} {
			if _, err := r.run(context.Background(), "/", "/usr/bin/echo", "-flag", command, "add"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(told) != 2 || told[0] != "echo -flag repo add" {
		t.Errorf("told %q", told)
	}
}
