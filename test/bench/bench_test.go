package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The whole benchmark, small: every tool does every operation and none loses
// anything (the contest fails otherwise), and the results make sense.
func TestAllToolsDoAllOperations(t *testing.T) {
	work := onDisk(t)
	var out strings.Builder
	b := bench{
		plan: plan{runs: 2, least: 2, budget: time.Minute, patience: 10 * time.Second}, tools: []string{"reprepro-gz", "aptly", "aptfleet"},
		snapshots: 6, work: work, cache: t.TempDir(), results: t.TempDir(), out: &out,
	}
	if err := b.choose("200", "xz"); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
	var rows []row
	decode(t, filepath.Join(b.results, "result.json"), &rows)
	seen := make(map[string]int)
	for _, r := range rows {
		seen[r.Op+" "+r.Tool]++
		if r.N != 200 || r.Runs < 1 || r.Wall <= 0 || r.WallP99 < r.Wall || r.WallMax < r.WallP99 || r.WallMax > 60 || r.Last <= 0 || r.Last > r.WallMax {
			t.Errorf("times make no sense: %+v", r)
		}
		if r.CPU <= 0 || r.CPU > 60 || r.Peak < 1 || r.Peak > 1000 || r.Written < 0 || r.Written > 1e9 {
			t.Errorf("costs make no sense: %+v", r)
		}
		if r.Op != opDiff && r.Written == 0 {
			t.Errorf("nothing was written: %+v", r)
		}
	}
	for _, op := range operations {
		for _, name := range b.tools {
			if seen[op+" "+name] != 1 {
				t.Errorf("%d results for %s of %s, want one", seen[op+" "+name], op, name)
			}
		}
	}
	var details []detail
	decode(t, filepath.Join(b.results, "aptfleet.json"), &details)
	if len(details) != 1 {
		t.Fatalf("%d sizes were examined, want one", len(details))
	}
	d := details[0]
	total := 0.0
	for _, ms := range d.Parts {
		total += ms
	}
	if d.Samples == 0 || math.Abs(total-d.Publish) > 0.01*d.Publish || d.Parts[partOutside] > 0.99*d.Publish {
		t.Errorf("a publication takes %.1f ms, its parts are %v (%d samples)", d.Publish, d.Parts, d.Samples)
	}
	if d.Floor.Hash <= 0 || d.Floor.Write <= 0 || d.Floor.Sync <= 0 {
		t.Errorf("the floor is %+v", d.Floor)
	}
	if d.Unchanged[diskBlobs] != 0 || d.Unchanged[diskIndices] != 0 || d.Changed[diskBlobs] == 0 {
		t.Errorf("a snapshot of what is published adds %v, one of a change %v", d.Unchanged, d.Changed)
	}
	if m := d.Memory; m == nil || m.Snapshots != 6 || m.States < 2 || m.Peak < 5 || m.Restarted < 5 {
		t.Errorf("memory: %+v", m)
	}
	for _, want := range []string{"$ aptly ", "$ reprepro ", "$ repo-manager ", "times aptfleet", "floor: hash"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
}

// onDisk returns a temporary directory with a short path, for sockets have
// little room, on a file system for which the kernel counts what is written:
// it does not for tmpfs.
func onDisk(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func decode(t *testing.T, path string, into any) {
	t.Helper()
	if err := json.Unmarshal(read(t, path), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
