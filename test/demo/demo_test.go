package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
)

// TestMakeRun is a visitor's first hour: `make run`, interrupted ten times on
// the way, then the click on Promote, then the commands it prints, as they
// stand, from another directory, then Ctrl-C and `make purge`.
func TestMakeRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	interrupted := 10
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range interrupted {
		r := start(t, dir)
		// Two while it builds, the others once there is a server to stop.
		moment := time.Duration(random.Int64N(int64(5 * time.Second)))
		if i >= 2 {
			r.await(r.page, 5*time.Minute)
			moment = time.Duration(random.Int64N(int64(20 * time.Second)))
		}
		ready := r.await(r.up, moment)
		r.interrupt(t)
		t.Logf("Ctrl-C after %.1f s, ready %v, its end: %s", moment.Seconds(), ready, r.end())
		nothingLeft(t, dir)
	}

	// The last time the server is elsewhere: the device must find it again.
	public := strings.Replace(freeAddress(t), "127.0.0.1", "127.0.0.2", 1)
	r := start(t, dir, "PUBLIC="+public)
	t.Cleanup(func() { r.interrupt(t) })
	if !r.await(r.up, 8*time.Minute) {
		t.Fatalf("make run is not ready after 8 minutes; it said:\n%s", r.text())
	}
	guide := blocks(r.text())
	api := visitorClient(t, dir)

	for _, command := range [][]string{createProduct, registerDevice} {
		if line := strings.Join(command, " "); strings.Count(r.text(), "  "+line+"\n") != 1 {
			t.Errorf("it does not tell the command %q once:\n%s", line, r.text())
		}
	}
	t.Run("look around", func(t *testing.T) {
		out := paste(t, guide["Look at the device, at what it installs, and at what the promotion brings it"])
		for _, want := range []string{deviceName, deviceSerial, "needed by demo-device (Depends)", "↑\tapps\tdemo-app", "demo-app 2.0 → 3.0"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		installed(t, api, dir)
	})

	page := visit(t, strings.TrimPrefix(r.firstResult(), "ready: "))
	card := "#device-" + deviceName

	// Clicks alone bring the device to the release that waits for them.
	page.shows(card+" .version", "2.0")
	page.click("#production-review")
	page.shows("h1", "Promote to production")
	page.click("main form button")
	clicked := time.Now()
	page.shows("#notice", "production now offers")
	await(t, api, func(d protocol.Device) bool { return d.Report.Phase == "IDLE" && version(d.Report) == "3.0" })
	t.Logf("from the click until the device has committed 3.0: %.1f s", time.Since(clicked).Seconds())
	page.shows(card+" .version", "3.0")
	page.shows(card+" .badge", "Up to date")

	t.Run("ship your own package", func(t *testing.T) {
		paste(t, guide["Ship your own package"])
		device := await(t, api, func(d protocol.Device) bool { return d.Report.Phase == "IDLE" && version(d.Report) == "3.1" })
		t.Logf("the device runs %+v", device.Report.Deployments)
		installed(t, api, dir)
	})
	t.Run("ship a broken version", func(t *testing.T) {
		paste(t, guide["Ship a broken version, and watch the device go back by itself; the page says why"])
		device := await(t, api, func(d protocol.Device) bool { return d.Report.Phase == "IDLE" && len(d.Report.Failed) > 0 })
		if version(device.Report) != "3.1" {
			t.Errorf("after the broken release the device runs %q, want 3.1", version(device.Report))
		}
		if device.Report.WhyNot == "" || device.Report.Failed[0].Reason == "" {
			t.Errorf("the report does not say why: %+v", device.Report)
		}
		page.shows(card+" .why.bad", device.Report.Failed[0].Reason)
		t.Logf("why not: %s", device.Report.WhyNot)
	})
	t.Run("configure the device", func(t *testing.T) {
		out := paste(t, guide["Configure the device: its service greets otherwise, on the device's console"])
		if !strings.Contains(out, "ahoy from demo-app 3.1") {
			t.Errorf("the service does not greet as it was configured:\n%s", out)
		}
		await(t, api, func(d protocol.Device) bool { return d.Report.Config != "" })
	})
	t.Run("keep the device as it is", func(t *testing.T) {
		paste(t, guide["Keep the device as it is, whatever is promoted; device unhold ends that"])
		held := await(t, api, func(d protocol.Device) bool { return d.Hold != nil })
		if held.Hold.Reason != "at the fair" || held.Hold.Until.IsZero() {
			t.Errorf("the device has the hold %+v", held.Hold)
		}
	})
	t.Run("attach another machine's apt", func(t *testing.T) {
		out := pasteInto(t, machine(t), guide["Attach another Debian machine's apt (as root, on that machine)"])
		if !strings.Contains(out, "Setting up demo-app") {
			t.Errorf("apt did not install demo-app:\n%s", out)
		}
	})
	t.Run("sign in again", func(t *testing.T) {
		out := paste(t, guide["A new sign-in link, and what the archive holds"])
		for _, want := range []string{"http://127.0.0.1:", "production"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	})

	r.interrupt(t)
	nothingLeft(t, dir)
	purge := exec.Command("make", "purge")
	purge.Dir, purge.Env = "../..", environment(dir)
	if out, err := purge.CombinedOutput(); err != nil {
		t.Fatalf("make purge: %v\n%s", err, out)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("make purge left %s: %v", dir, err)
	}
}

// TestWithoutDevice is the server part alone: at the address that the visitor
// wants, again from where it stopped, and afresh.
func TestWithoutDevice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	address := freeAddress(t)
	public := strings.Replace(address, "127.0.0.1", "127.0.0.2", 1)
	for _, run := range []struct {
		name string
		env  []string
		has  bool // the package of the first run
	}{
		{"at first", nil, false},
		{"again", nil, true},
		{"afresh", []string{"FRESH=1", "PUBLIC=" + public}, false},
	} {
		r := start(t, dir, append(run.env, "DEVICE=none", "LISTEN="+address)...)
		t.Cleanup(func() { r.interrupt(t) })
		if !r.await(r.up, 5*time.Minute) {
			t.Fatalf("%s: make run DEVICE=none is not ready after 5 minutes; it said:\n%s", run.name, r.text())
		}
		if line := r.firstResult(); !strings.HasPrefix(line, "ready: http://"+address+"/") {
			t.Errorf("%s: the first line on stdout is %q, want ready: and a link to %s", run.name, line, address)
		}
		found, err := visitorClient(t, dir).Packages(t.Context(), pipelineName, client.PackageQuery{Ref: "production", Component: repository, Name: application})
		if err != nil {
			t.Fatal(err)
		}
		if has := slices.ContainsFunc(found, func(p protocol.Package) bool { return p.Version == "3.1" }); has != run.has {
			t.Errorf("%s: the visitor's own package is there: %v, want %v", run.name, has, run.has)
		}
		guide := blocks(r.text())
		if _, ok := guide["Ship a broken version, and watch the device go back by itself; the page says why"]; ok {
			t.Error("it speaks of a device that is not there")
		}
		if attach := guide["Attach another Debian machine's apt (as root, on that machine)"]; strings.Contains(attach, "http://"+public+"/") != (run.name == "afresh") {
			t.Errorf("%s: PUBLIC is %s; other machines are told:\n%s", run.name, public, attach)
		}
		if run.name == "at first" {
			paste(t, guide["Ship your own package"])
		}
		r.interrupt(t)
		nothingLeft(t, dir)
	}
	// What was made without a device has nothing to install one from.
	refuses(t, dir, "DEVICE=none")
}

