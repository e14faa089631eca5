package vm

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Disk is one disk of a machine.
type Disk struct {
	Path     string // raw image
	ReadOnly bool   // reading works, every write fails
}

// Machine is a PC that boots from its first disk and ends with its first
// reset.
type Machine struct {
	Memory int  // MiB
	EFI    bool // its firmware is UEFI, else a BIOS
	Disks  []Disk
}

// ovmf is UEFI for a virtual PC. Without a memory of its own, it boots what is
// on the disk.
const ovmf = "/usr/share/ovmf/OVMF.fd"

// Run boots the machine, copies its first serial port to console, and returns
// when it is reset or ctx ends.
func (m Machine) Run(ctx context.Context, console io.Writer) error {
	args := []string{
		"-accel", "tcg,thread=multi", "-m", strconv.Itoa(m.Memory), "-nodefaults", "-no-reboot",
		"-display", "none", "-monitor", "none", "-serial", "stdio",
	}
	if m.EFI {
		args = append(args, "-bios", ovmf)
	}
	for i, d := range m.Disks {
		drive := fmt.Sprintf("file=%s,format=raw,if=none,id=disk%d", strings.ReplaceAll(d.Path, ",", ",,"), i)
		if d.ReadOnly {
			drive += ",readonly=on"
		}
		args = append(args, "-drive", drive, "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,bootindex=%d", i, i))
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	var complaints strings.Builder
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = console, &complaints, 5*time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return nil
}
