package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// TestHoldAndDevelop: what is written down, with a daemon or without.
func TestHoldAndDevelop(t *testing.T) {
	t.Setenv("SUDO_USER", "ann")
	sysroot, flags := deviceFlags(t)
	says := func(code int, words string, args ...string) {
		t.Helper()
		if got, out, errOut := call(t, append(flags, args...)...); got != code || !strings.Contains(out+errOut, words) {
			t.Errorf("%v: status %d, want %d and %q:\n%s%s", args, got, code, words, out, errOut)
		}
	}
	for _, args := range [][]string{
		{"hold"}, {"hold", "--reason", " "}, {"hold", "--reason", "x", "--until", "soon"}, {"hold", "--reason", "x", "--until", "2020-01-01"},
		{"develop"}, {"hold", "for", "me"}, {"pin"}, {"pin", "x"}, {"unpin", "-1"}, {"inhibit", "true"}, {"inhibit", "--why", "x"},
	} {
		says(term.ExitUsage, "hint: ", args...)
	}
	says(term.ExitFailed, "cannot run no-such-program", "inhibit", "--why", "x", "no-such-program", "--flag")
	store, err := update.OpenRecords(filepath.Join(sysroot, "updater"))
	if err != nil {
		t.Fatal(err)
	}
	says(0, "", "hold", "--reason", "at the fair", "--until", "36h")
	h, err := store.Hold()
	if err != nil || h.Reason != "at the fair" || h.By != "ann" || time.Until(h.Until) < 35*time.Hour || time.Until(h.Until) > 36*time.Hour {
		t.Errorf("%+v, %v", h, err)
	}
	code, out, _ := call(t, append(flags, "hold", "--reason", "for ever", "--json")...)
	if err := json.Unmarshal([]byte(out), &h); code != 0 || err != nil || h.Reason != "for ever" {
		t.Errorf("--json: %d, %v, %s", code, err, out)
	}
	says(0, "", "develop", "--reason", "a new pump")
	for range 2 {
		says(0, "", "unhold")
	}
	if h, err = store.Hold(); err != nil || h != (protocol.Hold{}) {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err = store.Develop(); err != nil || h != (protocol.Hold{Reason: "a new pump", By: "ann"}) {
		t.Errorf("%+v, %v", h, err)
	}
	if err := os.RemoveAll(filepath.Join(sysroot, "updater")); err != nil {
		t.Fatal(err)
	}
	says(term.ExitFailed, "for devices", "hold", "--reason", "x")
}

// TestProgressAsJSONLines is the contract of `update --wait --json`.
func TestProgressAsJSONLines(t *testing.T) {
	_, flags := deviceFlags(t)
	answering(t, flags, `{"status":{"phase":"IDLE"}}
{"status":{"phase":"DOWNLOAD"}}
{"status":{"phase":"DOWNLOAD","progress":"1 of 2 packages, 1.0 of 3.0 MB","done":1000000,"total":3000000,"unit":"bytes","checked":"2026-11-20T10:00:00Z"}}
{"status":{"phase":"DOWNLOAD","progress":"1 of 2 packages, 1.0 of 3.0 MB","done":1000000,"total":3000000,"unit":"bytes","checked":"2026-11-20T10:00:01Z"}}
{"status":{"phase":"INSTALL","progress":"0 of 2 packages","total":2,"unit":"packages"}}
{"status":{"phase":"STAGED","why_not":"it is staged and waits"}}
{"done":true}`)
	want := `{"phase":"IDLE"}
{"phase":"DOWNLOAD"}
{"phase":"DOWNLOAD","progress":"1 of 2 packages, 1.0 of 3.0 MB","done":1000000,"total":3000000,"unit":"bytes","percent":33}
{"phase":"INSTALL","progress":"0 of 2 packages","total":2,"unit":"packages","percent":0}
{"phase":"STAGED","why_not":"it is staged and waits"}
`
	for _, args := range [][]string{{"update", "--wait", "--json"}, {"rejoin", "--json"}, {"rollback", "--json"}} {
		if code, out, errOut := call(t, append(flags, args...)...); code != 0 || out != want || errOut != "" {
			t.Errorf("%v: status %d\n%s%s", args, code, out, errOut)
		}
	}
	// What asks for a value gets one alone.
	if code, out, _ := call(t, append(flags, "update", "--dry-run", "--json")...); code != 0 || strings.TrimSpace(out) != "null" && strings.TrimSpace(out) != "[]" {
		t.Errorf("a dry run: status %d\n%s", code, out)
	}
	if code, out, _ := call(t, append(flags, "update", "--json")...); code != 0 || out != "" {
		t.Errorf("without --wait: status %d\n%s", code, out)
	}
	code, out, errOut := call(t, append(flags, "update", "--wait")...)
	if code != 0 || out != "" || errOut != "download\ninstall: 0 of 2 packages\nstaged: it is staged and waits\n" {
		t.Errorf("for people: status %d\n%s%s", code, out, errOut)
	}
}

// TestProgressOnATerminal is one line for each phase.
func TestProgressOnATerminal(t *testing.T) {
	var errOut bytes.Buffer
	p := &program{io: &term.IO{Err: &errOut, ErrTerminal: true, Now: time.Now}}
	show, end := p.follow(daemon.Update)
	for _, s := range []update.Status{
		{Phase: "IDLE"}, {Phase: "PREFLIGHT"}, {Phase: "DOWNLOAD"}, {Phase: "DOWNLOAD", Progress: "1 of 2", Done: 1, Total: 2},
		{Phase: "DOWNLOAD", Progress: "2 of 2", Done: 2, Total: 2}, {Phase: "DOWNLOAD", Progress: "2 of 2", Done: 2, Total: 2}, {Phase: "VERIFY", Progress: "x\x1b"},
	} {
		show(s)
	}
	end()
	end()
	want := "preflight\ndownload\r\x1b[Kdownload: 1 of 2\r\x1b[Kdownload: 2 of 2\nverify: x\\x1b\n"
	if errOut.String() != want {
		t.Errorf("%q", errOut.String())
	}
}
