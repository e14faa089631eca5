package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/servertest"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// machine is a device without a kernel of its own: the built program as root of
// a deployment on btrfs, in a mount namespace.
type machine struct {
	t      *testing.T
	top    string // mounted top level
	root   string // where the deployment is mounted inside the namespace
	bin    string
	config string
	daemon *exec.Cmd
	log    bytes.Buffer
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v (`make test` installs what is missing): %v\n%s", argv, err, out)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newMachine is a machine without packages.
func newMachine(t *testing.T, config string) *machine {
	t.Helper()
	return makeMachine(t, config, 300<<20, func(deployment string) { put(t, filepath.Join(deployment, "var/lib/dpkg/status"), "") })
}

// makeMachine has a disk of that many bytes; fill puts a system into the
// deployment.
func makeMachine(t *testing.T, config string, size int64, fill func(deployment string)) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: `make test` runs as root")
	}
	dir := t.TempDir()
	m := &machine{t: t, top: filepath.Join(dir, "top"), root: filepath.Join(dir, "root")}
	image, control := filepath.Join(dir, "disk.img"), filepath.Join(dir, "boot-control")
	for _, path := range []string{m.top, m.root, control} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, image, "")
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.btrfs", "-q", image)
	command(t, "mount", "-o", "loop", image, m.top)
	t.Cleanup(func() { command(t, "umount", "-R", m.top) })
	deployment := filepath.Join(m.top, "deployments/1")
	put(t, filepath.Join(m.top, "deployments/.keep"), "")
	command(t, "btrfs", "-q", "subvolume", "create", deployment)
	fill(deployment)
	m.bin = filepath.Join(deployment, "usr/bin/device-updater")
	compile(t, m.bin, ".")
	// A service manager that has nothing to say.
	source := filepath.Join(dir, "systemctl.go")
	put(t, source, "package main\n\nfunc main() {}\n")
	compile(t, filepath.Join(deployment, "usr/bin/systemctl"), source)
	m.config = filepath.Join(deployment, "etc/aptfleet/device.yaml")
	put(t, m.config, config)
	for _, name := range []string{"dev", "proc", "sysroot", "boot-control", "run/aptfleet", "tmp"} {
		if err := os.MkdirAll(filepath.Join(deployment, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command(t, m.bin, "init", "--sysroot", m.top, "--boot-control", control)
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", &m.log)
		}
	})
	m.start()
	return m
}

// compile builds a program that needs no libraries.
func compile(t *testing.T, output, source string) {
	t.Helper()
	build := exec.Command("go", "build", "-tags", "nomsgpack", "-o", output, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// start switches the daemon on, with the deployment as its root.
func (m *machine) start() {
	m.t.Helper()
	script := `set -e
device=$(findmnt -no SOURCE --target "$1" | sed 's/\[.*//')
mount -o subvol=deployments/1 "$device" "$2"
mount -t proc proc "$2/proc"
mount --rbind /dev "$2/dev"
mount --bind "$1" "$2/sysroot"
mount --bind "$(dirname "$1")/boot-control" "$2/boot-control"
exec chroot "$2" /usr/bin/device-updater daemon`
	m.daemon = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", m.top, m.root)
	m.daemon.Stderr = &m.log
	if err := m.daemon.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the daemon listens", func() bool {
		_, err := os.Stat(filepath.Join(m.top, "deployments/1/run/aptfleet/updater.sock"))
		return err == nil
	})
}

// stop kills the daemon.
func (m *machine) stop() {
	m.t.Helper()
	if m.daemon == nil {
		return
	}
	if err := m.daemon.Process.Kill(); err != nil {
		m.t.Error(err)
	}
	m.daemon.Wait() // it says that it was killed
	m.daemon = nil
	if err := os.Remove(filepath.Join(m.top, "deployments/1/run/aptfleet/updater.sock")); err != nil {
		m.t.Error(err)
	}
}

func (m *machine) eventually(what string, is func() bool) {
	m.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("it never happened: %s", what)
		}
	}
}

// runs runs a command of the program on the device.
func (m *machine) runs(args ...string) (code int, out string) {
	m.t.Helper()
	argv := append([]string{"--target", fmt.Sprint(m.daemon.Process.Pid), "--mount", "--root", "--wd=/", "/usr/bin/device-updater"}, args...)
	said, err := exec.Command("nsenter", argv...).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(said)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return 0, string(said)
}

// says runs a command that ends with a status, and wants words in what it says.
func (m *machine) says(code int, words string, args ...string) {
	m.t.Helper()
	if got, out := m.runs(args...); got != code || !strings.Contains(out, words) {
		m.t.Errorf("%v: status %d, want %d and %q:\n%s", args, got, code, words, out)
	}
}

// device is what the server knows of the only device.
func device1(s *servertest.Server) servertest.Known {
	s.Lock()
	defer s.Unlock()
	for _, known := range s.Devices {
		return *known
	}
	return servertest.Known{}
}

