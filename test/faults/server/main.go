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
	"fmt"
	"strings"
	"time"

	"aptfleet/test/faults/attack"
	"aptfleet/test/faults/siege"
	"aptfleet/test/lossydisk"
)

func main() {
	var wanted order
	attack.Main("repo-manager", wanted.read, wanted.run)
}

// order is what was asked for.
type order struct {
	attack.Order
	kills, cuts int
}

func (o *order) read(env *attack.Environment) attack.Order {
	o.kills = env.Number("N", 500, 0)
	o.cuts = env.Number("CUTS", o.kills*2/5, 0)
	o.Order = env.Order(time.Minute+time.Duration(o.kills+o.cuts)*6*time.Second, "fsync", "rename-order")
	return o.Order
}

// run besieges program. The code is 0 only if nothing was lost, no client saw
// a mismatch, and the server was killed in every phase.
func (o *order) run(ctx context.Context, program string) (code int, err error) {
	attack.Say("SEED=%d, %d kills, %d power cuts, at most %v", o.Seed, o.kills, o.cuts, o.Limit)
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
		attack.Say("%s: %d", part.what, part.kills)
		var r *siege.Result
		r, err = siege.Run(ctx, siege.Config{
			Program: program, Kills: part.kills, Seed: o.Seed, FileSystem: part.fs, Apt: true, UntilFound: o.Broken != "", Say: attack.Say,
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
		if missing := r.Tally.Missing(); len(missing) > 0 && o.Broken == "" {
			fmt.Printf("%s: none during %s\n", part.what, strings.Join(missing, ", "))
			code = 1
		}
	}
	if total.Lost+total.Mismatches > 0 || err != nil {
		code = 1
	}
	if err != nil {
		attack.Say("%v", err)
	}
	fmt.Printf("faults: %d kills, %d lost, %d mismatches\n", total.Kills, total.Lost, total.Mismatches)
	return code, nil
}
