package main

import (
	"strings"
	"testing"
	"time"
)

func TestSummaryOfRuns(t *testing.T) {
	var runs []cost
	for i := 20; i >= 1; i-- {
		runs = append(runs, cost{
			wall: time.Duration(i) * time.Second, last: time.Duration(i) * time.Millisecond, cpu: 2 * time.Duration(i) * time.Second,
			peak: int64(i) * 1e6, written: int64(i),
		})
	}
	got := summarize(opPublish, &corpus{label: "generated", count: 7}, "aptly", runs)
	want := row{
		Op: opPublish, N: 7, Tool: "aptly", Corpus: "generated", Runs: 20,
		Wall: 10, WallP99: 20, WallMax: 20, Last: 0.010, CPU: 20, Peak: 20, Written: 10,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, test := range []struct {
		of   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0}, {[]float64{3}, 0.5, 3}, {[]float64{3}, 0.99, 3}, {[]float64{1, 2, 3}, 0.5, 2}, {[]float64{1, 2}, 0.5, 1},
		{hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1},
	} {
		if got := quantile(test.of, test.q); got != test.want {
			t.Errorf("quantile %v of %d values is %v, want %v", test.q, len(test.of), got, test.want)
		}
	}
}

func TestRatiosAndGrowth(t *testing.T) {
	rows := []row{
		{Op: opPublish, N: 5000, Tool: "aptfleet", Corpus: "generated", Wall: 0.020, CPU: 0.010},
		{Op: opPublish, N: 5000, Tool: "aptly", Corpus: "generated", Wall: 1.2, Last: 1.0, CPU: 1},
		{Op: opUndo, N: 5000, Tool: "aptfleet", Corpus: "generated", Wall: 0, CPU: 0.5},
		{Op: opUndo, N: 5000, Tool: "aptly", Corpus: "generated", Wall: 1, CPU: 1},
	}
	var b strings.Builder
	if err := writeRatios(&b, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for i, want := range []string{"times aptfleet aptly wall CPU", "publish-after-1 60.0 × 100.0 ×", "…, only the publishing command 50.0 × 100.0 ×", "undo – 2.0 ×"} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
	b.Reset()
	writeGrowth(&b, rows)
	if b.Len() > 0 {
		t.Errorf("one size has grown: %s", b.String())
	}
	rows = append(rows, row{Op: opPublish, N: 60000, Tool: "aptfleet", Corpus: "generated", Wall: 0.050, CPU: 0.015},
		row{Op: opPublish, N: 70000, Tool: "aptfleet", Corpus: "trixie", Wall: 9, CPU: 9})
	writeGrowth(&b, rows)
	if want := "from 5000 to 60000 packages: 2.5 × wall, 1.5 × CPU\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("growth is %q, want it to end in %q", b.String(), want)
	}
}

func TestSizes(t *testing.T) {
	for _, test := range []struct{ given, want string }{
		{"20000", "5000 20000"}, {"60000", "5000 60000"}, {"200", "200"}, {"5000", "5000"},
		{"100,300", "100 300"}, {"20000,", "20000"}, {"debian", "debian"}, {"5000 debian", "5000 debian"},
		{"", ""}, {"-1", ""}, {"many", ""}, {"5", ""},
	} {
		var b bench
		err := b.choose(test.given, "gz")
		if got := strings.Join(b.inputs, " "); (err != nil) != (test.want == "") || err == nil && got != test.want {
			t.Errorf("size %q: %q, %v; want %q", test.given, got, err, test.want)
		}
	}
	if err := new(bench).choose("200", "bz2"); err == nil {
		t.Error("packages with bz2 members are promised")
	}
}
