package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// book is what an updater wrote down.
const book = `{"components":[
{"name":"mcu","state":"running","version":"1.0","wanted":"2.0","why":"it waits until the release is committed"},
{"name":"modem","state":"running","version":"7","wanted":"7"},
{"name":"pump","state":"boot-rom","why":"hardware revision C3 is not supported: this release has firmware for A1"}],
"acts":[
{"at":"2026-11-20T10:00:00Z","ended":"2026-11-20T10:00:09Z","component":"mcu","from":"0.9","to":"1.0","revision":"B2","deployment":2,"result":"done"},
{"at":"2026-11-20T11:00:00Z","ended":"2026-11-20T11:30:00Z","component":"modem","to":"7","revision":"B2","deployment":2,"result":"interrupted","reason":"it was cut off"},
{"at":"2026-11-20T11:30:00Z","component":"modem","to":"7","revision":"B2","deployment":2}]}`

func TestFirmware(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	say := func(args ...string) string {
		t.Helper()
		code, out, errOut := call(t, append(flags[:len(flags):len(flags)], args...)...)
		if code != 0 {
			t.Errorf("%v: status %d, %s", args, code, errOut)
		}
		return out
	}
	for _, nothing := range [][]string{{"firmware"}, {"firmware", "history"}} {
		if out := say(nothing...); out != "" {
			t.Errorf("%v: %q", nothing, out)
		}
		if out := say(append(nothing, "--json")...); out != "[]\n" {
			t.Errorf("%v: %q", nothing, out)
		}
	}
	if err := os.WriteFile(filepath.Join(sysroot, "updater/firmware.json"), []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "mcu\t1.0\t2.0\tit waits until the release is committed\nmodem\t7\t7\t\n" +
		"pump\t-\t-\thardware revision C3 is not supported: this release has firmware for A1\n"
	if out := say("firmware"); out != want {
		t.Errorf("%q", out)
	}
	var all []protocol.Firmware
	if err := json.Unmarshal([]byte(say("firmware", "--json")), &all); err != nil || len(all) != 3 || all[0].Wanted != "2.0" {
		t.Errorf("%+v, %v", all, err)
	}
	want = "2026-11-20T11:30:00Z\tmodem\t-\t7\t2\tunder way\n" +
		"2026-11-20T11:00:00Z\tmodem\t-\t7\t2\tinterrupted: it was cut off\n" +
		"2026-11-20T10:00:00Z\tmcu\t0.9\t1.0\t2\tdone\n"
	if out := say("firmware", "history"); out != want {
		t.Errorf("%q", out)
	}
	if out := said(firmwareFacts(append(all, protocol.Firmware{Reason: "bad \x1b"}))); out != "firmware\tmcu has 1.0, wanted 2.0: it waits until the release is committed\n"+
		"firmware\tpump has none that is known: hardware revision C3 is not supported: this release has firmware for A1\n"+
		"firmware\tcannot be told: bad \\x1b\nfirmware\tmodem 7\n" {
		t.Errorf("status prints %q", out)
	}
	if err := os.WriteFile(filepath.Join(sysroot, "updater/firmware.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := call(t, append(flags, "firmware")...); code != term.ExitFailed || errOut == "" {
		t.Errorf("a damaged book: status %d, %q", code, errOut)
	}
}

// TestFirmwareApplyAsksTheDaemon, and says what was left as it is.
func TestFirmwareApplyAsksTheDaemon(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	if err := os.WriteFile(filepath.Join(sysroot, "updater/firmware.json"), []byte(book), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := answering(t, flags, `{"done":true,"changes":[{"name":"modem","old":"8","new":"7"}]}`)
	for _, c := range []struct {
		args []string
		code int
		want daemon.Request
	}{
		{[]string{"modem"}, 0, daemon.Request{Component: "modem"}},
		{[]string{"mcu"}, term.ExitRefused, daemon.Request{Component: "mcu"}},
		{nil, term.ExitRefused, daemon.Request{}},
		{[]string{"--dry-run"}, 0, daemon.Request{DryRun: true}},
	} {
		c.want.Act = daemon.Firmware
		code, out, errOut := call(t, append(append(flags[:len(flags):len(flags)], "firmware", "apply"), c.args...)...)
		if got := asked(); code != c.code || out != "↓ modem 8 7\n" || len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(c.want) {
			t.Errorf("%v: status %d, %q, %q; asked %+v", c.args, code, out, errOut, got)
		}
	}
	if code, _, _ := call(t, append(flags, "firmware", "apply", "a", "b")...); code != term.ExitUsage {
		t.Errorf("two components: status %d", code)
	}
}
