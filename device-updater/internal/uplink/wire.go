package uplink

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysNet is where the kernel describes interfaces.
const sysNet = "/sys/class/net"

// below returns the interfaces directly below one: the ports of a bridge, the
// cards of a bond, the card of a VLAN.
func below(name string) []string {
	links, err := filepath.Glob(filepath.Join(sysNet, name, "lower_*"))
	if err != nil {
		return nil
	}
	var all []string
	for _, link := range links {
		all = append(all, strings.TrimPrefix(filepath.Base(link), "lower_"))
	}
	return all
}

// wiresBelow finds the plain Ethernet interfaces that an interface stands on.
func wiresBelow(name string) []string {
	var wires []string
	seen := map[string]bool{}
	var descend func(string)
	descend = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		lower := below(name)
		for _, l := range lower {
			descend(l)
		}
		if len(lower) == 0 && isWire(name) {
			wires = append(wires, name)
		}
	}
	descend(name)
	slices.Sort(wires)
	return wires
}

// isWire tells Ethernet, whose carrier says that something is plugged in, from
// radio and modems, whose carrier software brings about, and from what has
// none.
func isWire(name string) bool {
	kind, err := os.ReadFile(filepath.Join(sysNet, name, "type"))
	if err != nil || strings.TrimSpace(string(kind)) != "1" { // ARPHRD_ETHER
		return false
	}
	about, err := os.ReadFile(filepath.Join(sysNet, name, "uevent"))
	if err != nil || strings.Contains(string(about), "DEVTYPE=") {
		return false // wlan, wwan, bridge, …
	}
	for _, radio := range []string{"wireless", "phy80211"} {
		if _, err := os.Stat(filepath.Join(sysNet, name, radio)); err == nil {
			return false
		}
	}
	return true
}

// carrier asks the card itself: the flag IFF_RUNNING comes late. What cannot be
// asked is no evidence that there is none.
func carrier(name string) bool {
	is, err := os.ReadFile(filepath.Join(sysNet, name, "carrier"))
	return err != nil || strings.TrimSpace(string(is)) != "0"
}

// stand says how wires stand.
func stand(names []string) []Wire {
	var all []Wire
	for _, name := range names {
		w := Wire{Name: name}
		if card, err := net.InterfaceByName(name); err == nil {
			w.There, w.On, w.Carrier = true, card.Flags&net.FlagUp != 0, carrier(name)
		}
		all = append(all, w)
	}
	return all
}
