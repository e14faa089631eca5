package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// detail is what is known about Aptfleet alone, at one size.
type detail struct {
	N       int                `json:"n"`
	Corpus  string             `json:"corpus"`
	Publish float64            `json:"publish_ms"` // the median of publish-after-1
	Parts   map[string]float64 `json:"parts_ms"`   // where that goes
	Samples int                `json:"samples"`    // on which parts rests
	Floor   floor              `json:"floor"`
	// What a snapshot adds to the disk, by directory of the data, in bytes:
	// one of content that was published before, and a publication of one
	// change with a snapshot of it, without the package's own file.
	Unchanged map[string]int64 `json:"snapshot_unchanged_bytes"`
	Changed   map[string]int64 `json:"snapshot_changed_bytes"`
	Memory    *memory          `json:"memory,omitempty"`
}

// memory is that of a server with many snapshots.
type memory struct {
	Snapshots int     `json:"snapshots"`
	States    int     `json:"states"`     // different ones among them
	Peak      float64 `json:"peak_mb"`    // since they began to be made
	Restarted float64 `json:"restart_mb"` // the peak of a server that was started with all of it
	Restart   float64 `json:"restart_s"`  // until that answered
}

// examine looks closer at Aptfleet after the contest.
func (b *bench) examine(ctx context.Context, a *aptfleet, c *contest, last bool) error {
	d := detail{N: c.corpus.count, Corpus: c.corpus.label}
	for _, r := range c.rows {
		if r.Op == opPublish {
			d.Publish = r.Wall * 1000
		}
	}
	var err error
	binary := filepath.Join(a.data, "public", pipeline, dev, "dists", distribution, filepath.Dir(index))
	if d.Floor, err = measureFloor(binary, c.scratch, 7); err != nil {
		return err
	}
	if err := d.sample(ctx, a, c); err != nil {
		return err
	}
	if err := d.weigh(ctx, a, c); err != nil {
		return err
	}
	if last && b.snapshots > 0 {
		if err := d.remember(ctx, a, c, b.snapshots); err != nil {
			return err
		}
	}
	b.details = append(b.details, d)
	return d.write(b.out)
}

// sample publishes single changes on a server that can be profiled and looks
// what it does meanwhile. These publications are not among those measured.
func (d *detail) sample(ctx context.Context, a *aptfleet, c *contest) error {
	if err := a.stop(); err != nil {
		return err
	}
	if err := a.serveProfiled(ctx); err != nil {
		return err
	}
	var seen samples
	for range c.runs {
		watched := *c
		watched.tool = watchedTool{aptfleet: a, into: &seen}
		_, err := watched.publishOne(ctx)
		c.changes, c.changed = watched.changes, watched.changed
		if err != nil {
			return err
		}
	}
	d.Samples, d.Parts = int(seen.total), make(map[string]float64)
	for part, count := range seen.parts {
		d.Parts[part] = d.Publish * count / seen.total
	}
	if err := a.stop(); err != nil {
		return err
	}
	return a.serve(ctx, a.program())
}

// watchedTool is an Aptfleet that is looked at while it adds a package.
type watchedTool struct {
	*aptfleet
	into *samples
}

func (w watchedTool) addOne(ctx context.Context, path string) error {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- newProfiler(w.profiles()).watch(ctx, stop, w.into) }()
	err := w.aptfleet.addOne(ctx, path)
	close(stop)
	return errors.Join(err, <-ended)
}

// weigh measures what snapshots add to the disk.
func (d *detail) weigh(ctx context.Context, a *aptfleet, c *contest) error {
	before, err := usedBelow(a.data)
	if err != nil {
		return err
	}
	if err := a.snapshot(ctx, "unchanged"); err != nil {
		return err
	}
	between, err := usedBelow(a.data)
	if err != nil {
		return err
	}
	if _, err := c.publishOne(ctx); err != nil {
		return err
	}
	if err := a.snapshot(ctx, "changed"); err != nil {
		return err
	}
	after, err := usedBelow(a.data)
	d.Unchanged, d.Changed = difference(between, before), difference(after, between)
	delete(d.Changed, diskPool) // the package's own file
	return err
}

// Where the data directory's bytes are, as far as they are told apart.
const (
	diskPool    = "pool"
	diskIndices = "index files" // of which bases hold links
	diskBases   = "bases"
	diskBlobs   = "chunks and states"
	diskRest    = "database and rest"
)

