package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"aptfleet/internal/atomicfile"
)

// The operations, in the order in which they are shown.
const (
	opImport   = "import"
	opSnapshot = "snapshot-create"
	opPublish  = "publish-after-1"
	opPromote  = "promote"
	opUndo     = "undo"
	opDiff     = "diff"
)

var operations = []string{opImport, opSnapshot, opPublish, opPromote, opUndo, opDiff}

// row is what one operation cost one tool at one size.
type row struct {
	Op      string  `json:"op"`
	N       int     `json:"n"` // packages in the archive at first
	Tool    string  `json:"tool"`
	Corpus  string  `json:"corpus"` // which packages; see corpus.label
	Runs    int     `json:"runs"`
	Wall    float64 `json:"wall_s"` // the median, as all but p99 and max
	WallP99 float64 `json:"wall_p99_s"`
	WallMax float64 `json:"wall_max_s"`
	Last    float64 `json:"last_command_s"` // of wall, what the last of several commands took
	CPU     float64 `json:"cpu_s"`
	Peak    float64 `json:"peak_mb"`       // the most of all runs; MB are 10^6 bytes
	Written int64   `json:"bytes_written"` // as the kernel counts them for the processes
}

// summarize makes one row of several runs of an operation.
func summarize(op string, c *corpus, tool string, runs []cost) row {
	walls := sorted(runs, func(c cost) float64 { return c.wall.Seconds() })
	peaks := sorted(runs, func(c cost) float64 { return float64(c.peak) / 1e6 })
	return row{
		Op: op, N: c.count, Tool: tool, Corpus: c.label, Runs: len(runs),
		Wall: quantile(walls, 0.5), WallP99: quantile(walls, 0.99), WallMax: quantile(walls, 1),
		Last:    quantile(sorted(runs, func(c cost) float64 { return c.last.Seconds() }), 0.5),
		CPU:     quantile(sorted(runs, func(c cost) float64 { return c.cpu.Seconds() }), 0.5),
		Peak:    quantile(peaks, 1),
		Written: int64(quantile(sorted(runs, func(c cost) float64 { return float64(c.written) }), 0.5)),
	}
}

func sorted(runs []cost, value func(cost) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = value(run)
	}
	slices.Sort(values)
	return values
}

// quantile returns the smallest value that at least the share q of all values
// does not exceed; 0 of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(rank, 0)]
}

func seconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.1f ms", s*1000)
	}
	return fmt.Sprintf("%.2f s", s)
}

// writeTable shows the rows of one size.
func writeTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "operation\ttool\truns\tmedian\tp99\tmax\tCPU\tpeak MB\tMB written\t")
	for _, op := range operations {
		for _, r := range rows {
			if r.Op == op {
				fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%.0f\t%.1f\t\n", r.Op, r.Tool, r.Runs, seconds(r.Wall), seconds(r.WallP99), seconds(r.WallMax),
					seconds(r.CPU), r.Peak, float64(r.Written)/1e6)
			}
		}
	}
	return t.Flush()
}

// writeRatios shows how many times what Aptfleet takes the others take.
func writeRatios(w io.Writer, rows []row) error {
	at := func(op, tool string) (row, bool) {
		i := slices.IndexFunc(rows, func(r row) bool { return r.Op == op && r.Tool == tool })
		if i < 0 {
			return row{}, false
		}
		return rows[i], true
	}
	var tools []string
	for _, r := range rows {
		if r.Tool != "aptfleet" && !slices.Contains(tools, r.Tool) {
			tools = append(tools, r.Tool)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "times aptfleet\t")
	for _, tool := range tools {
		fmt.Fprintf(t, "%s wall\tCPU\t", tool)
	}
	fmt.Fprintln(t)
	line := func(label, op string, wall func(row) float64) {
		ours, ok := at(op, "aptfleet")
		if !ok {
			return
		}
		fmt.Fprintf(t, "%s\t", label)
		for _, tool := range tools {
			if theirs, ok := at(op, tool); ok {
				fmt.Fprintf(t, "%s\t%s\t", times(wall(theirs), ours.Wall), times(theirs.CPU, ours.CPU))
			} else {
				fmt.Fprint(t, "–\t–\t")
			}
		}
		fmt.Fprintln(t)
	}
	for _, op := range operations {
		line(op, op, func(r row) float64 { return r.Wall })
		if op == opPublish {
			line("…, only the publishing command", op, func(r row) float64 { return r.Last })
		}
	}
	return t.Flush()
}

func times(theirs, ours float64) string {
	if ours == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f ×", theirs/ours)
}

// writeGrowth shows what Aptfleet's one-change publish costs at the largest
// size of generated packages, against the smallest.
func writeGrowth(w io.Writer, rows []row) {
	var small, large row
	for _, r := range rows {
		if r.Op != opPublish || r.Tool != "aptfleet" || r.Corpus != "generated" {
			continue
		}
		if small.N == 0 || r.N < small.N {
			small = r
		}
		if r.N > large.N {
			large = r
		}
	}
	if small.N < large.N {
		fmt.Fprintf(w, "\ngrowth of aptfleet's %s from %d to %d packages: %s wall, %s CPU\n", opPublish, small.N, large.N,
			times(large.Wall, small.Wall), times(large.CPU, small.CPU))
	}
}

// writeJSON replaces a file by value as JSON.
func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(text, '\n'), 0o644)
}
