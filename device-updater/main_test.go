package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// call runs a command line as a program in a pipe would see it.
func call(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	io := &term.IO{Out: &stdout, Err: &stderr, Now: time.Now}
	code = run(t.Context(), io, args)
	return code, stdout.String(), stderr.String()
}

// TestEveryCommandExplainsItself: each command has a sentence, an example, and
// each flag its help.
func TestEveryCommandExplainsItself(t *testing.T) {
	p := &program{io: &term.IO{}}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s lacks its help or an example", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s has no help", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(p.root())
}

// TestEveryCommandIsInTheDocument: what people may type is listed there.
func TestEveryCommandIsInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/device-updater.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range (&program{io: &term.IO{}}).root().Commands() {
		if !c.Hidden && !strings.Contains(string(text), "device-updater "+c.Name()) {
			t.Errorf("nothing is said about %s", c.Name())
		}
		if !c.Hidden && c.GroupID == "" {
			t.Errorf("%s is in no group", c.Name())
		}
	}
}

// TestThePackageIsInTheDocument: each unit that it brings, and each directory for
// what products bring.
func TestThePackageIsInTheDocument(t *testing.T) {
	document, err := os.ReadFile("../docs/device-updater.md")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("aptfleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "\n## The package\n")
	found := regexp.MustCompile(`dst: (?:/usr/lib/systemd/system/|/usr/lib/aptfleet/)([a-z.-]+(?:/(?:required|wanted))?)[\n/]`).FindAllStringSubmatch(string(manifest), -1)
	if len(found) < 15 {
		t.Errorf("only %q", found)
	}
	for _, m := range found {
		name := strings.TrimSuffix(m[1], ".d")
		if strings.HasSuffix(name, ".wants") || strings.HasSuffix(name, ".requires") || strings.HasPrefix(name, "systemd-tmpfiles-") {
			continue
		}
		if name = strings.TrimSuffix(name, "@.service"); !strings.Contains(section, "`"+name) {
			t.Errorf("nothing is said about %s", name)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"fly"}, {"update", "now"}, {"update", "--hard"}, {"status", "--json=maybe"}} {
		if code, _, errOut := call(t, args...); code != term.ExitUsage || errOut == "" {
			t.Errorf("%v: status %d, %q", args, code, errOut)
		}
	}
	if code, out, _ := call(t, "--version"); code != 0 || !strings.HasPrefix(out, "device-updater ") || strings.Count(out, "\n") != 1 {
		t.Errorf("--version: %d, %q", code, out)
	}
}

// deviceFlags makes the directories of a device and returns the flags that name
// them.
func deviceFlags(t *testing.T) (sysroot string, flags []string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "device.yaml")
	text := "archive: http://127.0.0.1:1\npipeline: demo\nfollow: production\ncomponents: [apps]\nkeyring: /k.pgp\npackages: [demo-device]\ndistribution: trixie\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sysroot = filepath.Join(dir, "sysroot")
	if err := os.MkdirAll(filepath.Join(sysroot, "updater"), 0o755); err != nil {
		t.Fatal(err)
	}
	return sysroot, []string{"--config", config, "--sysroot", sysroot, "--boot-control", dir, "--socket", filepath.Join(dir, "s")}
}

// answering is a daemon at the socket that flags name, which gives each request
// the same answer. It returns what it was asked since it was last looked at.
func answering(t *testing.T, flags []string, answer string) (asked func() []daemon.Request) {
	t.Helper()
	listener, err := net.Listen("unix", flags[slices.Index(flags, "--socket")+1])
	if err != nil {
		t.Fatal(err)
	}
	var requests []daemon.Request
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request daemon.Request
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		requests = append(requests, request)
		fmt.Fprintln(w, answer)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return func() []daemon.Request {
		all := requests
		requests = nil
		return all
	}
}

