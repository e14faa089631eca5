package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/test/order"
	"aptfleet/test/vm"
)

// What `builder image` makes of a product has the packages of its bill of
// materials in that snapshot, and its record says so: a device that is assigned
// it has nothing to install.
func TestAnImageOfAProductIsItsBillOfMaterials(t *testing.T) {
	t.Parallel()
	one := world.releases["1"]
	if _, err := world.site.API.CreateUser(t.Context(), "factory", []string{"viewer"}); err != nil {
		t.Fatal(err)
	}
	token, err := world.site.API.CreateToken(t.Context(), protocol.NewToken{User: "factory"})
	if err != nil {
		t.Fatal(err)
	}
	bill, err := world.site.API.BOMText(t.Context(), pipeline, "device", nil, one.ID, "text")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "device.img")
	build := exec.CommandContext(t.Context(), program(world.dir, "builder"), "image", "--snapshot", one.ID, "--product", "device",
		"--ca", filepath.Join(world.site.Data, "keys/ca.pem"), "--output", image, "--efi", "--serial", "--json")
	build.Env = append(os.Environ(), "APTFLEET_SERVER="+world.site.Admin, "APTFLEET_TOKEN="+token.Secret, "http_proxy=", "no_proxy=*")
	var complaints strings.Builder
	build.Stderr = &complaints
	out, err := build.Output()
	if err != nil {
		t.Fatalf("builder image: %v\n%s", err, complaints.String())
	}
	var said struct{ BOM, State string }
	if err := json.Unmarshal(out, &said); err != nil || said.BOM != bom.Sum(bill) || said.State != one.State {
		t.Errorf("it says %s, %v; the bill of materials is %s", out, err, bom.Sum(bill))
	}

	// Where the partitions lie is said by the table.
	table, err := exec.CommandContext(t.Context(), "sfdisk", "--json", image).Output()
	if err != nil {
		t.Fatalf("sfdisk: %v", err)
	}
	var disk struct {
		PartitionTable struct {
			Partitions []struct {
				Name  string
				Start int64
			}
		}
	}
	if err := json.Unmarshal(table, &disk); err != nil {
		t.Fatal(err)
	}
	at := map[string]int64{}
	for _, p := range disk.PartitionTable.Partitions {
		at[p.Name] = p.Start * 512
	}
	if files, err := exec.CommandContext(t.Context(), "mdir", "-b", "-i", fmt.Sprintf("%s@@%d", image, at["efi"]), "::/EFI/BOOT").CombinedOutput(); err != nil || !strings.Contains(string(files), "BOOTX64.EFI") {
		t.Errorf("the EFI system partition has %s, %v", files, err)
	}

	// Its loader is found by both kinds of firmware, and decides. This product
	// has no kernel, so nothing starts, and the machine resets.
	for _, efi := range []bool{false, true} {
		if efi && !order.Long() {
			continue
		}
		var console bytes.Buffer
		machine := vm.Machine{Memory: 256, EFI: efi, Disks: []vm.Disk{{Path: image}}}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err := machine.Run(ctx, &console)
		cancel()
		if err != nil || !strings.Contains(console.String(), "aptfleet: boot 1") {
			t.Errorf("UEFI %v: the loader says (%v)\n%s", efi, err, console.String())
		}
	}

	top := t.TempDir()
	loop, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--read-only", fmt.Sprintf("--offset=%d", at["aptfleet"]), image).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	name := strings.TrimSpace(string(loop))
	mountErr := unix.Mount(name, top, "btrfs", unix.MS_RDONLY, "")
	if err := exec.CommandContext(t.Context(), "losetup", "--detach", name).Run(); err != nil {
		t.Errorf("losetup --detach: %v", err)
	}
	if mountErr != nil {
		t.Fatal(mountErr)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(top, 0); err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(filepath.Join(top, "updater/deployments/1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ State, Snapshot, BOM string }
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	if record.State != one.State || record.Snapshot != one.ID || record.BOM != string(bill) {
		t.Errorf("the record of deployment 1 is of state %s, snapshot %s, with the bill of materials\n%s", record.State, record.Snapshot, record.BOM)
	}
	list, err := bom.Decode(bill)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range list.Packages {
		want = append(want, p.String())
	}
	query := exec.CommandContext(t.Context(), "dpkg-query", "--admindir="+filepath.Join(top, "deployments/1/var/lib/dpkg"), "-W", "-f", "${Package}:${Architecture}=${Version}\n")
	out, err = query.Output()
	if err != nil {
		t.Fatalf("dpkg-query: %v", err)
	}
	got := strings.Fields(string(out))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the image has not the packages of the bill of materials:\n%s", difference(want, got))
	}
}
