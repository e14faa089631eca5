package journal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/journal"
)

func clock() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func open(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(path, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func add(t *testing.T, j *journal.Journal, phase journal.Phase) {
	t.Helper()
	if _, err := j.Append(journal.Record{Transaction: 1, Phase: phase, Deployment: 2}); err != nil {
		t.Fatal(err)
	}
}

// TestTornAnywhere cuts a journal at every length: what is left is the whole
// records before the cut, and the next record goes behind them.
func TestTornAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	phases := []journal.Phase{journal.Check, journal.Preflight, journal.Download}
	ends := []int64{0}
	for _, p := range phases {
		add(t, j, p)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.Size())
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		torn := filepath.Join(memoryDir(t), "journal")
		if err := os.WriteFile(torn, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for want+1 < len(ends) && ends[want+1] <= int64(n) {
			want++
		}
		j, err := journal.Open(torn, clock)
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if got := len(j.Records()); got != want {
			t.Fatalf("cut at %d: %d records, want %d", n, got, want)
		}
		add(t, j, journal.Failed)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := journal.Read(torn)
		if err != nil || len(again) != want+1 || again[want].Phase != journal.Failed || again[want].Seq != int64(want+1) {
			t.Fatalf("cut at %d, then one more record: %+v, %v", n, again, err)
		}
	}
}

func TestZerosAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	add(t, open(t, path), journal.Check)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 300)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := open(t, path).Last().Phase; got != journal.Check {
		t.Errorf("last is %q", got)
	}
}

// TestDamageInTheMiddle: no power cut makes it. What is whole counts, and what
// was there is kept for whoever wants to know.
func TestDamageInTheMiddle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := open(t, path)
	for _, p := range []journal.Phase{journal.Check, journal.Preflight, journal.Download} {
		add(t, j, p)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[bytes.IndexByte(raw, '\n')+4] = 0
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if records, err := journal.Read(path); err != nil || len(records) != 2 {
		t.Errorf("who looks sees %+v, %v", records, err)
	}
	damaged := open(t, path)
	if records := damaged.Records(); len(records) != 2 || records[0].Phase != journal.Check || records[1].Phase != journal.Download {
		t.Errorf("%+v", records)
	}
	add(t, damaged, journal.Install)
	if kept, err := os.ReadFile(path + journal.Damaged); err != nil || !bytes.Equal(kept, raw) {
		t.Errorf("the damaged journal is not kept: %v", err)
	}
	if last := open(t, path).Last(); last.Phase != journal.Install || last.Seq != 4 {
		t.Errorf("%+v", last)
	}
}

// TestTornLines: one behind the other, when records could not be synced.
func TestTornLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	add(t, open(t, path), journal.Check)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("\"deployment\":2}\nom\":1}\n{"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	j := open(t, path)
	add(t, j, journal.Preflight)
	if records, err := journal.Read(path); err != nil || len(records) != 2 {
		t.Errorf("%+v, %v", records, err)
	}
	if _, err := os.Stat(path + journal.Damaged); err == nil {
		t.Error("a torn end is taken for damage")
	}
}

func TestNoJournalIsEmpty(t *testing.T) {
	records, err := journal.Read(filepath.Join(t.TempDir(), "journal"))
	if err != nil || len(records) != 0 {
		t.Errorf("%v, %v", records, err)
	}
	if last := open(t, filepath.Join(t.TempDir(), "journal")).Last(); last.Open() {
		t.Errorf("%+v is open", last)
	}
}

func TestLongJournalIsShortened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	line := []byte(`{"seq":1,"at":"2026-11-20T12:00:00Z","tx":1,"phase":"CHECK","deployment":1,"from":0}` + "\n")
	var raw []byte
	for range 2500 {
		raw = append(raw, line...)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	j := open(t, path)
	if n := len(j.Records()); n != 500 {
		t.Errorf("%d records left, want 500", n)
	}
	add(t, j, journal.Idle)
	if records, err := journal.Read(path); err != nil || len(records) != 501 {
		t.Errorf("%d records on the disk, %v", len(records), err)
	}
}

// TestOpenJournalIsShortened: so is one that is written to for years.
func TestOpenJournalIsShortened(t *testing.T) {
	path := filepath.Join(memoryDir(t), "journal")
	j := open(t, path)
	for range 2100 {
		add(t, j, journal.Check)
	}
	records, err := journal.Read(path)
	if err != nil || len(records) < 500 || len(records) > 1000 || records[len(records)-1].Seq != 2100 {
		t.Errorf("%d records on the disk, %v", len(records), err)
	}
	if got := len(j.Records()); got != len(records) {
		t.Errorf("%d records in memory, %d on the disk", got, len(records))
	}
}

// memoryDir is a directory that is synced at once, where there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "aptfleet-journal")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestRoundTrip: whatever is appended is read again, in order.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			r.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "journal")
		j, err := journal.Open(path, clock)
		if err != nil {
			r.Fatal(err)
		}
		var want []journal.Record
		for range rapid.IntRange(0, 5).Draw(r, "records") {
			record, err := j.Append(journal.Record{
				Transaction: rapid.Int64Range(0, 9).Draw(r, "tx"), Phase: journal.Install,
				Reason: rapid.String().Draw(r, "reason"), Bad: rapid.Bool().Draw(r, "bad"),
			})
			if err != nil {
				r.Fatal(err)
			}
			want = append(want, record)
		}
		if err := j.Close(); err != nil {
			r.Fatal(err)
		}
		got, err := journal.Read(path)
		if err != nil || len(got) != len(want) {
			r.Fatalf("%d records, want %d: %v", len(got), len(want), err)
		}
		for i := range want {
			// JSON has no invalid UTF-8.
			if got[i].Seq != want[i].Seq || got[i].Transaction != want[i].Transaction || got[i].Bad != want[i].Bad {
				r.Fatalf("%+v, want %+v", got[i], want[i])
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"seq":1,"phase":"CHECK"}` + "\n"))
	f.Add([]byte("\n\n"))
	f.Add([]byte(`{"seq":1,"phase":"CHECK"}` + "\n{"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(path, clock)
		if err != nil {
			return
		}
		n := len(j.Records())
		if _, err := j.Append(journal.Record{Phase: journal.Idle}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := journal.Read(path); err != nil || len(again) != n+1 {
			t.Errorf("%d records after appending to %d: %v", len(again), n, err)
		}
	})
}