func TestHistory(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	log, err := journal.Open(filepath.Join(sysroot, "updater/journal"), func() time.Time {
		now = now.Add(90 * time.Second)
		return now
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []journal.Record{
		{Transaction: 1, Phase: journal.Check, Snapshot: "20261120T090000Z", Deployment: 2},
		{Transaction: 1, Phase: journal.Commit, Snapshot: "20261120T090000Z", Deployment: 2},
		{Transaction: 1, Phase: journal.Idle, Snapshot: "20261120T090000Z", Deployment: 2},
		{Transaction: 2, Phase: journal.Check, State: strings.Repeat("ab", 32), Deployment: 3},
		{Transaction: 2, Phase: journal.Failed, State: strings.Repeat("ab", 32), Deployment: 3, Reason: "app.service failed"},
		{Transaction: 3, Phase: journal.Idle, Snapshot: "20261120T093000Z", Deployment: 4, Reason: "the packages are the same"},
		{Transaction: 4, Phase: journal.Install, Snapshot: "20261120T094500Z", Deployment: 5, Local: strings.Repeat("cd", 32)},
	} {
		if _, err := log.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := call(t, append(flags, "history")...)
	want := "4\t2026-11-20T10:10:30Z\t0s\t20261120T094500Z + overlay\t5\tin phase INSTALL\n" +
		"3\t2026-11-20T10:09:00Z\t0s\t20261120T093000Z\t4\tended: the packages are the same\n" +
		"2\t2026-11-20T10:07:30Z\t1m30s\tstate abababababab\t3\tfailed: app.service failed\n" +
		"1\t2026-11-20T10:04:30Z\t3m0s\t20261120T090000Z\t2\tcommitted\n"
	if code != 0 || out != want {
		t.Errorf("status %d %s\n%s", code, errOut, out)
	}
	code, out, _ = call(t, append(flags, "history", "--json")...)
	var past []journal.Transaction
	if err := json.Unmarshal([]byte(out), &past); code != 0 || err != nil || len(past) != 4 {
		t.Fatalf("--json: status %d, %v\n%s", code, err, out)
	}
	first := past[0]
	if len(first.Phases) != 3 || first.Phases[1].Phase != journal.Commit || first.Phases[1].Seconds != 90 || first.Seconds != 180 || first.Result != journal.Committed {
		t.Errorf("--json: %+v", first)
	}
}

// TestRefusalsOfAMachineThatIsNoDevice: clear errors, not half a device.
func TestRefusalsOfAMachineThatIsNoDevice(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"update"}, "btrfs"},
		{[]string{"init"}, "btrfs"},
		{[]string{"cancel"}, "the daemon is not running"},
		{[]string{"enrol", "--server", "https://127.0.0.1:1"}, "this machine is no device"},
		{[]string{"status"}, "cannot tell the booted deployment"},
	} {
		code, _, errOut := call(t, append(flags, c.args...)...)
		if code != term.ExitFailed || !strings.Contains(errOut, c.says) {
			t.Errorf("%v: status %d, %q", c.args, code, errOut)
		}
	}
	entries, err := os.ReadDir(sysroot)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	code, _, errOut := call(t, "--config", "/nowhere/device.yaml", "--json", "status")
	var body protocol.ErrorBody
	if err := json.Unmarshal([]byte(errOut), &body); code != 1 || err != nil || body.Error.Text == "" {
		t.Errorf("--json error: status %d, %v, %q", code, err, errOut)
	}
}

// TestExitStatusOfUpdate: scripts learn from it what the daemon made of their
// request.
func TestExitStatusOfUpdate(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer string // of the daemon
		phase  journal.Phase
		args   []string
		want   int
	}{
		{"nothing to do", `{"done":true}`, journal.Idle, []string{"--reboot-exit-code"}, 0},
		{"staged", `{"done":true}`, journal.Staged, []string{"--reboot-exit-code"}, term.ExitReboot},
		{"staged, not asked", `{"done":true}`, journal.Staged, []string{"--wait"}, 0},
		{"failed", `{"error":"cannot install: no"}`, journal.Idle, []string{"--reboot-exit-code"}, term.ExitFailed},
		{"refused", `{"error":"it failed here before","refused":true,"hint":"device-updater retry"}`, journal.Idle, []string{"--wait"}, term.ExitRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			sysroot, flags := deviceFlags(t)
			log, err := journal.Open(filepath.Join(sysroot, "updater/journal"), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := log.Append(journal.Record{Transaction: 1, Phase: c.phase}); err != nil {
				t.Fatal(err)
			}
			if err := log.Close(); err != nil {
				t.Fatal(err)
			}
			answering(t, flags, c.answer)
			code, _, errOut := call(t, append(append(flags, "update"), c.args...)...)
			if code != c.want {
				t.Errorf("status %d, want %d; it says %q", code, c.want, errOut)
			}
		})
	}
}