// TestOfAnotherVersion: a directory that another version made is refused, as
// it is, and FRESH=1 starts over in it.
func TestOfAnotherVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	kept := filepath.Join(dir, "server", "repo-manager.db")
	write := func(name, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(kept, "of an older version")
	refuses(t, dir, "another version of Aptfleet")
	write(filepath.Join(dir, "world.json"), `{"format": 99, "device": true}`)
	refuses(t, dir, "another version of Aptfleet")
	if text, err := os.ReadFile(kept); err != nil || string(text) != "of an older version" {
		t.Errorf("its data was touched: %q, %v", text, err)
	}
	r := start(t, dir, "DEVICE=none", "FRESH=1")
	t.Cleanup(func() { r.interrupt(t) })
	if !r.await(r.up, 5*time.Minute) {
		t.Fatalf("make run FRESH=1 is not ready after 5 minutes; it said:\n%s", r.text())
	}
}

// refuses fails the test unless make run, with a device, ends by itself, says
// why, and how to go on.
func refuses(t *testing.T, dir, why string) {
	t.Helper()
	r := start(t, dir)
	t.Cleanup(func() { r.interrupt(t) })
	if r.await(r.up, 5*time.Minute) || r.cmd.ProcessState == nil || r.cmd.ProcessState.Success() {
		t.Fatalf("make run does not fail; it said:\n%s", r.text())
	}
	for _, want := range []string{"cannot go on from " + dir, why, "FRESH=1 make run"} {
		if !strings.Contains(r.text(), want) {
			t.Errorf("no %q in what make run says:\n%s", want, r.text())
		}
	}
}

