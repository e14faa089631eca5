package siege

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"

	"aptfleet/test/lossydisk"
)

// A place is where a data directory lies. It decides what a death leaves of it.
type place interface {
	// data is the data directory, valid until the next fall.
	data() string
	// fall lets the server die by calling end, which returns when it is dead,
	// and comes back with what is left. An error of type *gone says that
	// nothing is.
	fall(ctx context.Context, random *rand.Rand, end func()) (lossydisk.Losses, error)
	// close gives everything back; the server has ended.
	close() error
}

// gone says that the disk cannot even be mounted any more.
type gone struct{ err error }

func (g *gone) Error() string { return g.err.Error() }

// directory is a place on the machine's own disk: the server is killed, and
// the kernel keeps everything it wrote.
type directory struct{ dir string }

func (d directory) data() string { return filepath.Join(d.dir, "data") }

func (d directory) fall(_ context.Context, _ *rand.Rand, end func()) (lossydisk.Losses, error) {
	end()
	return lossydisk.Losses{}, nil
}

func (d directory) close() error { return nil }

// disk is a place on a disk whose power fails.
type disk struct {
	dir    string
	fs     lossydisk.FileSystem
	deaf   bool
	disk   *lossydisk.Disk
	device *lossydisk.Device
	doom   func() // called when the power fails: from now on nothing counts
}

func newDisk(ctx context.Context, dir string, fs lossydisk.FileSystem, deaf bool, doom func()) (*disk, error) {
	d := &disk{dir: dir, fs: fs, deaf: deaf, disk: lossydisk.NewDisk(fs.Size), doom: doom}
	if err := os.Mkdir(d.mountPoint(), 0o755); err != nil {
		return nil, err
	}
	if err := d.attach(ctx, true); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *disk) mountPoint() string { return filepath.Join(d.dir, "m") }

func (d *disk) data() string { return filepath.Join(d.mountPoint(), "data") }

func (d *disk) attach(ctx context.Context, format bool) (err error) {
	if d.device, err = lossydisk.Attach(ctx, d.disk, d.dir); err != nil {
		return err
	}
	if format {
		if err := d.device.Format(ctx, d.fs); err != nil {
			return err
		}
	}
	if err := d.device.Mount(d.fs, d.mountPoint()); err != nil {
		return &gone{err}
	}
	if d.deaf {
		d.disk.Deafen()
	}
	return nil
}

func (d *disk) fall(ctx context.Context, random *rand.Rand, end func()) (lossydisk.Losses, error) {
	d.doom()
	after, lost := d.disk.Cut(random, d.fs.Tear)
	end()
	if err := d.close(); err != nil {
		return lost, err
	}
	d.disk = after
	return lost, d.attach(ctx, false)
}

func (d *disk) close() error {
	if d.device == nil {
		return nil
	}
	err := d.device.Close()
	d.device = nil
	return err
}
