// Program device takes the power from updating devices: make faults-device. It
// makes N images of disks as power cuts leave them, judges each, and says in
// its last line how many do not boot, and how many boot what is neither the old
// nor the new release.
//
//	N=1000     images
//	SEED=…     of everything that is chosen; the default is the time
//	TIME=…     limit, e.g. 40m; running into it is a failure
//	DEVICES=2  devices side by side
//	BREAK=…    flush: a disk that ignores flushes; try-sync, boot-sync or
//	           journal-sync: an updater that leaves that out. It has to be found
//	KEEP=DIR   keep the disks that are not as they must be
package main

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

	"aptfleet/test/faults/cuts"
	"aptfleet/test/rig"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == cuts.Argument {
		os.Exit(cuts.Main())
	}
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	wanted, err := readOrder(os.Getenv)
	if err == nil && os.Geteuid() != 0 {
		err = errors.New("cannot make disks without root: run it as root")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, wanted.limit)
	defer cancel()
	os.Exit(rig.Main("faults-", wanted.tags(), []string{"device-updater"}, func(dir string) (int, error) {
		return wanted.run(ctx, filepath.Join(dir, "device-updater"))
	}))
}

// order is what was asked for.
type order struct {
	images, devices int
	seed            uint64
	limit           time.Duration
	broken          string // "", "flush" or what the updater leaves out
	keep            string
}

// breaks are what can be left out.
var breaks = []string{"", "flush", "try-sync", "boot-sync", "journal-sync"}

func readOrder(env func(string) string) (order, error) {
	o := order{images: 1000, devices: 2, seed: uint64(time.Now().Unix()), broken: env("BREAK"), keep: env("KEEP")}
	var err error
	for name, into := range map[string]*int{"N": &o.images, "DEVICES": &o.devices} {
		if text := env(name); text != "" {
			n, e := strconv.Atoi(text)
			if e != nil || n < 1 {
				err = errors.Join(err, fmt.Errorf("cannot use %s=%s: it is a number from 1", name, text))
			}
			*into = n
		}
	}
	if text := env("SEED"); text != "" {
		var e error
		if o.seed, e = strconv.ParseUint(text, 10, 64); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot use SEED=%s: it is a number", text))
		}
	}
	o.limit = 5*time.Minute + time.Duration(o.images)*6*time.Second
	if text := env("TIME"); text != "" {
		var e error
		if o.limit, e = time.ParseDuration(text); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot use TIME=%s: it is a duration such as 40m", text))
		}
	}
	if !slices.Contains(breaks, o.broken) {
		err = errors.Join(err, fmt.Errorf("cannot use BREAK=%s: it is one of %s", o.broken, strings.Join(breaks[1:], ", ")))
	}
	return o, err
}

func (o order) tags() string {
	tags := "faults"
	if o.broken != "" && o.broken != "flush" {
		tags += " break_" + strings.ReplaceAll(o.broken, "-", "_")
	}
	return tags
}

// run makes and judges images. The code is 0 only if each boots exactly the old
// or exactly the new release, and every state had its share.
func (o order) run(ctx context.Context, program string) (code int, err error) {
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}
	say("SEED=%d, %d images on %d devices, at most %v", o.seed, o.images, o.devices, o.limit)
	c := cuts.Config{
		Program: program, Images: o.images, Seed: o.seed, Deaf: o.broken == "flush", UntilFound: o.broken != "",
		GRUB: 0.05, Worlds: o.devices, Keep: o.keep, Say: say,
	}
	r, err := cuts.Run(ctx, c)
	fmt.Printf("%d images of %d updates in %v, %.1f s each; %d of a second cut; in %d the next update was made, too; in %d the firmware was half; about %d GRUB was asked\n",
		r.Images, r.Rounds, r.Took.Round(time.Second), r.Took.Seconds()/float64(max(r.Images, 1)), r.Twice, r.GoneOn, r.Half, r.Booted)
	fmt.Printf("%v\n%v", r.Writes, r.Tally)
	if missing := r.Tally.Missing(c.Least()); len(missing) > 0 && o.broken == "" {
		fmt.Printf("fewer than %d in %s\n", c.Least(), strings.Join(missing, ", "))
		code = 1
	}
	if r.Unbootable+r.Mixed > 0 || err != nil {
		code = 1
	}
	if err != nil {
		say("%v", err)
	}
	fmt.Printf("faults: %d cuts, %d unbootable, %d mixed\n", r.Images, r.Unbootable, r.Mixed)
	return code, nil
}