// TestPreflightSaysEverythingAtOnce hides programs from it and asks that each
// is named with its remedy, and that nothing is installed without an answer.
func TestPreflightSaysEverythingAtOnce(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"bash", "sed", "id", "df", "tail", "tr", "dirname", "grep", "sort", "head", "awk", "apt-get", "env", "dpkg-query"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	// A dpkg-query that knows no package stands for a bare machine.
	query := filepath.Join(bin, "dpkg-query")
	if err := errors.Join(os.Remove(query), os.WriteFile(query, []byte("#!/bin/sh\nexit 1\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	run := exec.Command(filepath.Join(bin, "bash"), "run.sh")
	run.Env = []string{"PATH=" + bin, "DEMO_DIR=" + dir, "HOME=" + t.TempDir()}
	out, err := run.CombinedOutput()
	if err == nil {
		t.Errorf("it went on without Go:\n%s", out)
	}
	for _, want := range []string{"Go is not installed", "https://go.dev/dl", "btrfs-progs", "systemd-container", "apt-get install --no-install-recommends gcc"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the preflight does not say %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused run made its directory")
	}
}

// running is one `make run`.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{}
	page  chan struct{} // closed when the page is up
	up    chan struct{} // closed when the whole guide was printed

	mu      sync.Mutex
	lines   []string
	results []string // those of stdout alone
}

func environment(dir string, more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "MAKE") || strings.HasPrefix(e, "APTFLEET_") || strings.HasPrefix(e, "SUDO_")
	})
	return append(append(env, "DEMO_DIR="+dir, "YES=1"), more...)
}

// start runs `make run` in a process group of its own, as a shell would.
func start(t *testing.T, dir string, more ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command("make", "run"), ended: make(chan struct{}), page: make(chan struct{}), up: make(chan struct{})}
	r.cmd.Dir, r.cmd.Env = "../..", environment(dir, more...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Each stream is read to its end before Wait closes it.
	var reading sync.WaitGroup
	for name, open := range map[string]func() (io.ReadCloser, error){"stdout": r.cmd.StdoutPipe, "stderr": r.cmd.StderrPipe} {
		stream, err := open()
		if err != nil {
			t.Fatal(err)
		}
		reading.Go(func() { r.read(stream, name == "stdout") })
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		reading.Wait()
		if err := r.cmd.Wait(); err != nil {
			r.said(fmt.Sprintf("make run ended: %v", err), false)
		}
		close(r.ended)
	}()
	return r
}

// read takes in one stream, and notices what tells how far it is.
func (r *running) read(stream io.Reader, result bool) {
	scanner := bufio.NewScanner(stream)
	for scanner.Scan() {
		r.said(scanner.Text(), result)
		switch {
		case strings.Contains(scanner.Text(), "the page is up: "):
			close(r.page)
		case strings.HasPrefix(scanner.Text(), "Ctrl-C stops everything"):
			close(r.up)
		}
	}
}

func (r *running) said(line string, result bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
	if result {
		r.results = append(r.results, line)
	}
}

// firstResult is the first line on stdout.
func (r *running) firstResult() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.results) == 0 {
		return ""
	}
	return r.results[0]
}

// await reports whether it got there within the given time.
func (r *running) await(there <-chan struct{}, limit time.Duration) bool {
	select {
	case <-there:
		return true
	case <-r.ended:
		return false
	case <-time.After(limit):
		return false
	}
}

// interrupt is Ctrl-C: SIGINT to the whole group. It fails the test if
// anything is still running half a minute later.
func (r *running) interrupt(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(30 * time.Second):
		if err := syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Log(err)
		}
		t.Fatalf("make run does not end within 30 s of Ctrl-C; it said:\n%s", r.text())
	}
}

func (r *running) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// end is the last few lines, on one line.
func (r *running) end() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines[max(0, len(r.lines)-4):], " | ")
}

// nothingLeft fails the test if a process, mount or loop device of the
// directory survived.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range environs {
		environ, err := os.ReadFile(name)
		if err == nil && bytes.Contains(environ, []byte("DEMO_DIR="+dir)) {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline")) // it may just have ended
			t.Errorf("a process is left: %s %q", name, cmdline)
		}
	}
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		if table, err := os.ReadFile(name); err == nil && strings.Contains(string(table), dir) {
			t.Errorf("a mount is left in %s", name)
		}
	}
	// The kernel frees a loop device shortly after its last mount has gone.
	var loops []byte
	for range 50 {
		if loops, err = exec.Command("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").Output(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(loops, []byte(dir)) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("a loop device is left:\n%s", loops)
}

// blocks splits what make run printed into its commands by their headings.
func blocks(text string) map[string]string {
	found := map[string]string{}
	title := ""
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "# "):
			title = strings.TrimSpace(line[2:])
		case strings.TrimSpace(line) == "":
			title = ""
		case title != "":
			found[title] += line
		}
	}
	return found
}

