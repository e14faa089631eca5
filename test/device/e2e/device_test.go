package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"aptfleet/internal/protocol"
	"aptfleet/test/device"
	"aptfleet/test/device/bootcontrol"
)

// patience is how long any one step may take before a test fails. It is far
// more than the step needs on a busy machine.
const patience = 150 * time.Second

// fielded is a device of one test: a clone of the installed one with an
// identity of its own, which follows a stage of its own.
type fielded struct {
	*device.Machine
	t       *testing.T
	site    *site
	name    string // of the machine and, once it is enrolled, of the device; its serial number
	stage   string
	product string
	modules []string
	how     belonging
	archive string // base URL that a plain device knows
	reboot  string // auto or manual
	trial   trial
	more    map[string]any // of the configuration

	revision string            // of the hardware; "": the factory wrote none
	bridge   string            // that its network card is plugged into; "": it has the network of the tests
	devices  map[string]string // that are connected to the machine
}

// belonging is how a device comes to what it should run.
type belonging int

const (
	byToken  belonging = iota // it enrols with a one-time token, which names the server's authority
	bySerial                  // it enrols with a serial number that was registered; the factory gave it the authority
	byStage                   // it is not enrolled: it follows a stage of the archive
)

// trial are the device's settings for trials; tests keep them short.
type trial struct {
	Tries   int    `yaml:"tries"`
	Timeout string `yaml:"timeout"`
	Observe string `yaml:"observe"`
}

// newDevice makes a device that runs release "1" and is off.
func newDevice(t *testing.T, change ...func(*fielded)) *fielded {
	t.Helper()
	n := int(world.stages.Add(1)) - 1
	if n >= stageCount {
		t.Fatal("the pipeline has too few stages for so many devices: raise stageCount")
	}
	d := &fielded{
		t: t, site: world.site, name: fmt.Sprintf("device-%02d", n), stage: stageName(n), product: productOf("device").Name,
		archive: world.site.plain, reboot: "auto", trial: trial{Tries: 2, Timeout: "60s", Observe: "3s"},
	}
	for _, c := range change {
		c(d)
	}
	if d.stage == stageName(n) { // nobody else follows it
		d.promote("1")
	}
	d.clone(world.base, d.name)
	if _, err := os.Stat(filepath.Join(d.Top(), "identity/device.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the installed disk has an identity, which all its clones would share (%v)", err)
	}
	d.introduce()
	d.configure()
	return d
}

// clone makes the device's machine with a copy of another one's disk.
func (d *fielded) clone(from *device.Machine, name string) {
	d.t.Helper()
	dir := filepath.Join(world.dir, "devices", name)
	var err error
	if d.Machine, err = from.Clone(d.t.Context(), device.Config{Dir: dir, Name: name, Loader: program(world.dir, "loader"), Bridge: d.bridge, Devices: d.devices}); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.explain()
		}
		if err := errors.Join(d.Close(), os.RemoveAll(dir)); err != nil {
			d.t.Error(err)
		}
	})
}

// factoryCA is where the factory puts the authority of the server.
const factoryCA = "identity/factory-ca.pem"

// introduce does what the factory does about the identity: the server is told
// of the device, and the device what it needs to enrol.
func (d *fielded) introduce() {
	d.t.Helper()
	if d.how == byStage {
		return
	}
	files := map[string]string{"identity/serial": d.name + "\n"}
	if d.revision != "" {
		files["identity/revision"] = d.revision + "\n"
	}
	switch d.how {
	case byToken:
		token, err := d.site.API.CreateEnrolmentToken(d.t.Context(), protocol.EnrolmentToken{
			Pipeline: pipeline, Product: d.product, Stage: d.stage, Modules: d.modules, Serial: d.name, Uses: 1, Expires: time.Now().Add(time.Hour),
		})
		if err != nil {
			d.t.Fatal(err)
		}
		files["identity/token"] = token.Token + "\n"
	case bySerial:
		if _, err := d.site.API.Register(d.t.Context(), []protocol.Registration{
			{Serial: d.name, Pipeline: pipeline, Product: d.product, Stage: d.stage, Modules: d.modules},
		}); err != nil {
			d.t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(d.site.Data, "keys/ca.pem"))
		if err != nil {
			d.t.Fatal(err)
		}
		files[factoryCA] = string(ca)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d.Top(), name), []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
}

// onSite makes a device that belongs to another server than the world's.
func onSite(s *site) func(*fielded) { return func(d *fielded) { d.site, d.archive = s, s.plain } }

// plain makes a device that follows its stage without being enrolled.
func plain(d *fielded) { d.how = byStage }

// impatient makes trials end soon that nobody commits.
func impatient(d *fielded) { d.trial.Timeout = "20s" }

