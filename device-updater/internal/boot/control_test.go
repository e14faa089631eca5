package boot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/test/device/bootcontrol"
)

// medium is a boot-control partition in memory whose power can fail. It is the
// updater's Blocks and the loader's Disk.
type medium struct {
	files       map[string][]byte
	deployments []int
	writes      int  // done so far
	failAt      int  // the write at which the power fails, counted from 1; 0: never
	written     bool // whether that write still reached the medium
}

var errPower = errors.New("the power failed")

func (m *medium) ReadBlock(name string) ([]byte, error) {
	block, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(block), nil
}

func (m *medium) WriteBlock(name string, block []byte) error {
	m.writes++
	if m.failAt > 0 && m.writes > m.failAt {
		return errPower
	}
	if m.writes == m.failAt && !m.written {
		return errPower
	}
	m.files[name] = bytes.Clone(block)
	if m.writes == m.failAt {
		return errPower
	}
	return nil
}

func (m *medium) Read(name string) ([]byte, error)      { return m.ReadBlock(name) }
func (m *medium) Overwrite(name string, b []byte) error { m.files[name] = bytes.Clone(b); return nil }
func (m *medium) Deployments() ([]int, error)           { return m.deployments, nil }
func (m *medium) HasInit(n int) bool                    { return true }
func (m *medium) HasRelease(n int) bool                 { return true }
func (m *medium) clone() *medium                        { c := *m; c.files = maps.Clone(m.files); return &c }
func (m *medium) boots(t *testing.T) string             { t.Helper(); return decide(t, m.clone()) }
func decide(t *testing.T, disk bootcontrol.Disk) string {
	t.Helper()
	d, err := bootcontrol.Decide(disk)
	if err != nil {
		t.Fatalf("nothing boots: %v", err)
	}
	return d.String()
}

func newMedium(committed, trial string) *medium {
	m := &medium{files: map[string][]byte{}, deployments: []int{1, 2, 3}}
	if committed != "" {
		m.files["committed.env"] = bootcontrol.NewBlock(strings.Fields(committed)...)
	}
	if trial != "" {
		m.files["grubenv"] = bootcontrol.NewBlock(strings.Fields(trial)...)
	}
	return m
}

