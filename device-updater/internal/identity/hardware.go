package identity

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Hardware is what does not change about a machine, whatever disk or card is in
// it. The id of systemd (machine-id(5)) is not among it: a copied card has it
// too.
type Hardware struct {
	Machine string   // hash of the facts, lower-case hex
	Facts   []string // where they come from, sorted
	Serial  string   // serial number that the hardware itself knows; "" for none
}

// What is read below the root, in groups: a group counts only if those before
// it say nothing. What can be plugged, or appears late, would make one machine
// look like two, so network cards count only where the firmware knows no number.
var (
	containerFacts = []string{"run/host/container-uuid"}
	firmwareFacts  = []string{
		"sys/class/dmi/id/product_uuid", "sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial",
		"sys/firmware/devicetree/base/serial-number", "sys/devices/soc0/serial_number",
	}
	// serialFacts are the numbers that a person finds on the label, best first.
	serialFacts = []string{
		"sys/firmware/devicetree/base/serial-number", "sys/class/dmi/id/product_serial", "sys/class/dmi/id/board_serial",
	}
)

// ReadHardware reads the facts below root, which is "/" of the running system.
// In a container the hardware is that of its host, so only the container's own
// UUID counts. A machine about which nothing is known has the hash of nothing:
// clones of it are told apart by their boot ids alone.
func ReadHardware(root fs.FS) Hardware {
	groups := []func() map[string]string{
		func() map[string]string { return values(root, firmwareFacts) },
		func() map[string]string { return cards(root) },
	}
	container := InContainer(root)
	if container {
		groups = []func() map[string]string{func() map[string]string { return values(root, containerFacts) }}
	}
	var facts map[string]string
	for _, group := range groups {
		if facts = group(); len(facts) > 0 {
			break
		}
	}
	var h Hardware
	hash := sha256.New()
	fmt.Fprintln(hash, "aptfleet machine 1")
	for name := range facts {
		h.Facts = append(h.Facts, name)
	}
	slices.Sort(h.Facts)
	for _, name := range h.Facts {
		fmt.Fprintf(hash, "%s=%s\n", name, facts[name])
	}
	h.Machine = hex.EncodeToString(hash.Sum(nil))
	if !container {
		h.Serial = firstSerial(root)
	}
	return h
}

func firstSerial(root fs.FS) string {
	for _, name := range serialFacts {
		// A serial number is one word, of at most 64 characters.
		if v := strings.Join(strings.Fields(value(root, name)), "-"); v != "" && len(v) <= 64 {
			return v
		}
	}
	return ""
}

func values(root fs.FS, names []string) map[string]string {
	found := map[string]string{}
	for _, name := range names {
		if v := value(root, name); v != "" {
			found[name] = v
		}
	}
	return found
}

// value reads a fact; "" where there is none, or one that many machines have.
func value(root fs.FS, name string) string {
	text, err := fs.ReadFile(root, name)
	if err != nil || len(text) > 256 {
		return ""
	}
	v := strings.TrimRight(string(text), "\x00 \t\r\n")
	if v = strings.TrimLeft(v, " \t"); strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) || generic(v) {
		return ""
	}
	return v
}

// fillers are what boards have where nobody wrote a number.
var fillers = []string{
	"none", "n/a", "na", "unknown", "not specified", "not applicable", "not available", "default string", "default", "invalid", "empty", "serial",
	"system serial number", "base board serial number", "chassis serial number", "serial number", "oem", "o.e.m.", "123456789", "0123456789", "1234567890",
	"03000200-0400-0500-0006-000700080009", // AMI's template, on many cheap boards
	"12345678-1234-5678-90ab-cddeefaabbcc", "fefefefe-fefe-fefe-fefe-fefefefefefe",
}

var otherPattern = regexp.MustCompile(`[^0-9a-z]`)

func generic(v string) bool {
	v = strings.ToLower(v)
	if slices.Contains(fillers, v) || strings.Contains(v, "to be filled") {
		return true
	}
	digits := otherPattern.ReplaceAllString(v, "")
	return strings.Trim(digits, digits[:min(1, len(digits))]) == "" // nothing, or one digit all through
}

// cards returns the permanent addresses of built-in network cards.
func cards(root fs.FS) map[string]string {
	found := map[string]string{}
	all, err := fs.ReadDir(root, "sys/class/net")
	if err != nil {
		return found
	}
	for _, card := range all {
		dir := path.Join("sys/class/net", card.Name())
		if _, err := fs.Stat(root, path.Join(dir, "device")); err != nil {
			continue // no hardware behind it
		}
		if bus, err := fs.ReadLink(root, path.Join(dir, "device/subsystem")); err == nil && path.Base(bus) == "usb" {
			continue // it can be plugged into another machine
		}
		if !permanent(root, dir) {
			continue
		}
		// Not under the name of the card, which may change.
		if address := value(root, path.Join(dir, "address")); address != "" {
			found["sys/class/net/*/address="+address] = address
		}
	}
	return found
}

// permanent reports whether a card has its own address: 0 is NET_ADDR_PERM of
// the kernel's include/uapi/linux/netdevice.h.
func permanent(root fs.FS, dir string) bool {
	kind, err := fs.ReadFile(root, path.Join(dir, "addr_assign_type"))
	return err == nil && strings.TrimSpace(string(kind)) == "0"
}

// InContainer reports whether the running system is a container, as systemd tells
// (https://systemd.io/CONTAINER_INTERFACE).
func InContainer(root fs.FS) bool {
	for _, name := range []string{"run/host/container-manager", "run/systemd/container"} {
		if _, err := fs.Stat(root, name); err == nil {
			return true
		}
	}
	return false
}

// BootID returns the kernel's id of the running boot.
func BootID(root fs.FS) (string, error) {
	text, err := fs.ReadFile(root, "proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell the boot: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// FactoryRevision returns the hardware revision that the factory wrote, "" for
// none.
func (d Dir) FactoryRevision() (string, error) { return d.word(revisionFile) }

// Serial returns the serial number of the device: what was asked for, else what
// the factory wrote, else what the hardware knows.
func (d Dir) Serial(asked string, h Hardware) (string, error) {
	factory, err := d.FactorySerial()
	if err != nil {
		return "", err
	}
	serial := cmp.Or(asked, factory, h.Serial)
	if serial == "" {
		return "", errNoSerial
	}
	if len(serial) > 64 || strings.Contains(serial, " ") {
		return "", fmt.Errorf("cannot use the serial number %q: it is one word of at most 64 characters", serial)
	}
	return serial, nil
}

var errNoSerial = errors.New("cannot tell the serial number: neither the configuration nor the factory nor the hardware says it")
