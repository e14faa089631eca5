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
	"fmt"
	"os"
	"strings"
	"time"

	"aptfleet/test/faults/attack"
	"aptfleet/test/faults/cuts"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == cuts.Argument {
		os.Exit(cuts.Main())
	}
	var wanted order
	attack.Main("device-updater", wanted.read, wanted.run)
}

// order is what was asked for.
type order struct {
	attack.Order
	images, devices int
	keep            string
}

func (o *order) read(env *attack.Environment) attack.Order {
	o.images, o.devices = env.Number("N", 1000, 1), env.Number("DEVICES", 2, 1)
	o.keep = os.Getenv("KEEP")
	o.Order = env.Order(5*time.Minute+time.Duration(o.images)*6*time.Second, attack.Flush, "try-sync", "boot-sync", "journal-sync")
	return o.Order
}

// run makes and judges images. The code is 0 only if each boots exactly the old
// or exactly the new release, and every state had its share.
func (o *order) run(ctx context.Context, program string) (code int, err error) {
	attack.Say("SEED=%d, %d images on %d devices, at most %v", o.Seed, o.images, o.devices, o.Limit)
	c := cuts.Config{
		Program: program, Images: o.images, Seed: o.Seed, Deaf: o.Broken == attack.Flush, UntilFound: o.Broken != "",
		GRUB: 0.05, Worlds: o.devices, Keep: o.keep, Say: attack.Say,
	}
	r, err := cuts.Run(ctx, c)
	fmt.Printf("%d images of %d updates in %v, %.1f s each; %d of a second cut; in %d the next update was made, too; in %d the firmware was half; about %d GRUB was asked\n",
		r.Images, r.Rounds, r.Took.Round(time.Second), r.Took.Seconds()/float64(max(r.Images, 1)), r.Twice, r.GoneOn, r.Half, r.Booted)
	fmt.Printf("%v\n%v", r.Writes, r.Tally)
	if missing := r.Tally.Missing(c.Least()); len(missing) > 0 && o.Broken == "" {
		fmt.Printf("fewer than %d in %s\n", c.Least(), strings.Join(missing, ", "))
		code = 1
	}
	if r.Unbootable+r.Mixed > 0 || err != nil {
		code = 1
	}
	if err != nil {
		attack.Say("%v", err)
	}
	fmt.Printf("faults: %d cuts, %d unbootable, %d mixed\n", r.Images, r.Unbootable, r.Mixed)
	return code, nil
}