// TestPowerFailsAtEachWrite: whichever write is the last, the loader boots what
// it booted before or what it boots after the whole verb; and the verb can be
// repeated to the end.
func TestPowerFailsAtEachWrite(t *testing.T) {
	verbs := []struct {
		name             string
		committed, trial string
		do               func(*boot.Control) error
		before, after    string
	}{
		{"try", "committed=1 previous=", "trial= tries=", func(c *boot.Control) error { return c.SetTry(2, 3) }, "boot 1", "boot 2 trial"},
		{"try without grubenv", "committed=1 previous=", "", func(c *boot.Control) error { return c.SetTry(2, 1) }, "boot 1", "boot 2 trial"},
		{"try another", "committed=1 previous=", "trial=2 tries=0", func(c *boot.Control) error { return c.SetTry(3, 9) }, "boot 1", "boot 3 trial"},
		{"commit", "committed=1 previous=", "trial=2 tries=2", func(c *boot.Control) error { return c.Commit(2) }, "boot 2 trial", "boot 2"},
		{"commit on the last try", "committed=1 previous=", "trial=2 tries=0", func(c *boot.Control) error { return c.Commit(2) }, "boot 1", "boot 2"},
		{"commit again", "committed=2 previous=1", "trial=2 tries=2", func(c *boot.Control) error { return c.Commit(2) }, "boot 2", "boot 2"},
		{"commit with nothing committed", "", "trial=2 tries=2", func(c *boot.Control) error { return c.Commit(2) }, "boot 3", "boot 2"},
		{"bad trial", "committed=1 previous=", "trial=2 tries=2", func(c *boot.Control) error { return c.MarkBad(2) }, "boot 2 trial", "boot 1"},
		{"bad default", "committed=2 previous=1", "trial= tries=", func(c *boot.Control) error { return c.MarkBad(2) }, "boot 2", "boot 1"},
	}
	for _, v := range verbs {
		t.Run(v.name, func(t *testing.T) {
			if got := newMedium(v.committed, v.trial).boots(t); got != v.before {
				t.Fatalf("before: the loader would %s, the row says %s", got, v.before)
			}
			whole := newMedium(v.committed, v.trial)
			if err := v.do(boot.New(whole)); err != nil {
				t.Fatal(err)
			}
			if got := whole.boots(t); got != v.after {
				t.Fatalf("after: %s, want %s", got, v.after)
			}
			for at := 1; at <= whole.writes; at++ {
				for _, written := range []bool{false, true} {
					m := newMedium(v.committed, v.trial)
					m.failAt, m.written = at, written
					if err := v.do(boot.New(m)); err == nil {
						t.Fatalf("write %d failed and the verb says nothing", at)
					}
					got := m.boots(t)
					// A commit that was cut after its first write has no trial any more.
					if got != v.before && got != v.after {
						t.Errorf("power failed at write %d (written: %v): %s, want %s or %s", at, written, got, v.before, v.after)
					}
					m.failAt = 0
					if err := v.do(boot.New(m)); err != nil {
						t.Fatalf("repeated: %v", err)
					}
					if got := m.boots(t); got != v.after {
						t.Errorf("repeated after write %d: %s, want %s", at, got, v.after)
					}
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		committed string
		do        func(*boot.Control) error
	}{
		"no tries":              {"committed=1", func(c *boot.Control) error { return c.SetTry(2, 0) }},
		"ten tries":             {"committed=1", func(c *boot.Control) error { return c.SetTry(2, 10) }},
		"try of the default":    {"committed=2", func(c *boot.Control) error { return c.SetTry(2, 1) }},
		"try without a default": {"", func(c *boot.Control) error { return c.SetTry(2, 1) }},
		"only one is bad":       {"committed=2 previous=", func(c *boot.Control) error { return c.MarkBad(2) }},
	} {
		m := newMedium(c.committed, "")
		if err := c.do(boot.New(m)); err == nil {
			t.Errorf("%s: want an error", name)
		}
		if m.writes != 0 {
			t.Errorf("%s: %d writes before the refusal", name, m.writes)
		}
	}
}

// TestReadsLikeTheLoader plays the loader's own vectors: what the updater reads
// as on trial is what the loader boots.
func TestReadsLikeTheLoader(t *testing.T) {
	f, err := os.Open("../../../test/device/testdata/loader-vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	vectors, err := bootcontrol.ReadVectors(f)
	if err != nil {
		t.Fatal(err)
	}
	trials := 0
	for _, v := range vectors {
		m := &medium{files: map[string][]byte{}}
		if v.Committed != nil {
			m.files["committed.env"] = v.Committed
		}
		if v.Trial != nil {
			m.files["grubenv"] = v.Trial
		}
		c := boot.New(m)
		number, onTrial := strings.CutSuffix(v.Boots, " trial")
		if onTrial {
			trials++
			if got, ok := c.Trial(); !ok || fmt.Sprint(got.Deployment) != number || got.Tries < 1 {
				t.Errorf("%s: the updater reads %+v %v, the loader boots %s", v.Name, got, ok, v.Boots)
			}
		}
		if strings.Contains(v.Name, "second count") {
			if got, ok := c.Trial(); ok {
				t.Errorf("%s: the updater reads %+v, which the loader never boots", v.Name, got)
			}
		}
		d, err := c.Default()
		if (err == nil) != (m.files["committed.env"] != nil && hasCommitted(v.Committed)) {
			t.Errorf("%s: default %+v, %v", v.Name, d, err)
		}
	}
	if trials == 0 {
		t.Error("no vector boots a trial: this test would say yes to everything")
	}
}

func hasCommitted(block []byte) bool {
	vars, err := bootcontrol.Variables(block)
	return err == nil && vars["committed"] != ""
}

func TestDirWritesInPlace(t *testing.T) {
	dir := t.TempDir()
	c := boot.New(boot.Dir(dir))
	if err := c.Commit(1); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "committed.env")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Commit(2); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || after.Size() != boot.BlockSize {
		t.Errorf("committed.env is another file or has %d bytes", after.Size())
	}
	block, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if rest := block[512:]; !bytes.Equal(rest, bytes.Repeat([]byte("#"), 512)) {
		t.Error("the second sector holds more than padding")
	}
	if d, err := c.Default(); err != nil || d != (boot.Default{Committed: 2, Previous: 1, HasPrevious: true}) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestCurrent(t *testing.T) {
	const other = "22 1 0:20 / /proc rw - proc proc rw\n"
	for name, c := range map[string]struct {
		mountinfo string
		want      int
		ok        bool
	}{
		"deployment":   {"21 1 0:19 /deployments/7 / rw,noatime shared:1 - btrfs /dev/vda2 rw,subvol=/deployments/7\n" + other, 7, true},
		"later mount":  {"20 1 0:1 / / rw - rootfs none rw\n21 20 0:19 /deployments/3 / rw - btrfs /dev/vda2 rw\n" + other, 3, true},
		"top level":    {"21 1 0:19 / / rw - btrfs /dev/vda2 rw\n", 0, false},
		"out of sight": {"21 1 0:19 /deployments/3.work / rw - btrfs /dev/vda2 rw\n", 3, true},
		"below":        {"21 1 0:19 /deployments/3/x / rw - btrfs /dev/vda2 rw\n", 0, false},
		"zero padded":  {"21 1 0:19 /deployments/03 / rw - btrfs /dev/vda2 rw\n", 0, false},
		"nothing on /": {other, 0, false},
	} {
		got, err := boot.Current(strings.NewReader(c.mountinfo))
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

func TestList(t *testing.T) {
	top := t.TempDir()
	for _, name := range []string{"10", "2", "3.work", "x", "-1"} {
		if err := os.MkdirAll(filepath.Join(top, "deployments", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := boot.List(top)
	if err != nil || fmt.Sprint(got) != "[2 10]" {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzTrial(f *testing.F) {
	f.Add(bootcontrol.NewBlock("trial=2", "tries=3"))
	f.Add([]byte("# GRUB Environment Block\ntrial=2"))
	f.Add(bytes.Repeat([]byte("#"), 1024))
	f.Fuzz(func(t *testing.T, block []byte) {
		m := newMedium("committed=1", "")
		m.files["grubenv"] = block
		trial, ok := boot.New(m).Trial()
		decision, err := bootcontrol.Decide(m.clone())
		if err != nil {
			t.Fatal(err)
		}
		// What the loader boots on trial, the updater must read as on trial.
		if decision.Trial && (!ok || trial.Deployment != decision.Deployment) {
			t.Errorf("the loader boots %s, the updater reads %+v %v", decision, trial, ok)
		}
	})
}
