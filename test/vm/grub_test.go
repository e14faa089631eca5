package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/grub"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/order"
)

// printing is GRUB with the configuration of every device, told to print what
// it would boot.
func printing(t *testing.T) Disk {
	t.Helper()
	image, err := grub.Make(t.Context(), grub.BIOS, print)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "loader"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 2 << 20
	if err := errors.Join(file.Truncate(size), image.Install(file, 1, size-512), file.Close()); err != nil {
		t.Fatal(err)
	}
	return Disk{Path: file.Name()}
}

// print are lines that make a loader print on the first serial port.
const print = "serial --unit=0 --speed=115200\nterminal_output serial\nset aptfleet_print=1"

// printingEFI is the same for UEFI, on a disk that is one FAT file system.
func printingEFI(t *testing.T) Disk {
	t.Helper()
	image, err := grub.Make(t.Context(), grub.EFI, print)
	must(t, err)
	dir := t.TempDir()
	core, disk := filepath.Join(dir, "core"), filepath.Join(dir, "loader")
	must(t, os.WriteFile(core, image.Core, 0o600))
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 64<<20))
	command(t, "mformat", "-i", disk, "-T", "131072", "-F", "::")
	command(t, "mmd", "-i", disk, "::/EFI", "::/EFI/BOOT")
	command(t, "mcopy", "-i", disk, core, "::/EFI/BOOT/BOOTX64.EFI")
	return Disk{Path: disk}
}

// boots lets GRUB decide once about disks as a vector describes them. It
// returns what it says it boots, what it printed, and the boot-control files as
// it leaves them.
func boots(t *testing.T, loader Disk, efi bool, v bootcontrol.Vector) (decision, printed string, left map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	control, system := filepath.Join(dir, "control"), filepath.Join(dir, "system")
	files := map[string][]byte{}
	for name, content := range map[string][]byte{bootcontrol.CommittedFile: v.Committed, bootcontrol.TrialFile: v.Trial} {
		if content != nil {
			files[filepath.Join(control, name)] = content
		}
	}
	for n, has := range v.Deployments {
		top := filepath.Join(system, "deployments", fmt.Sprint(n))
		must(t, os.MkdirAll(top, 0o755))
		if has.Init {
			files[filepath.Join(top, "usr/lib/systemd/systemd")] = []byte("init")
		}
		if has.Release {
			files[filepath.Join(top, "usr/lib/os-release")] = []byte("ID=debian\n")
		}
	}
	must(t, errors.Join(os.MkdirAll(control, 0o755), os.MkdirAll(system, 0o755)))
	for path, content := range files {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, content, 0o644))
	}
	controlDisk, systemDisk := control+".img", system+".img"
	for path, size := range map[string]int64{controlDisk: 4 << 20, systemDisk: 112 << 20} {
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
	}
	mkfs := grub.MakeControl()
	command(t, mkfs[0], append(mkfs[1:], "-d", control, controlDisk)...)
	command(t, "mkfs.btrfs", "-q", "-L", grub.SystemLabel, "-r", system, systemDisk)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var console bytes.Buffer
	machine := Machine{Memory: 64, EFI: efi, Disks: []Disk{loader, {Path: controlDisk, ReadOnly: v.ReadOnly}, {Path: systemDisk}}}
	if efi {
		machine.Memory = 256
	}
	if err := machine.Run(ctx, &console); err != nil {
		t.Fatalf("%v\n%s", err, console.String())
	}
	printed = console.String()
	left = map[string][]byte{}
	for name := range strings.FieldsSeq(command(t, "debugfs", "-R", "ls -p /", controlDisk)) {
		parts := strings.Split(name, "/") // /inode/mode/uid/gid/name/size/
		if len(parts) < 6 || !slices.Contains([]string{bootcontrol.CommittedFile, bootcontrol.TrialFile}, parts[5]) {
			continue
		}
		copied := filepath.Join(dir, "left-"+parts[5])
		command(t, "debugfs", "-R", "dump "+parts[5]+" "+copied, controlDisk)
		content, err := os.ReadFile(copied)
		if errors.Is(err, fs.ErrNotExist) {
			content, err = []byte{}, nil
		}
		must(t, err)
		left[parts[5]] = content
	}
	switch said := regexp.MustCompile(`aptfleet: boot (\d+) (aptfleet\.trial=1)?`).FindStringSubmatch(printed); {
	case said == nil && strings.Contains(printed, "aptfleet: no deployment starts"):
		decision = "nothing"
	case said == nil:
		t.Fatalf("GRUB decided nothing:\n%s", printed)
	case said[2] != "":
		decision = said[1] + " trial"
	default:
		decision = said[1]
	}
	return decision, printed, left
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// GRUB itself decides as the vectors say, which the loader of nspawn devices
// and the updater's own prediction follow too, and leaves the same bytes.
func TestGRUBFollowsEveryVector(t *testing.T) {
	file, err := os.Open("../device/testdata/loader-vectors.txt")
	must(t, err)
	defer file.Close()
	vectors, err := bootcontrol.ReadVectors(file)
	must(t, err)
	if len(vectors) < 25 {
		t.Fatalf("only %d vectors were read", len(vectors))
	}
	loader := printing(t)
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			decision, printed, left := boots(t, loader, false, v)
			if decision != v.Boots {
				t.Errorf("GRUB boots %s, want %s\n%s", decision, v.Boots, printed)
			}
			compare(t, left, map[string][]byte{bootcontrol.CommittedFile: v.Committed, bootcontrol.TrialFile: v.Then})
		})
	}
}

