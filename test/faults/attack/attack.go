// Package attack is what the programs of `make faults-server` and `make
// faults-device` have in common: they are ordered by their environment, run
// apart from all other mounts, and build the program that they attack.
package attack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aptfleet/test/rig"
)

// Order is what was asked for, besides how much of it.
type Order struct {
	Seed   uint64
	Limit  time.Duration
	Broken string // "" or what is left out, which has to be found
}

// Flush is left out by the disk, and not by the program.
const Flush = "flush"

// Environment is where an order is read from. It collects what is wrong with it.
type Environment struct {
	get func(string) string
	err error
}

func (e *Environment) refuse(name, is string) {
	e.err = errors.Join(e.err, fmt.Errorf("cannot use %s=%s: it is %s", name, e.get(name), is))
}

// Number returns the number that is called name, otherwise if there is none.
func (e *Environment) Number(name string, otherwise, least int) int {
	text := e.get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		e.refuse(name, fmt.Sprintf("a number from %d", least))
	}
	return n
}

// Order reads SEED, TIME and BREAK. limit is what holds without a TIME, breaks
// what can be left out.
func (e *Environment) Order(limit time.Duration, breaks ...string) Order {
	o := Order{Seed: uint64(time.Now().Unix()), Limit: limit, Broken: e.get("BREAK")}
	var err error
	if text := e.get("SEED"); text != "" {
		if o.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			e.refuse("SEED", "a number")
		}
	}
	if text := e.get("TIME"); text != "" {
		if o.Limit, err = time.ParseDuration(text); err != nil {
			e.refuse("TIME", "a duration such as 40m")
		}
	}
	if o.Broken != "" && !slices.Contains(breaks, o.Broken) {
		e.refuse("BREAK", "one of "+strings.Join(breaks, ", "))
	}
	return o
}

// Say prints a line of progress on stderr.
func Say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// Main attacks a program of this module, named by its directory, which it builds
// with its fault points and without what the order leaves out. read reads the
// order, and run attacks the program at path; its result is the exit code. Main
// does not return.
func Main(program string, read func(*Environment) Order, run func(ctx context.Context, path string) (code int, err error)) {
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	env := &Environment{get: os.Getenv}
	wanted, err := read(env), env.err
	if err == nil && os.Geteuid() != 0 {
		err = errors.New("cannot make disks without root: run it as root")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, wanted.Limit)
	defer cancel()
	os.Exit(rig.Main("faults-", wanted.tags(), []string{program}, func(dir string) (int, error) {
		return run(ctx, filepath.Join(dir, program))
	}))
}

// tags are the build tags of the program.
func (o Order) tags() string {
	tags := "faults"
	if o.Broken != "" && o.Broken != Flush {
		tags += " break_" + strings.ReplaceAll(o.Broken, "-", "_")
	}
	return tags
}