// paste runs commands as they stand, from a directory of no meaning.
func paste(t *testing.T, commands string) string {
	t.Helper()
	return pasteInto(t, "", commands)
}

// pasteInto is paste on another machine: a root directory.
func pasteInto(t *testing.T, root, commands string) string {
	t.Helper()
	if commands == "" {
		t.Fatal("make run did not print these commands")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-e")
	if root != "" {
		shell = exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child",
			"--mount-proc="+filepath.Join(root, "proc"), "chroot", root, "sh", "-e")
	}
	shell.Dir = "/"
	shell.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + goDir(t), "HOME=" + t.TempDir(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	shell.Stdin = strings.NewReader(commands)
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("the printed commands fail: %v\n%s\n-- they print:\n%s", err, commands, out)
	}
	return string(out)
}

func goDir(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(path)
}

// machine is a Debian system that knows nothing of Aptfleet.
func machine(t *testing.T) string {
	t.Helper()
	tar, err := debian.Root(t.Context(), debian.Spec{Suite: distribution})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := debian.Unpack(t.Context(), tar, root); err != nil {
		t.Fatal(err)
	}
	return root
}

// visitorClient speaks to the demo's server over its socket.
func visitorClient(t *testing.T, dir string) *client.Client {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "server", "run", "addresses.json"))
	if err != nil {
		t.Fatal(err)
	}
	var at addresses
	if err := json.Unmarshal(raw, &at); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Options{Socket: at.Socket, UserAgent: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// await polls the device's report until it fits.
func await(t *testing.T, api *client.Client, fits func(protocol.Device) bool) protocol.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var last protocol.Device
	for {
		device, err := api.Device(ctx, deviceName)
		if err == nil {
			last = device
			if device.Report != nil && fits(device) {
				return device
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the device did not get there (%v); it reported last:\n%+v", err, last.Report)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// installed fails the test unless the device's booted deployment has exactly
// the packages of the bill of materials, as its own dpkg lists them.
func installed(t *testing.T, api *client.Client, dir string) {
	t.Helper()
	device := await(t, api, func(d protocol.Device) bool { return d.Report.Phase == "IDLE" })
	bom, err := api.BOM(t.Context(), pipelineName, product, nil, "production")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range bom.Packages {
		want = append(want, fmt.Sprintf("%s:%s=%s", p.Name, p.Architecture, p.Version))
	}
	slices.Sort(want)
	if bom.Verdict != nil || len(want) < 50 || device.Has == nil || device.Has.State != bom.State {
		t.Fatalf("the device runs %+v; the bill of %s: %+v, %d packages", device.Has, bom.State, bom.Verdict, len(want))
	}
	at := slices.IndexFunc(device.Report.Deployments, func(d protocol.Deployment) bool { return d.Role == "booted" })
	root := filepath.Join(dir, "device", "top", "deployments", fmt.Sprint(device.Report.Deployments[at].ID))
	out, err := inside(t, dir, "dpkg-query", "--admindir="+root+"/var/lib/dpkg", "--show", "--showformat=${Package}:${Architecture}=${Version}\n")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	have := strings.Fields(string(out))
	slices.Sort(have)
	if !slices.Equal(have, want) {
		t.Errorf("the device has\n%q\nits bill of materials is\n%q", have, want)
	}
}

// inside runs a program where the demo's mounts are.
func inside(t *testing.T, dir string, words ...string) ([]byte, error) {
	t.Helper()
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		pid := filepath.Base(filepath.Dir(name))
		table, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(table), " "+filepath.Join(dir, "device", "top")+" ") {
			continue
		}
		return exec.CommandContext(t.Context(), "nsenter", append([]string{"--target", pid, "--mount"}, words...)...).CombinedOutput()
	}
	t.Fatal("nobody has mounted the device's disk")
	return nil, nil
}

// freeAddress is one on the loopback that nothing listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	return free.Addr().String()
}

// version is the version of the product's application on the booted
// deployment.
func version(r *protocol.Report) string {
	for _, deployment := range r.Deployments {
		if deployment.Role == "booted" {
			return deployment.Version
		}
	}
	return ""
}
