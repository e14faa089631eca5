package cuts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/test/lossydisk"
)

// TestEpochs: the rounds have what they are to be cut in.
func TestEpochs(t *testing.T) {
	raised, kept := 0, 0
	for n := 2; n < 12; n++ {
		before := epochOf(runsBefore(n))
		switch {
		case epochOf(n) < before, n%2 == 1 && epochOf(n) == before:
			t.Errorf("release %d is of epoch %d, and the one that runs of %d", n, epochOf(n), before)
		case n%2 == 0 && epochOf(n) > before:
			raised++
		case n%2 == 0:
			kept++
		}
	}
	if epochOf(1) == epochOf(2) || raised == 0 || kept == 0 {
		t.Errorf("%d good releases raise the epoch, the first included: %v; %d do not", raised, epochOf(1) != epochOf(2), kept)
	}
}

// TestDataDiffer: whatever is wrong with the data of a device, the judge sees it.
func TestDataDiffer(t *testing.T) {
	for _, release := range []int{2, 4} { // with another epoch, and with the same
		for name, damage := range map[string]struct {
			runs int // deployment: 1 is the old one, 2 the new one
			do   func(top string) error
		}{
			"nothing, old": {1, nil},
			"nothing, new": {2, nil},
			"the old release has the new data": {1, func(top string) error {
				return os.WriteFile(filepath.Join(top, "state/var-lib/ledger/rows"), []byte("new"), 0o640)
			}},
			"the new release has the old data": {2, func(top string) error {
				return os.WriteFile(filepath.Join(top, "state/var-lib/app/index"), []byte("old"), 0o640)
			}},
			"one of the places is gone": {1, func(top string) error { return os.Remove(filepath.Join(top, "state/var-lib/app/index")) }},
			"something is left in it": {1, func(top string) error {
				return os.WriteFile(filepath.Join(top, "state/var-lib/ledger/x.new"), nil, 0o640)
			}},
			"something else is damaged": {2, func(top string) error { return os.Truncate(filepath.Join(top, "state/var-lib/app/other"), 0) }},
			"a copy is not finished":    {2, func(top string) error { return os.MkdirAll(filepath.Join(top, "kept/1/app.copying"), 0o700) }},
			"what runs is kept":         {1, func(top string) error { return os.MkdirAll(filepath.Join(top, "kept/1/app"), 0o700) }},
		} {
			top := t.TempDir()
			put := func(data string, kept bool) {
				for path, text := range map[string]string{
					"state/var-lib/ledger/rows": data, "state/var-lib/app/index": data, "state/var-lib/app/other": "the same",
					"kept/1/app/state/var-lib/ledger/rows": "old", "kept/1/app/state/var-lib/app/index": "old",
				} {
					if path[0] == 'k' && !kept {
						continue
					}
					path = filepath.Join(top, path)
					if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o640)); err != nil {
						t.Fatal(err)
					}
				}
			}
			listed := func() (others, unit files) {
				others, unit, err := readState(top)
				if err != nil || len(unit) != 3 {
					t.Fatalf("%v, %v", unit, err)
				}
				return others, unit
			}
			i := &image{round: &round{number: release, from: 1, recording: lossydisk.NewDisk(4096).Record()}, to: 2, at: 1}
			put("new", false)
			i.round.seeded, i.round.dataMade = listed()
			put("old", damage.runs == 2 && release == 2)
			i.round.state, i.round.dataBegun = listed()
			i.round.dataEdited = i.round.dataBegun
			if damage.runs == 2 {
				put("new", release == 2)
			}
			if damage.do != nil {
				if err := damage.do(top); err != nil {
					t.Fatal(err)
				}
			}
			err := i.lookData(top, damage.runs)
			if (err == nil) != (damage.do == nil) {
				t.Errorf("release %d, %s: %v", release, name, err)
			}
			if release != 2 || damage.runs != 2 || damage.do != nil {
				continue
			}
			if err := errors.Join(os.WriteFile(filepath.Join(top, "kept/1/app/state/var-lib/ledger/rows"), []byte("new"), 0o640)); err != nil {
				t.Fatal(err)
			}
			if i.lookData(top, 2) == nil {
				t.Error("what is kept of the old release is damaged, and it is not seen")
			}
		}
	}
}
