package scripts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// playDevice plays a device that is kept in a file, and prints a line: the
// status and code of the server's answer, and what the device knows then. Negated,
// the device must not believe what it meets, and says why.
//
//	device FILE new SERIAL            makes its keys
//	device FILE enrol [TOKEN]         asks to be taken
//	device FILE check-in              checks in, and takes what it is told
//	device FILE report [NAME=JSON]... changes its report
//	device FILE install               has it report what it was assigned as booted and applied
//	device FILE bom                   fetches the bill of materials that it was assigned and checks it; prints the packages, too
//	device FILE config                prints the configuration that it accepted, secrets decrypted
//	device FILE fetch PATH            reads a file of the archive with its password; prints that, too
//	device FILE reboot                begins a new session and boot
//	device FILE clone OTHER MACHINE   copies its card into another machine
func playDevice(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: device FILE new|enrol|check-in|report|install|bom|config|fetch|reboot|clone ...")
	}
	file, verb, rest := ts.MkAbs(args[0]), args[1], args[2:]
	if verb == "new" {
		d, err := rig.NewDevice(rest[0])
		ts.Check(err)
		keepDevice(ts, file, d)
		return
	}
	text, err := os.ReadFile(file)
	ts.Check(err)
	d := new(rig.Device)
	ts.Check(json.Unmarshal(text, d))
	status, what := 0, ""
	switch verb {
	case "enrol":
		status, err = d.Enrol(context.Background(), ts.Getenv("PUBLIC"), strings.Join(rest, ""))
		e := d.Enrolled
		what = inWords(e.Status, e.Device, e.Product, e.Reason)
	case "check-in":
		status, err = d.CheckIn(context.Background(), ts.Getenv("PUBLIC"))
		what = assigned(d.Accepted)
	case "report":
		changeReport(ts, &d.Report, rest)
	case "install":
		d.Install()
	case "bom":
		var bill bom.BOM
		status, bill, err = d.BOM(context.Background(), ts.Getenv("PUBLIC"))
		what = packagesOf(bill)
	case "config":
		printConfig(ts, d)
	case "fetch":
		var body []byte
		status, body, err = d.Fetch(context.Background(), ts.Getenv("PUBLIC"), rest[0])
		what = string(body)
	case "reboot":
		d.Restart(true)
	case "clone":
		other := *d
		other.Machine = rest[1]
		other.Restart(true)
		keepDevice(ts, ts.MkAbs(rest[0]), &other)
	default:
		ts.Fatalf("a device cannot %s", verb)
	}
	keepDevice(ts, file, d)
	var told *rig.DeviceError
	switch {
	case errors.As(err, &told):
		fmt.Fprintf(ts.Stdout(), "%d %s %s\n", told.Status, told.Told.Code, told.Told.Text)
	case err != nil && neg:
		fmt.Fprintln(ts.Stdout(), err)
	case neg:
		ts.Fatalf("device %s: the server was believed", verb)
	case err != nil:
		ts.Fatalf("device %s: %v", verb, err)
	case status != 0:
		fmt.Fprintln(ts.Stdout(), strings.TrimSpace(fmt.Sprintf("%d %s", status, what)))
	}
}

func keepDevice(ts *testscript.TestScript, file string, d *rig.Device) {
	text, err := json.Marshal(d)
	ts.Check(err)
	ts.Check(os.WriteFile(file, text, 0o600))
}

// changeReport sets fields of a report.
func changeReport(ts *testscript.TestScript, r *protocol.Report, fields []string) {
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		ts.Check(json.Unmarshal(fmt.Appendf(nil, `{%q:%s}`, name, value), r))
	}
}

// packagesOf are the packages of a bill of materials in a line.
func packagesOf(bill bom.BOM) string {
	var all []string
	for _, p := range bill.Packages {
		all = append(all, p.Name+"="+p.Version)
	}
	return strings.Join(all, " ")
}

// printConfig prints what a device is configured with.
func printConfig(ts *testscript.TestScript, d *rig.Device) {
	secrets, err := d.Secrets()
	ts.Check(err)
	if d.Accepted.Config == nil {
		fmt.Fprintln(ts.Stdout(), "none")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(d.Accepted.Config.Values)) {
		fmt.Fprintf(ts.Stdout(), "%s=%v\n", key, d.Accepted.Config.Values[key])
	}
	for _, key := range slices.Sorted(maps.Keys(secrets)) {
		fmt.Fprintf(ts.Stdout(), "%s=%s (secret)\n", key, secrets[key])
	}
}

// assigned is an assignment in a line.
func assigned(a protocol.Assignment) string {
	said := []string{fmt.Sprint(a.Counter), a.Stage}
	if a.Release != nil {
		said = append(said, a.Release.Snapshot)
	}
	if a.Hold != nil {
		said = append(said, "held: "+a.Hold.Reason)
	}
	if a.Wait != "" {
		said = append(said, "waits: "+a.Wait)
	}
	return inWords(said...)
}

// inWords joins those that are not empty.
func inWords(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(w string) bool { return w == "" }), " ")
}