// GRUB for UEFI reads the same configuration from the same disks: of each kind of
// decision one vector. UEFI takes its time.
func TestGRUBWithUEFIFollowsTheVectors(t *testing.T) {
	file, err := os.Open("../device/testdata/loader-vectors.txt")
	must(t, err)
	defer file.Close()
	vectors, err := bootcontrol.ReadVectors(file)
	must(t, err)
	loader := printingEFI(t)
	seen := map[string]bool{}
	for _, v := range vectors {
		_, trial, _ := strings.Cut(v.Boots, " ")
		kind := fmt.Sprint(v.Boots == "nothing", trial, v.Trial == nil, v.Committed == nil, v.ReadOnly)
		if seen[kind] && !order.Long() {
			continue
		}
		seen[kind] = true
		t.Run(v.Name, func(t *testing.T) {
			decision, printed, left := boots(t, loader, true, v)
			if decision != v.Boots {
				t.Errorf("GRUB boots %s, want %s\n%s", decision, v.Boots, printed)
			}
			compare(t, left, map[string][]byte{bootcontrol.CommittedFile: v.Committed, bootcontrol.TrialFile: v.Then})
		})
	}
}

// compare compares boot-control files; nil is a file that is absent.
func compare(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	maps.DeleteFunc(want, func(_ string, content []byte) bool { return content == nil })
	for _, name := range []string{bootcontrol.CommittedFile, bootcontrol.TrialFile} {
		g, there := got[name]
		w, wanted := want[name]
		if there != wanted || !bytes.Equal(g, w) {
			t.Errorf("%s is afterwards (%v)\n%q, want (%v)\n%q", name, there, g, wanted, w)
		}
	}
}

// memory is the disk that the loader of nspawn devices sees.
type memory struct {
	files       map[string][]byte
	deployments map[int]bootcontrol.Contents
}

func (m memory) Read(name string) ([]byte, error) {
	if content, ok := m.files[name]; ok && content != nil {
		return content, nil
	}
	return nil, fs.ErrNotExist
}
func (m memory) Overwrite(name string, block []byte) error { m.files[name] = block; return nil }
func (m memory) Deployments() ([]int, error)               { return slices.Collect(maps.Keys(m.deployments)), nil }
func (m memory) HasInit(n int) bool                        { return m.deployments[n].Init }
func (m memory) HasRelease(n int) bool                     { return m.deployments[n].Release }

// GRUB and the loader of nspawn devices agree about disks that nobody thought
// of.
func TestGRUBAgreesWithTheLoader(t *testing.T) {
	n := 12
	if order.Long() {
		n = 60
	}
	random := rand.New(rand.NewPCG(order.Seed(t), 0))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	block := func(names ...string) []byte {
		var lines []string
		for range random.IntN(5) {
			lines = append(lines, pick(names...)+"="+pick("", "0", "1", "2", "3", "9", "10", "01", "-1", "x", "1 2", "../1", "$tries", "2;3"))
		}
		return bootcontrol.NewBlock(lines...)
	}
	loader := printing(t)
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			v := bootcontrol.Vector{Committed: block("committed", "committed", "previous"), Trial: block("trial", "trial", "tries", "tries", "menu"), Deployments: map[int]bootcontrol.Contents{}}
			for range random.IntN(4) {
				v.Deployments[random.IntN(12)] = bootcontrol.Contents{Init: random.IntN(4) > 0, Release: random.IntN(4) > 0}
			}
			disk := memory{files: map[string][]byte{bootcontrol.CommittedFile: v.Committed, bootcontrol.TrialFile: v.Trial}, deployments: v.Deployments}
			want := "nothing"
			if d, err := bootcontrol.Decide(disk); err == nil {
				want = strings.TrimPrefix(d.String(), "boot ")
			}
			got, printed, left := boots(t, loader, false, v)
			if got != want {
				t.Errorf("GRUB boots %s, the loader %s: %q %q %v\n%s", got, want, v.Committed, v.Trial, v.Deployments, printed)
			}
			compare(t, left, disk.files)
		})
	}
}
