package fleet

import (
	"crypto/sha256"
	"slices"
	"time"

	"aptfleet/internal/protocol"
)

func bootOf(id string) Boot {
	sum := sha256.Sum256([]byte(id))
	return Boot(sum[:8])
}

// sight notes the machine behind a check-in, and finds out if it is a second
// one. Of the evidence each pair of machine and boot is there once.
func (d *device) sight(c *Contact, in protocol.CheckIn, address string, now time.Time) {
	seen := protocol.Sighting{Machine: in.Machine, Boot: in.Boot, Address: address, First: now, Last: now}
	if d.Where.Machine == seen.Machine && d.Where.Boot == seen.Boot {
		seen.First = d.Where.First
		seen.Machine, seen.Boot = d.Where.Machine, d.Where.Boot // the same strings
		if d.Where.Address == address {
			seen.Address = d.Where.Address
		}
		c.Where = seen
		if c.Clone == nil && (d.Machine == "" || in.Machine == d.Machine) {
			return // as nearly always
		}
	}
	if in.Machine == d.Machine {
		seen.Machine = d.Machine // the same string
	}
	c.Where = seen
	boot := bootOf(in.Boot)
	at := slices.Index(d.Boots, boot)
	why := ""
	switch {
	case in.Machine != d.Machine:
		why = "another machine has the key of this device"
	case at >= 0 && at < len(d.Boots)-1:
		why = "a boot came back after another one: two machines have the key of this device"
	}
	if at < 0 {
		c.Boots = append(slices.Clone(d.Boots[max(0, len(d.Boots)-maxBoots+1):]), boot)
	} else if at < len(d.Boots)-1 {
		// It is the newest again, so that its next check-in is no evidence.
		c.Boots = append(slices.Delete(slices.Clone(d.Boots), at, at+1), boot)
	}
	if c.Clone == nil && why == "" {
		return
	}
	c.Clone = evidence(c.Clone, d.Where, seen, why, now)
}

// maxSightings bounds the evidence that is kept.
const maxSightings = 8

// evidence adds a sighting to what is known. What is there already only gets a
// later time: that is not worth a write, so it is the same Clone then.
func evidence(before *protocol.Clone, last, seen protocol.Sighting, why string, now time.Time) *protocol.Clone {
	c := protocol.Clone{Since: now, Why: why}
	if before != nil {
		c = *before
		c.Machines = slices.Clone(before.Machines)
	} else if last.Machine != "" {
		c.Machines = []protocol.Sighting{last}
	}
	i := slices.IndexFunc(c.Machines, func(m protocol.Sighting) bool { return m.Machine == seen.Machine && m.Boot == seen.Boot })
	if i >= 0 && before != nil && c.Machines[i].Address == seen.Address && seen.Last.Sub(c.Machines[i].Last) < time.Hour {
		return before
	}
	if i >= 0 {
		seen.First = c.Machines[i].First
		c.Machines[i] = seen
		return &c
	}
	if len(c.Machines) == maxSightings {
		// The oldest goes, but for the first: it was the device.
		c.Machines = slices.Delete(c.Machines, 1, 2)
	}
	c.Machines = append(c.Machines, seen)
	return &c
}

// BootsText is boots as bytes, for stores; never nil.
func BootsText(boots []Boot) []byte {
	text := make([]byte, 0, len(boots)*len(Boot{}))
	for _, one := range boots {
		text = append(text, one[:]...)
	}
	return text
}

// BootsFrom reads what BootsText wrote.
func BootsFrom(text []byte) []Boot {
	var boots []Boot
	for len(text) >= len(Boot{}) {
		boots = append(boots, Boot(text[:len(Boot{})]))
		text = text[len(Boot{}):]
	}
	return boots
}
