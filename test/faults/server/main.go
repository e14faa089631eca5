// Program server besieges repo-manager: make faults-server. It builds the
// program with its fault points, kills it N times and cuts the power of its
// disk CUTS times, and says in its last line what was lost.
//
//	N=500        kills
//	CUTS=N*2/5   power cuts, in turn on ext4 and btrfs
//	SEED=…       of everything that is chosen; the default is the time
//	TIME=…       limit, e.g. 40m; running into it is a failure
//	BREAK=…      fsync or rename-order: a program that leaves that out, which has to be found
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aptfleet/test/faults/siege"
	"aptfleet/test/lossydisk"
	"aptfleet/test/rig"
)

func main() {
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
	os.Exit(rig.Main("faults-", wanted.tags(), []string{"repo-manager"}, func(dir string) (int, error) {
		return wanted.run(ctx, filepath.Join(dir, "repo-manager"))
	}))
}

// order is what was asked for.
type order struct {
	kills, cuts int
	seed        uint64
	limit       time.Duration
	broken      string // "", "fsync" or "rename-order"
}

func readOrder(env func(string) string) (order, error) {
	o := order{kills: 500, seed: uint64(time.Now().Unix()), broken: env("BREAK")}
	number := func(name string, into *int) error {
		text := env(name)
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("cannot use %s=%s: it is a number", name, text)
		}
		*into = n
		return nil
	}
	err := number("N", &o.kills)
	o.cuts = o.kills * 2 / 5
	err = errors.Join(err, number("CUTS", &o.cuts))
	if text := env("SEED"); text != "" {
		var e error
		if o.seed, e = strconv.ParseUint(text, 10, 64); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot use SEED=%s: it is a number", text))
		}
	}
	o.limit = time.Minute + time.Duration(o.kills+o.cuts)*6*time.Second
	if text := env("TIME"); text != "" {
		var e error
		if o.limit, e = time.ParseDuration(text); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot use TIME=%s: it is a duration such as 40m", text))
		}
	}
	if o.broken != "" && o.broken != "fsync" && o.broken != "rename-order" {
		err = errors.Join(err, fmt.Errorf("cannot use BREAK=%s: it is fsync or rename-order", o.broken))
	}
	return o, err
}

func (o order) tags() string {
	tags := "faults"
	if o.broken != "" {
		tags += " break_" + strings.ReplaceAll(o.broken, "-", "_")
	}
	return tags
}

// run besieges program. The code is 0 only if nothing was lost, no client saw
// a mismatch, and the server was killed in every phase.
func (o order) run(ctx context.Context, program string) (code int, err error) {
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}
	say("SEED=%d, %d kills, %d power cuts, at most %v", o.seed, o.kills, o.cuts, o.limit)
	var total siege.Result
	for _, part := range []struct {
		what  string
		fs    *lossydisk.FileSystem
		kills int
	}{
		{"kill -9", nil, o.kills},
		{"power cuts on ext4", &lossydisk.Ext4, (o.cuts + 1) / 2},
		{"power cuts on btrfs", &lossydisk.Btrfs, o.cuts / 2},
	} {
		if part.kills == 0 || err != nil {
			continue
		}
		say("%s: %d", part.what, part.kills)
		var r *siege.Result
		r, err = siege.Run(ctx, siege.Config{
			Program: program, Kills: part.kills, Seed: o.seed, FileSystem: part.fs, Apt: true, UntilFound: o.broken != "", Say: say,
		})
		total.Kills += r.Kills
		total.Lost += r.Lost
		total.Mismatches += r.Mismatches
		fmt.Printf("%s: %d in %v, %.1f s each; %d answers were checked, clients verified %d files, keepers ended %d jobs\n",
			part.what, r.Kills, r.Took.Round(time.Second), r.Took.Seconds()/float64(max(r.Kills, 1)), r.Promises, r.Reads, r.Jobs)
		if part.fs != nil {
			fmt.Printf("%s: %v\n", part.what, r.Writes)
		}
		fmt.Print(r.Tally)
		if missing := r.Tally.Missing(); len(missing) > 0 && o.broken == "" {
			fmt.Printf("%s: none during %s\n", part.what, strings.Join(missing, ", "))
			code = 1
		}
	}
	if total.Lost+total.Mismatches > 0 || err != nil {
		code = 1
	}
	if err != nil {
		say("%v", err)
	}
	fmt.Printf("faults: %d kills, %d lost, %d mismatches\n", total.Kills, total.Lost, total.Mismatches)
	return code, nil
}
