package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
)

func made(t *testing.T) (Dir, Keys) {
	t.Helper()
	d := In(filepath.Join(t.TempDir(), "identity"))
	k, err := d.Make(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return d, k
}

func TestKeysAreMadeOnce(t *testing.T) {
	d := In(filepath.Join(t.TempDir(), "identity"))
	if _, err := d.Keys(); !errors.Is(err, ErrNone) {
		t.Errorf("before: %v", err)
	}
	// Several processes at once make one identity.
	var wait sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wait.Go(func() {
			k, err := d.Make(rand.Reader)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID() + " " + hex.EncodeToString(k.Sealing())
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("identities %q", ids)
		}
	}
	k, err := d.Keys()
	if err != nil || k.ID()+" "+hex.EncodeToString(k.Sealing()) != ids[0] {
		t.Errorf("read back: %v, %v", k.ID(), err)
	}
	for _, name := range []string{deviceKeyFile, sealingKeyFile} {
		if info, err := os.Stat(d.file(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	signed := k.Sign(protocol.ForCheckIn, []byte("x"))
	if _, err := signed.Verify(k.Public(), protocol.ForCheckIn); err != nil || signed.Key != k.ID() {
		t.Errorf("%v", err)
	}
	// The sealing key is that whose public half the server was given.
	other, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ecdh.X25519().NewPublicKey(k.Sealing())
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := other.ECDH(theirs)
	b, err2 := k.Unseal().ECDH(other.PublicKey())
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Errorf("%v %v", err1, err2)
	}
}

// TestDamageIsNoNewIdentity: each byte of each key file, cut off, changed,
// emptied, gone: it is an error, and nothing is written.
func TestDamageIsNoNewIdentity(t *testing.T) {
	d, k := made(t)
	for _, name := range []string{deviceKeyFile, sealingKeyFile} {
		whole, err := os.ReadFile(d.file(name))
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, text []byte) {
			t.Helper()
			if err := os.WriteFile(d.file(name), text, 0o600); err != nil {
				t.Fatal(err)
			}
			var damaged *Damaged
			if _, err := d.Make(rand.Reader); !errors.As(err, &damaged) || damaged.File != d.file(name) || damaged.NextStep() == "" {
				t.Errorf("%s, %s: %v", name, what, err)
			}
			if after, err := os.ReadFile(d.file(name)); err != nil || !bytes.Equal(after, text) {
				t.Errorf("%s, %s: it was written", name, what)
			}
		}
		for i := range whole {
			check("cut off", whole[:i])
			changed := bytes.Clone(whole)
			changed[i] ^= 1
			check("changed", changed)
		}
		check("more", append(bytes.Clone(whole), 'x'))
		if err := os.WriteFile(d.file(name), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(d.file(sealingKeyFile)); err != nil {
		t.Fatal(err)
	}
	var damaged *Damaged
	if _, err := d.Make(rand.Reader); !errors.As(err, &damaged) {
		t.Errorf("without a sealing key: %v", err)
	}
	if err := os.WriteFile(d.file(enrolmentFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.file(deviceKeyFile)); err != nil {
		t.Fatal(err)
	}
	if again, err := d.Make(rand.Reader); !errors.As(err, &damaged) {
		t.Errorf("an enrolled device without a key became %s, %v; it was %s", again.ID(), err, k.ID())
	}
}

// TestCutWhileKeysAreMade: the next start goes on.
func TestCutWhileKeysAreMade(t *testing.T) {
	for _, bytes := range []int64{0, 16, 32, 48} {
		d := In(filepath.Join(t.TempDir(), "identity"))
		if _, err := d.Make(io.LimitReader(rand.Reader, bytes)); err == nil {
			t.Fatal("it had enough randomness")
		}
		if _, err := d.Keys(); !errors.Is(err, ErrNone) {
			t.Errorf("cut after %d bytes: %v", bytes, err)
		}
		left := d.file("." + deviceKeyFile + ".123.tmp")
		if err := os.WriteFile(left, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := d.Make(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := d.Keys(); err != nil || again.ID() != k.ID() {
			t.Errorf("%v", err)
		}
		if _, err := os.Lstat(left); err == nil {
			t.Error("a key that never got its name is still there")
		}
	}
}

func TestSessions(t *testing.T) {
	d, _ := made(t)
	next := func(above, want uint64) {
		t.Helper()
		if got, err := d.NextSession(above); err != nil || got != want {
			t.Errorf("above %d: %d, %v, want %d", above, got, err, want)
		}
	}
	next(0, 1)
	next(0, 2)
	next(40, 41)
	next(7, 42)
	if _, err := d.NextSession(protocol.MaxNumber); err == nil {
		t.Error("a number that leaves no room was taken")
	}
	next(0, 43)
	for _, text := range []string{"", "x\n", "-1\n", "99999999999999999999\n", "18446744073709551615\n", "\x00\x00"} {
		if err := os.WriteFile(d.file(sessionFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		next(0, 1) // and the server says where it stands
		next(43, 44)
	}
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := sign.Generate("A", "a@b.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func enrolment(t *testing.T) Enrolment {
	return Enrolment{
		Server: "https://fleet.example", Key: "k", Device: "dev-1", Pipeline: "demo", Product: "gateway", AssignmentKey: make([]byte, 32),
		Archive: "https://fleet.example", ArchiveKey: certificate(t), Password: "secret", CA: "pem", Serial: "SN1",
	}
}

func TestEnrolment(t *testing.T) {
	d, _ := made(t)
	if _, ok, err := d.Enrolment(); ok || err != nil {
		t.Errorf("before: %v %v", ok, err)
	}
	if err := os.WriteFile(d.file(tokenFile), []byte(" aft1_x \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := d.Token(); err != nil || token != "aft1_x" {
		t.Errorf("%q %v", token, err)
	}
	e := enrolment(t)
	if err := d.PutEnrolment(e); err != nil {
		t.Fatal(err)
	}
	got, ok, err := d.Enrolment()
	if err != nil || !ok || got.Same(e) != "" || got.Password != "secret" {
		t.Errorf("%+v %v %v", got, ok, err)
	}
	if token, err := d.Token(); err != nil || token != "" {
		t.Errorf("the token is still there: %q %v", token, err)
	}
	if info, err := os.Stat(d.file(enrolmentFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password may be read: %v %v", info.Mode(), err)
	}
	for path, want := range map[string]string{d.ArchiveKey(): e.ArchiveKey, d.CA(): "pem"} {
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			t.Errorf("%s: %q %v", path, text, err)
		}
	}
	// What apt reads is written again if it was lost.
	if err := os.Remove(d.CA()); err != nil {
		t.Fatal(err)
	}
	if err := d.Export(e); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(d.CA()); err != nil || string(text) != "pem" {
		t.Errorf("%q %v", text, err)
	}
	for name, change := range map[string]func(*Enrolment){
		"assignment key": func(e *Enrolment) { e.AssignmentKey = bytes.Repeat([]byte{1}, 32) }, "archive key": func(e *Enrolment) { e.ArchiveKey = "x" },
		"certificate authority": func(e *Enrolment) { e.CA = "" }, "product": func(e *Enrolment) { e.Product = "camera" }, "pipeline": func(e *Enrolment) { e.Pipeline = "p" },
		"name": func(e *Enrolment) { e.Device = "d" }, "device key": func(e *Enrolment) { e.Key = "" },
		"": func(e *Enrolment) { e.Password, e.Archive = "other", "https://mirror.example" },
	} {
		other := e
		change(&other)
		if what := e.Same(other); what != name {
			t.Errorf("%q differs, it says %q", name, what)
		}
	}
	whole, err := os.ReadFile(d.file(enrolmentFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{nil, whole[:len(whole)/2], []byte("{}"), bytes.Replace(whole, []byte("dev-1"), []byte("../x1"), 1)} {
		if err := os.WriteFile(d.file(enrolmentFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *Damaged
		if _, ok, err := d.Enrolment(); ok || !errors.As(err, &damaged) {
			t.Errorf("%.20q: %v %v", text, ok, err)
		}
	}
}

func machine(files map[string]string) Hardware {
	root := fstest.MapFS{}
	for name, text := range files {
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			root[name] = &fstest.MapFile{Data: []byte(to), Mode: os.ModeSymlink | 0o777}
			continue
		}
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return ReadHardware(root)
}

const dmi = "sys/class/dmi/id/"

// card is a network card on a bus.
func card(name, bus, address, kind string) map[string]string {
	dir := "sys/class/net/" + name + "/"
	files := map[string]string{dir + "address": address + "\n", dir + "addr_assign_type": kind + "\n"}
	if bus != "" {
		files[dir+"device/uevent"] = ""
		files["sys/bus/"+bus+"/x"] = ""
		files[dir+"device/subsystem"] = "-> ../../../../bus/" + bus
	}
	return files
}

func both(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// TestHardware: what a machine is made of, and what does not make another
// machine of it.
func TestHardware(t *testing.T) {
	uuid := map[string]string{dmi + "product_uuid": "4c4c4544-0042-3510-8052-b4c04f564433\n"}
	junk := map[string]string{dmi + "product_uuid": "03000200-0400-0500-0006-000700080009\n", dmi + "board_serial": "To be filled by O.E.M.\n", dmi + "product_serial": "Default string\n"}
	eth := card("eth0", "pci", "02:11:22:33:44:55", "0")
	wifi := card("wlan0", "usb", "02:aa:aa:aa:aa:ab", "0")
	pi := map[string]string{"sys/firmware/devicetree/base/serial-number": "10000000abcdef01\x00"}
	container := map[string]string{"run/host/container-manager": "systemd-nspawn\n", "run/host/container-uuid": "c58c1f76-3f2c-4c5e-8d0f-0f6e0c0a3f11\n"}
	for _, c := range []struct {
		name   string
		files  map[string]string
		facts  string
		serial string
	}{
		{"a PC", both(uuid, eth, map[string]string{dmi + "product_serial": "ABC123\n"}), dmi + "product_serial " + dmi + "product_uuid", "ABC123"},
		{"a board with a device tree", both(pi, wifi), "sys/firmware/devicetree/base/serial-number", "10000000abcdef01"},
		{"a SoC", map[string]string{"sys/devices/soc0/serial_number": "00112233AABB\n"}, "sys/devices/soc0/serial_number", ""},
		{"a virtual machine", map[string]string{dmi + "product_serial": "VMware-56 4d 83\n"}, dmi + "product_serial", "VMware-56-4d-83"},
		{"a cheap board", both(junk, eth, wifi), "sys/class/net/*/address=02:11:22:33:44:55", ""},
		{"an address that is made up", both(junk, card("eth0", "pci", "02:11:22:33:44:55", "3")), "", ""},
		{"a bridge", both(junk, card("br0", "", "02:11:22:33:44:55", "0")), "", ""},
		{"a container on a PC", both(uuid, eth, container), "run/host/container-uuid", ""},
		{"nothing", nil, "", ""},
		{"only zeros", map[string]string{dmi + "product_uuid": "00000000-0000-0000-0000-000000000000\n", dmi + "product_serial": "0\n"}, "", ""},
		{"control characters", map[string]string{dmi + "product_serial": "A\x1b[2J\n"}, "", ""},
	} {
		h := machine(c.files)
		if got := strings.Join(h.Facts, " "); got != c.facts || h.Serial != c.serial || len(h.Machine) != 64 {
			t.Errorf("%s: made of %q with serial %q, want %q and %q", c.name, got, h.Serial, c.facts, c.serial)
		}
	}
	// A card that is plugged in, named otherwise or comes late changes nothing.
	plain := machine(both(uuid)).Machine
	for name, files := range map[string]map[string]string{"a card": both(uuid, eth), "a dongle": both(uuid, wifi), "another fact of many boards": both(uuid, map[string]string{dmi + "board_serial": "None\n"})} {
		if machine(files).Machine != plain {
			t.Errorf("%s makes another machine", name)
		}
	}
	if machine(both(junk, eth)).Machine != machine(both(junk, card("enp1s0", "pci", "02:11:22:33:44:55", "0"))).Machine {
		t.Error("the name of a card makes another machine")
	}
	if machine(both(junk, eth)).Machine == machine(both(junk, card("eth0", "pci", "02:11:22:33:44:56", "0"))).Machine {
		t.Error("two boards with two cards are one machine")
	}
}

func TestRevisionAndSerial(t *testing.T) {
	for _, c := range []struct{ factory, want, says string }{
		{"", "", ""}, {"B2\n", "B2", ""}, {"\n", "", "one line"},
	} {
		d, _ := made(t)
		if c.factory != "" {
			if err := os.WriteFile(d.file(revisionFile), []byte(c.factory), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := d.FactoryRevision()
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %q, %v", c.factory, got, err)
		}
	}
	d, _ := made(t)
	if _, err := d.Serial("", Hardware{}); err == nil {
		t.Error("a serial number out of nothing")
	}
	if s, err := d.Serial("", Hardware{Serial: "H"}); err != nil || s != "H" {
		t.Errorf("%q %v", s, err)
	}
	if err := os.WriteFile(d.file(serialFile), []byte("F\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Serial("", Hardware{Serial: "H"}); err != nil || s != "F" {
		t.Errorf("%q %v", s, err)
	}
	if _, err := d.Serial("A B", Hardware{}); err == nil {
		t.Error("a serial number of two words")
	}
	if s, err := d.Serial("A", Hardware{Serial: "H"}); err != nil || s != "A" {
		t.Errorf("%q %v", s, err)
	}
}
