package update

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/journal"
)

// printed is what apt 3.0 and dpkg print with APT::Status-Fd "1".
const printed = `Reading package lists...
pmstatus:dpkg-exec:0.0000:Running dpkg
(Reading database ... 7000 files and directories currently installed.)
pmstatus:old:0.0000:Removing old (all)
Removing old (1) ...
pmstatus:old:12.5000:Completely removed old (all)
pmstatus:lib:20.0000:Unpacking lib (amd64)
Unpacking lib (2) ...
pmstatus:lib:40.0000:Installed lib (amd64)
pmstatus:lib:40.0000:Installed lib (amd64)
pmstatus:lib:45.0000:Installed lib (i386)
one: two: pmstatus:app:1.0:Installed app (all)
pmstatus:short
pmstatus:app:80.0000:Installed app (all)
Setting up app`

func TestInstallMeter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var out bytes.Buffer
		var seen []string
		now := noon
		meter := &installMeter{to: &out, total: 4, clock: func() time.Time { return now }, tell: func(p Progress) {
			seen = append(seen, fmt.Sprint(p.Done, "/", p.Total, p.Unit))
			if p.Text != fmt.Sprintf("%d of %d packages", p.Done, p.Total) {
				r.Errorf("%+v", p)
			}
		}}
		// However it comes in pieces.
		for rest := printed; rest != ""; {
			n := rapid.IntRange(1, min(len(rest), 60)).Draw(r, "piece")
			if got, err := meter.Write([]byte(rest[:n])); got != n || err != nil {
				r.Fatal(got, err)
			}
			rest = rest[n:]
			now = now.Add(installPause)
		}
		if err := meter.flush(); err != nil {
			r.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(printed) {
			if !strings.HasPrefix(line, "pmstatus:") || line == "pmstatus:short\n" {
				want = append(want, line)
			}
		}
		if out.String() != strings.Join(want, "") {
			r.Fatalf("passed on:\n%s", &out)
		}
		if len(seen) == 0 || seen[len(seen)-1] != "4/4packages" {
			r.Fatalf("told %v", seen)
		}
	})
}

// TestInstallMeterIsCalm: each time that it tells is a write to the disk.
func TestInstallMeterIsCalm(t *testing.T) {
	told := 0
	meter := &installMeter{to: &bytes.Buffer{}, total: 1000, clock: func() time.Time { return noon }, tell: func(Progress) { told++ }}
	for i := range 999 {
		if _, err := fmt.Fprintf(meter, "pmstatus:p%d:1.0:Installed p%d (all)\n", i, i); err != nil {
			t.Fatal(err)
		}
	}
	if told != 1 {
		t.Errorf("told %d times within a moment", told)
	}
}

func TestFetched(t *testing.T) {
	got := fetched(apt.Fetched{Files: 3, AllFiles: 12, Bytes: 4_190_000, AllBytes: 30_250_000})
	if got != (Progress{Text: "3 of 12 packages, 4.1 of 30.2 MB", Done: 4_190_000, Total: 30_250_000, Unit: "bytes"}) {
		t.Errorf("%+v", got)
	}
}

// TestProgressEndsWithItsPhase: how far a download was says nothing about what
// follows.
func TestProgressEndsWithItsPhase(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, _ := begun(t, w)
	seen := map[string]string{}
	m.Notify = func(s Status) { seen[s.Phase] += fmt.Sprint(s.Done, s.Total, s.Unit, " ") }
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen[string(journal.Download)], "1048576 1048576bytes") || strings.Contains(seen[string(journal.Verify)], "bytes") || m.Status().Unit != "" {
		t.Errorf("%v", seen)
	}
}