// usedBelow adds up the disk space of a data directory by part. A file with
// several names counts once; one that the server takes away just now, not at all.
func usedBelow(data string) (map[string]int64, error) {
	used := make(map[string]int64)
	seen := make(map[uint64]bool)
	err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = os.Lstat(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if seen[stat.Ino] {
			return nil
		}
		seen[stat.Ino] = true
		used[diskPart(strings.TrimPrefix(path, data+"/"))] += stat.Blocks * 512
		return nil
	})
	return used, err
}

// diskPart tells what a file of the data directory belongs to. Index files
// count where they are kept, which a walk in lexical order meets first.
func diskPart(rel string) string {
	for _, p := range []struct{ prefix, part string }{
		{"blobs/", diskBlobs}, {"public/.indices/", diskIndices}, {"public/pool/", diskPool}, {"public/", diskBases},
	} {
		if strings.HasPrefix(rel, p.prefix) {
			return p.part
		}
	}
	return diskRest
}

func difference(after, before map[string]int64) map[string]int64 {
	all := make(map[string]int64)
	for part, bytes := range after {
		all[part] = bytes - before[part]
	}
	return all
}

// remember gives the server more snapshots, every other one of a new state,
// and measures its memory, then that of a server that starts with them.
func (d *detail) remember(ctx context.Context, a *aptfleet, c *contest, want int) error {
	if err := a.resetPeak(); err != nil {
		return err
	}
	have, err := a.server.API.Snapshots(ctx, pipeline)
	if err != nil {
		return err
	}
	for i := len(have); i < want; i++ {
		if i%2 == 0 {
			if _, err := c.publishOne(ctx); err != nil {
				return err
			}
		}
		if err := a.snapshot(ctx, fmt.Sprint("number ", i)); err != nil {
			return err
		}
	}
	if have, err = a.server.API.Snapshots(ctx, pipeline); err != nil {
		return err
	}
	states := make(map[string]bool)
	for _, s := range have {
		states[s.State] = true
	}
	m := memory{Snapshots: len(have), States: len(states)}
	peak, err := peakOf(a.server.PID())
	if err != nil {
		return err
	}
	m.Peak = float64(peak) / 1e6
	if err := a.stop(); err != nil {
		return err
	}
	begin := time.Now()
	if err := a.serve(ctx, a.program()); err != nil {
		return err
	}
	m.Restart = time.Since(begin).Seconds()
	// The tree that was published before must still be there.
	if err := c.mustOffer(ctx, dev, c.latest()...); err != nil {
		return err
	}
	if peak, err = peakOf(a.server.PID()); err != nil {
		return err
	}
	m.Restarted = float64(peak) / 1e6
	d.Memory = &m
	return nil
}

// write shows it to people.
func (d *detail) write(out io.Writer) error {
	fmt.Fprintf(out, "\n  where the %.1f ms of a publication go (%d samples of others like it):\n", d.Publish, d.Samples)
	t := tabwriter.NewWriter(out, 4, 0, 2, ' ', 0)
	for _, part := range parts {
		if ms, ok := d.Parts[part]; ok {
			fmt.Fprintf(t, "\t%s\t%.1f ms\t%.0f %%\n", part, ms, 100*ms/d.Publish)
		}
	}
	f := d.Floor
	fmt.Fprintf(t, "\tfloor: hash %.1f MB\t%.1f ms\n\tfloor: write %.1f MB\t%.1f ms\n\tfloor: one syncfs\t%.1f ms\n",
		float64(f.Bytes)/1e6, f.Hash, float64(f.Written)/1e6, f.Write, f.Sync)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "  that is %.1f × hashing and writing, %.1f × with one syncfs\n", d.Publish/(f.Hash+f.Write), d.Publish/(f.Hash+f.Write+f.Sync))
	fmt.Fprintf(out, "  disk, a snapshot of what is published: %s\n  disk, one change and a snapshot of it: %s\n", kilobytes(d.Unchanged), kilobytes(d.Changed))
	if m := d.Memory; m != nil {
		fmt.Fprintf(out, "  memory with %d snapshots of %d states: at most %.0f MB; a new start answers after %.2f s, at most %.0f MB\n",
			m.Snapshots, m.States, m.Peak, m.Restart, m.Restarted)
	}
	return nil
}

func kilobytes(used map[string]int64) string {
	var words []string
	for _, part := range slices.Sorted(maps.Keys(used)) {
		words = append(words, fmt.Sprintf("%s %.0f kB", part, float64(used[part])/1000))
	}
	return strings.Join(words, ", ")
}