func TestLockedByAnotherProcess(t *testing.T) {
	sysroot, _ := deviceFlags(t)
	p := &program{sysroot: sysroot}
	held, err := p.takeLock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.takeLock(); term.ExitCode(err) != term.ExitLocked {
		t.Errorf("%v has status %d", err, term.ExitCode(err))
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := p.takeLock()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// mountedFlags is deviceFlags with a disk mounted at the top level.
func mountedFlags(t *testing.T) (sysroot string, flags []string) {
	t.Helper()
	sysroot, flags = deviceFlags(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	put(t, image, "")
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.btrfs", "-q", image)
	command(t, "mount", "-o", "loop", image, sysroot)
	t.Cleanup(func() { command(t, "umount", sysroot) })
	if err := os.Mkdir(filepath.Join(sysroot, "updater"), 0o755); err != nil {
		t.Fatal(err)
	}
	return sysroot, flags
}

// TestNothingIsMounted: a machine that goes down has no boot control any more.
// That is not one in which nothing is on trial.
func TestNothingIsMounted(t *testing.T) {
	sysroot, flags := mountedFlags(t)
	empty := t.TempDir()
	flags = append(flags, "--boot-control", empty)
	if code, _, errOut := call(t, append(flags, "update")...); code != 1 || !strings.Contains(errOut, "cannot use "+empty+": nothing is mounted there") {
		t.Errorf("status %d: %s", code, errOut)
	}
	for _, dir := range []string{empty, filepath.Join(sysroot, "updater")} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("in %s there are %v, %v", dir, entries, err)
		}
	}
}

// TestADaemonThatBegins: it has the lock a moment before it listens. Who asks in
// between is not turned away.
func TestADaemonThatBegins(t *testing.T) {
	sysroot, flags := mountedFlags(t)
	flags = append(flags, "--boot-control", sysroot)
	held, err := (&program{sysroot: sysroot}).takeLock()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	code := make(chan int, 1)
	go func() {
		status, _, _ := call(t, append(flags, "update", "--reboot")...)
		code <- status
	}()
	select {
	case status := <-code:
		t.Fatalf("status %d before the daemon listens", status)
	case <-time.After(200 * time.Millisecond):
	}
	asked := answering(t, flags, `{"done":true}`)
	if status := <-code; status != 0 {
		t.Errorf("status %d", status)
	}
	if r := asked(); len(r) != 1 || !r[0].Reboot {
		t.Errorf("the daemon was asked %+v", r)
	}
}

func TestStatusInATrial(t *testing.T) {
	previous := 1
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	v := statusView{View: update.View{
		Current: 3, Committed: 2, Previous: &previous, Trial: &boot.Trial{Deployment: 3, Tries: 1},
		Checked: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC),
		Report: protocol.Report{
			Follow: "production", Phase: "HEALTH", Progress: "graphical.target was not reached",
			Wanted: strings.Repeat("cd", 32), WantedName: "20261120T094500Z", WhyNot: "it is on trial",
			Deployments: []protocol.Deployment{
				{ID: 3, Snapshot: "20261120T094500Z", Role: "trial", Version: "3.0"},
				{ID: 2, State: strings.Repeat("ab", 32), Role: "rollback", Pinned: true},
				{ID: 1, State: strings.Repeat("ef", 32), Role: "pinned", Pinned: true},
			},
			LastError: "boot control is not readable",
			Failed:    []protocol.Failure{{Snapshot: "20261120T090000Z", At: time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC), Reason: "app.service failed\x1b[2J"}},
			Holds: []protocol.Hold{
				{Reason: "at the fair", By: "ann", Until: now.Add(time.Hour)},
				{Reason: "over", Until: now},
			},
		},
		Develop: &protocol.Hold{Reason: "a new pump"},
	}}
	want := "why not\tit is on trial\n" +
		"has\t20261120T094500Z\n" +
		"wanted\t20261120T094500Z, asked 2026-11-20T10:00:00Z\n" +
		"phase\tHEALTH: graphical.target was not reached\n" +
		"3\tbooted, on trial\t20261120T094500Z\t3.0\n" +
		"2\trollback, pinned\tstate abababababab\t\n" +
		"1\tpinned\tstate efefefefefef\t\n" +
		"held\there by ann until 2026-11-20T11:00:00Z: at the fair; `device-updater unhold` ends it\n" +
		"develops\tit follows nothing: a new pump; `device-updater rejoin` ends it\n" +
		"trouble\tboot control is not readable\n" +
		"failed\t20261120T090000Z, 2026-11-20T09:30:00Z: app.service failed\\x1b[2J\n" +
		"follows\tproduction\n"
	if out := piped(v, now); out != want {
		t.Errorf("it says\n%s", out)
	}
}

// piped is what a pipe gets of a status.
func piped(v statusView, now time.Time) string {
	var out bytes.Buffer
	v.print(&term.IO{Out: &out, Now: func() time.Time { return now }})
	return out.String()
}

// said is what a pipe gets of facts.
func said(groups ...[]term.Fact) string {
	var out bytes.Buffer
	for _, group := range groups {
		(&term.IO{Out: &out}).Facts(group...)
	}
	return out.String()
}