// TestAMachineBecomesADevice: it waits for an operator, is accepted, checks in,
// follows what is assigned, refuses what is not for it, and is the same device
// after it was killed.
func TestAMachineBecomesADevice(t *testing.T) {
	s := servertest.Start(t, true)
	m := newMachine(t, "server: "+s.URL+"\nca: /etc/aptfleet/ca.pem\nserial: SN1\nrevision: B2\npoll: 1s\n")
	// Without the authority nothing is said to a server that nothing vouches for.
	time.Sleep(time.Second)
	if len(s.Requests) > 0 {
		t.Errorf("it said %v", s.Requests)
	}
	m.says(0, "cannot read the certificate authority", "status")
	put(t, filepath.Join(filepath.Dir(m.config), "ca.pem"), string(s.CA))
	waits := "waits for an operator to accept serial SN1"
	m.eventually("it waits", func() bool { _, out := m.runs("status"); return strings.Contains(out, waits) })
	m.says(3, waits, "enrol", "--no-wait")
	m.says(3, waits, "update", "--wait")
	m.says(0, "not enrolled", "identity")

	s.Lock()
	for _, known := range s.Devices {
		known.Accepted = true
	}
	s.Unlock()
	m.says(0, "dev-sn1", "enrol") // the daemon would do it by itself a little later
	m.eventually("the first report", func() bool { return device1(s).Report.Follow == "assignment" })
	m.says(0, "the server has not said yet what this device should run", "status")
	r := device1(s).Report
	if r.Revision != "B2" || r.FreeBytes == 0 || r.Updater == "" || len(r.Deployments) != 1 {
		t.Errorf("it reports %+v", r)
	}
	var id identityView
	_, out := m.runs("identity", "--json")
	if err := json.Unmarshal([]byte(out), &id); err != nil || id.Device != "dev-sn1" || id.CAFingerprint != s.Fingerprint || id.Serial != "SN1" {
		t.Errorf("%v: %s", err, out)
	}

	state := strings.Repeat("a", 64)
	list := bom.BOM{State: state, Product: servertest.Product, Architecture: architecture(), TopLevel: []string{"app"}}
	release := s.Publish(t, state, list.Encode())
	s.Assign(release, func(a *protocol.Assignment) { a.Hold = &protocol.Hold{Reason: "a fair", By: "vera"} })
	m.eventually("the hold", func() bool { return strings.Contains(device1(s).Report.WhyNot, "held by vera: a fair") })
	m.says(3, "held by vera: a fair", "update", "--wait")
	s.Assign(release, nil)
	// There is no apt here: that it is wanted is as far as it gets.
	m.eventually("the hold is gone", func() bool {
		r := device1(s).Report
		return r.Wanted == state && !strings.Contains(r.WhyNot, "held")
	})
	if device1(s).Counter != 2 {
		t.Errorf("it follows assignment %d", device1(s).Counter)
	}
	s.Assign(release, func(a *protocol.Assignment) { a.Counter = 1 })
	m.eventually("an old assignment is refused", func() bool {
		r := device1(s).Report.Refused
		return r != nil && r.Reason == "counter" && r.Counter == 1
	})
	m.says(0, "refused\tassignment 1 (counter): its counter is 1, and 2 was accepted", "check")

	session := s.Last().Session
	m.stop()
	m.start()
	m.eventually("it is back", func() bool { return s.Last().Session == session+1 })
	var again identityView
	if _, out := m.runs("identity", "--json"); json.Unmarshal([]byte(out), &again) != nil || again.Key != id.Key || s.Last().Counter != 2 {
		t.Errorf("it came back as %s", out)
	}
	m.says(term.ExitRefused, "which is forgotten then", "enrol", "--anew")
	m.says(term.ExitRefused, "this device is dev-sn1", "enrol", "--server", "https://other.example")

	// A server that is not there: the device says since when, and stays.
	s.Lie = nil
	for key := range s.Devices {
		s.Lock()
		delete(s.Devices, key)
		s.Unlock()
	}
	m.eventually("it says that nobody knows it", func() bool { _, out := m.runs("status"); return strings.Contains(out, "no device has the key") })
	m.says(1, "no device has the key", "check")
	if len(s.Devices) > 0 {
		t.Error("it enrolled again by itself")
	}
}

// TestADamagedIdentity keeps the updater from following anything, and from
// nothing else.
func TestADamagedIdentity(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	put(t, filepath.Join(sysroot, "identity/enrolment.json"), `{"device":"dev-1"`)
	config := flags[1]
	put(t, config, "poll: 1s\n")
	p := &program{io: &term.IO{}, sysroot: sysroot, configPath: config, socket: flags[len(flags)-1]}
	c, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.openServer(c, records)
	if err != nil {
		t.Fatal(err)
	}
	if a, why := s.assignments.Current(); a != nil || !strings.Contains(why, "enrolment.json, a part of this device's identity") {
		t.Errorf("%+v %q", a, why)
	}
	s.worker = daemon.New(nil, 0, func() {}, slog.New(slog.DiscardHandler))
	s.config.Server = "https://127.0.0.1:1"
	s.run(t.Context()) // it does not try to enrol, and returns
	if view := p.lookServer(c); view == nil || !strings.Contains(piped(statusView{Server: view}, time.Now()), "a part of this device's identity") {
		t.Errorf("status says %+v", view)
	}
	for _, args := range [][]string{{"identity"}, {"enrol", "--server", "https://127.0.0.1:1"}} {
		if err := os.MkdirAll(filepath.Join(sysroot, "deployments"), 0o755); err != nil {
			t.Fatal(err)
		}
		if code, _, errOut := call(t, append(flags, args...)...); code != term.ExitFailed || !strings.Contains(errOut, "a part of this device's identity") || !strings.Contains(errOut, "hint: put the file back") {
			t.Errorf("%v: status %d, %q", args, code, errOut)
		}
	}
	if _, err := os.Stat(filepath.Join(sysroot, "identity/device.key")); err == nil {
		t.Error("it made a new key")
	}
}
