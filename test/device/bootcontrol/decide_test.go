package bootcontrol

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// memory is a Disk of a test.
type memory struct {
	files       map[string][]byte
	readOnly    bool
	deployments map[int]Contents
	writes      int
}

func (m *memory) Read(name string) ([]byte, error) {
	if m.files[name] == nil {
		return nil, os.ErrNotExist
	}
	return m.files[name], nil
}

func (m *memory) Overwrite(name string, block []byte) error {
	if m.readOnly {
		return errors.New("read-only")
	}
	m.writes++
	m.files[name] = block
	return nil
}

func (m *memory) Deployments() ([]int, error) {
	var all []int
	for n := range m.deployments {
		all = append(all, n)
	}
	return all, nil
}

func (m *memory) HasInit(n int) bool    { return m.deployments[n].Init }
func (m *memory) HasRelease(n int) bool { return m.deployments[n].Release }

func vectors(t *testing.T) []Vector {
	t.Helper()
	f, err := os.Open("../testdata/loader-vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := ReadVectors(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 25 {
		t.Fatalf("only %d vectors were read", len(all))
	}
	return all
}

func TestTheLoaderFollowsEveryVector(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			disk := &memory{
				files:       map[string][]byte{CommittedFile: bytes.Clone(v.Committed), TrialFile: bytes.Clone(v.Trial)},
				readOnly:    v.ReadOnly,
				deployments: v.Deployments,
			}
			got, err := Decide(disk)
			if v.Boots == "nothing" {
				if err == nil {
					t.Fatalf("%v, want an error", got)
				}
			} else if err != nil || got.String() != "boot "+v.Boots {
				t.Fatalf("decided %v (%v), want boot %s", got, err, v.Boots)
			}
			if !bytes.Equal(disk.files[TrialFile], v.Then) {
				t.Errorf("grubenv is\n%q, want\n%q", disk.files[TrialFile], v.Then)
			}
			if !bytes.Equal(disk.files[CommittedFile], v.Committed) {
				t.Error("committed.env was changed")
			}
		})
	}
}

// Whatever the bytes are, a device with one good deployment boots something
// that has an init, and a trial that nobody commits ends after its tries.
func TestAnyBytesBootAndAnyTrialEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		block := rapid.OneOf(
			rapid.SliceOfN(rapid.Byte(), 0, BlockSize),
			rapid.Custom(func(t *rapid.T) []byte {
				word := rapid.StringMatching(`(committed|previous|trial|tries)=[0-9a-z./-]{0,3}`)
				return NewBlock(rapid.SliceOfN(word, 0, 6).Draw(t, "lines")...)
			}),
		)
		disk := &memory{
			files: map[string][]byte{
				CommittedFile: block.Draw(t, "committed"),
				TrialFile:     block.Draw(t, "grubenv"),
			},
			readOnly: rapid.Bool().Draw(t, "readonly"),
			deployments: map[int]Contents{
				1: {Init: true, Release: true},
				2: {Init: rapid.Bool().Draw(t, "init"), Release: rapid.Bool().Draw(t, "release")},
			},
		}
		var last Decision
		for range 10 {
			before := disk.writes
			d, err := Decide(disk)
			if err != nil {
				t.Fatal(err)
			}
			if !disk.HasInit(d.Deployment) {
				t.Fatalf("%v, but it has no init", d)
			}
			if d.Trial && disk.writes == before {
				t.Fatal("a trial was started that was not counted")
			}
			last = d
		}
		if last.Trial {
			t.Fatal("the tenth boot in a row is still a trial")
		}
	})
}

func FuzzVariables(f *testing.F) {
	f.Add(NewBlock("committed=1", "previous=0"))
	f.Add(NewBlock("trial=", "tries=", "=", "x"))
	f.Add([]byte("# GRUB Environment Block\ntries=3"))
	f.Add([]byte("# GRUB Environment Block\ntries=3\ntries="))
	f.Add(NewBlock("tries=12", "trial=2", "tries=3"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		vars, err := Variables(b)
		if err == nil && triesLeft(vars["tries"]) {
			left, lines := string(vars["tries"][0]-1), 0
			for name := range values(b) {
				if name == "tries" {
					lines++
				}
			}
			lower, ok := lowered(b, left)
			if !ok {
				return
			}
			after, err := Variables(lower)
			if err != nil || len(lower) != len(b) || lines == 1 && after["tries"] != left || lines > 1 && after["tries"] == left {
				t.Fatalf("lowering %q, with %d counts, gave %q", vars, lines, after)
			}
			delete(vars, "tries")
			delete(after, "tries")
			for name, value := range vars {
				if after[name] != value {
					t.Fatalf("lowering changed %s from %q to %q", name, value, after[name])
				}
			}
		}
	})
}