// configure writes the configuration file.
func (d *fielded) configure() {
	d.t.Helper()
	values := map[string]any{"poll": "1s", "reboot": d.reboot, "trial": d.trial}
	switch d.how {
	case bySerial:
		values["server"], values["ca"] = d.site.Public, "/sysroot/"+factoryCA
	case byToken:
		values["server"] = d.site.Public
	case byStage:
		values["archive"], values["pipeline"], values["follow"], values["components"] = d.archive, pipeline, d.stage, components
		values["keyring"], values["packages"] = keyringPath, productOf(d.product).Packages
	}
	maps.Copy(values, d.more)
	config, err := yaml.Marshal(values)
	if err == nil {
		err = d.Reconfigure(d.t.Context(), config)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// promote moves the device's stage to a release.
func (d *fielded) promote(release string) {
	d.t.Helper()
	snapshot, ok := world.releases[release]
	if !ok {
		d.t.Fatalf("there is no release %q", release)
	}
	if _, err := d.site.API.Promote(d.t.Context(), pipeline, d.stage, protocol.Promote{Snapshot: snapshot.ID, Reason: d.t.Name()}); err != nil {
		d.t.Fatal(err)
	}
}

// on switches the device on and waits until it is up and, if it belongs to a
// server, enrolled.
func (d *fielded) on() {
	d.t.Helper()
	if err := d.PowerOn(); err != nil {
		d.t.Fatal(err)
	}
	d.up()
	if d.how != byStage {
		d.await("its first assignment", func() bool {
			_, err := os.Stat(filepath.Join(d.Top(), "updater/assignment.json"))
			return err == nil
		})
	}
}

// told does something on the server that changes the device's assignment, and
// waits until the device has it.
func (d *fielded) told(what string, act func() error) {
	d.t.Helper()
	before := d.server().Assignment.Counter
	if err := act(); err != nil {
		d.t.Fatal(err)
	}
	d.await("another assignment: "+what, func() bool { return d.server().Assignment.Counter > before })
}

// hold keeps the device as it is, and waits until it knows.
func (d *fielded) hold(reason string) {
	d.t.Helper()
	d.told("hold, "+reason, func() error {
		_, err := d.site.API.HoldDevice(d.t.Context(), d.name, protocol.Hold{Reason: reason})
		return err
	})
}

// known is the device as its server knows it.
func (d *fielded) known() protocol.Device {
	d.t.Helper()
	known, err := d.site.API.Device(d.t.Context(), d.name)
	if err != nil {
		d.t.Fatal(err)
	}
	return known
}

// awaitKnown waits until what the server knows of the device is as it should be.
func (d *fielded) awaitKnown(what string, cond func(protocol.Device) bool) protocol.Device {
	d.t.Helper()
	var known protocol.Device
	d.await("the server know "+what, func() bool {
		known = d.known()
		return cond(known)
	})
	return known
}

func (d *fielded) up() {
	d.t.Helper()
	if _, err := d.AwaitUp(d.patient()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *fielded) off() {
	d.t.Helper()
	if err := d.PowerOff(d.patient()); err != nil {
		d.t.Fatal(err)
	}
}

// cut pulls the plug.
func (d *fielded) cut() {
	d.t.Helper()
	if err := d.PowerCut(d.patient()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *fielded) patient() context.Context {
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	d.t.Cleanup(cancel)
	return ctx
}

// await polls until cond holds.
func (d *fielded) await(what string, cond func() bool) {
	d.t.Helper()
	d.awaitEvery(30*time.Millisecond, what, cond)
}

func (d *fielded) awaitEvery(pause time.Duration, what string, cond func() bool) {
	d.t.Helper()
	ctx := d.patient()
	for !cond() {
		select {
		case <-ctx.Done():
			d.t.Fatalf("%s did not see %s within %v", d.Name(), what, patience)
		case <-time.After(pause):
		}
	}
}

// control returns a variable of boot control.
func (d *fielded) control(file, name string) string {
	block, err := os.ReadFile(filepath.Join(d.BootControl(), file))
	if err != nil {
		d.t.Error(err)
		return ""
	}
	vars, err := bootcontrol.Variables(block)
	if err != nil {
		d.t.Error(err)
	}
	return vars[name]
}

func (d *fielded) committed() int {
	n, err := strconv.Atoi(d.control(bootcontrol.CommittedFile, "committed"))
	if err != nil {
		d.t.Error(err)
	}
	return n
}

// record is what a test needs of a line of the updater's journal.
type record struct {
	At         time.Time `json:"at"`
	Phase      string    `json:"phase"`
	State      string    `json:"state"`
	Deployment int       `json:"deployment"`
	Reason     string    `json:"reason"`
}

// journal returns the whole lines of the updater's journal.
func (d *fielded) journal() []record {
	b, err := os.ReadFile(filepath.Join(d.Top(), "updater/journal"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		d.t.Error(err)
	}
	var all []record
	for line := range bytes.Lines(b) {
		var r record
		if json.Unmarshal(line, &r) == nil { // the last line may be half written
			all = append(all, r)
		}
	}
	return all
}

// phase returns the phase of the last record, or "".
func (d *fielded) phase() string {
	all := d.journal()
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1].Phase
}

// contact is what a device knows of its server.
type contact struct {
	Error      string // why the last check-in failed
	Code       string // of a refusal
	Assignment struct{ Counter uint64 }
}

// status asks the updater.
func (d *fielded) status() protocol.Report {
	d.t.Helper()
	report, _ := d.ask()
	return report
}

// server asks the updater about its server.
func (d *fielded) server() contact {
	d.t.Helper()
	_, server := d.ask()
	return server
}

func (d *fielded) ask() (protocol.Report, contact) {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "device-updater", "status", "--json")
	if err != nil {
		d.t.Fatal(err)
	}
	var status struct {
		Report protocol.Report
		Server contact
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		d.t.Fatalf("cannot read status: %v: %s", err, out)
	}
	return status.Report, status.Server
}

// awaitCommit waits until release is committed and runs, and nothing is under
// way any more.
func (d *fielded) awaitCommit(release string) {
	d.t.Helper()
	want := world.releases[release].State
	d.await("the commit of release "+release, func() bool {
		all := d.journal()
		for _, r := range all {
			if r.Phase == "FAILED" && r.State == want {
				d.t.Fatalf("release %s failed: %s", release, r.Reason)
			}
		}
		if i := len(all) - 1; i < 0 || all[i].Phase != "IDLE" || d.control(bootcontrol.TrialFile, "trial") != "" {
			return false
		}
		return d.stateOf(d.committed()) == want && d.lastBoot().End == "" && d.lastBoot().Deployment == d.committed()
	})
	d.up()
}

// awaitRollback waits until release has failed, and returns the reason.
func (d *fielded) awaitRollback(release string) string {
	d.t.Helper()
	state, from := world.releases[release].State, d.committed()
	var reason string
	d.await("the end of release "+release, func() bool {
		for _, r := range d.journal() {
			if r.Phase == "FAILED" && r.State == state {
				reason = r.Reason
				return true
			}
		}
		return false
	})
	d.up()
	last := d.lastBoot()
	if last.Trial || last.Deployment != from || d.committed() != from {
		d.t.Errorf("after the rollback it runs deployment %d (trial: %v), committed is %d; want %d", last.Deployment, last.Trial, d.committed(), from)
	}
	return reason
}

func (d *fielded) lastBoot() device.Boot {
	boots := d.Boots()
	if len(boots) == 0 {
		return device.Boot{}
	}
	return boots[len(boots)-1]
}

func (d *fielded) trials() int {
	n := 0
	for _, b := range d.Boots() {
		if b.Trial {
			n++
		}
	}
	return n
}

// stateOf returns the state id of a deployment, "" if the updater has not
// recorded one.
func (d *fielded) stateOf(deployment int) string {
	b, err := os.ReadFile(filepath.Join(d.Top(), "updater/deployments", strconv.Itoa(deployment)+".json"))
	if err != nil {
		return ""
	}
	var made struct{ State string }
	if err := json.Unmarshal(b, &made); err != nil {
		d.t.Error(err)
	}
	return made.State
}

// runs checks that the device runs a release: what its application and its
// package list say.
func (d *fielded) runs(release, appPackage string) {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "cat", "/usr/share/"+appPackage+"/version")
	if err != nil || strings.TrimSpace(out) != release {
		d.t.Errorf("the application says it is version %q (%v), want %s", strings.TrimSpace(out), err, release)
	}
	if out, err := d.Exec(d.patient(), "systemctl", "is-active", appPackage+".service"); err != nil {
		d.t.Errorf("the application is %s: %v", out, err)
	}
}

// packages returns the package list as dpkg has it.
func (d *fielded) packages() []string {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}:${Architecture}=${Version}\n")
	if err != nil {
		d.t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(list)
	return list
}

// explain logs what a failed test needs.
func (d *fielded) explain() {
	for _, b := range d.Boots() {
		d.t.Logf("boot of %d, trial %v, %s, ended by %q after %v", b.Deployment, b.Trial, b.Why, b.End, b.Ended.Sub(b.Started).Round(time.Millisecond))
	}
	for _, r := range d.journal() {
		d.t.Logf("journal: %+v", r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := d.Exec(ctx, "sh", "-c", "device-updater status; systemctl --no-pager --failed; systemctl --no-pager list-jobs; journalctl --no-pager -b -u aptfleet-updater.service | tail -40"); out != "" || err == nil {
		d.t.Logf("inside:\n%s", out)
	}
	if b, err := os.ReadFile(d.ConsoleLog()); err == nil {
		d.t.Logf("console:\n%s", b[max(0, len(b)-8000):])
	}
}
