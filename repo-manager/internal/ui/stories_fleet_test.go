package ui

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
)

var otto = release.Actor{Name: "otto", Via: "session"}

// lines is a fleet in which every state occurs.
func lines(w *world) {
	pending(w)
	healthy := func(stage, version string) protocol.Report {
		r := *w.report("demo", stage, version)
		r.Health = &protocol.Health{OK: true}
		r.Updater, r.FreeBytes, r.Revision = "0.4.0", 12_000_000_000, "B2"
		return r
	}
	add := func(name string, r *protocol.Report, d fleet.Device) {
		d.Name, d.Pipeline = name, "demo"
		w.machines.put(d)
		if r != nil {
			w.machines.says(name, *r)
		}
	}
	r := healthy("production", "1.0")
	add("gw-silent", &r, fleet.Device{Serial: "SN-0099"})
	w.pass(time.Hour)
	w.device("demo", "demo", w.report("demo", "production", "1.0"))
	add("gw-01", &r, fleet.Device{Serial: "SN-0001", Modules: []string{"lte"}})
	add("gw-02", &r, fleet.Device{Serial: "SN-0002", Modules: []string{"gps", "lte"}})
	add("gw-new", nil, fleet.Device{Serial: "SN-0042"})
	ill := healthy("production", "1.0")
	ill.Health = &protocol.Health{Reason: "health check 20-modem failed: no carrier"}
	add("gw-ill", &ill, fleet.Device{Serial: "SN-0007"})
	add("gw-fair", &r, fleet.Device{Serial: "SN-0008"})
	must1(w.machines.Hold(context.Background(), otto, "gw-fair", "trade fair in Hanover", w.now.Add(48*time.Hour)))
	old := healthy("production", "1.0")
	old.WhyNot = "it is staged and waits for the maintenance window at 02:00"
	old.LastError = "cannot download demo-app: connection reset"
	add("gw-lab", &old, fleet.Device{Serial: "SN-0009", Stage: "canary"})
	add("gw-copied", &r, fleet.Device{Serial: "SN-0013"})
	w.pass(4 * time.Minute)
	w.machines.speaks("gw-copied", hashOf("a second board"), "10.0.3.99", r)
	add("gw-gone", &r, fleet.Device{Serial: "SN-0666"})
	must1(w.machines.Retire(context.Background(), otto, "gw-gone", "fell into the harbour"))
	w.pass(40 * time.Second)
}

// configured gives gw-02 a configuration of every kind.
func configured(w *world) {
	lines(w)
	from := func(kind configuration.Kind, name string) configuration.Scope {
		return configuration.Scope{Pipeline: "demo", Kind: kind, Name: name}
	}
	value := func(scope configuration.Scope, key string, t configuration.Type, json string) configuration.Effective {
		v := configuration.Value{Type: t, JSON: json, By: "otto", At: w.now.Add(-2 * time.Hour)}
		if t == configuration.Secret {
			v.Sealed, v.JSON = []byte("never shown"), ""
		}
		return configuration.Effective{Entry: configuration.Entry{Scope: scope, Key: key, Value: v}}
	}
	lost := value(from(configuration.OfStage, "production"), "vpn.key", configuration.Secret, "")
	lost.Sealed = nil
	fallback := value(configuration.Scope{}, "log.level", configuration.Enum, `"info"`)
	fallback.FromDefault, fallback.By, fallback.At = true, "", time.Time{}
	w.config["gw-02"] = []configuration.Effective{
		value(from(configuration.OfDevice, "gw-02"), "api.token", configuration.Secret, ""),
		value(from(configuration.OfProduct, "sensor"), "interval", configuration.Integer, "30"),
		fallback,
		value(from(configuration.OfStage, "production"), "upload.url", configuration.String, `"https://collect.example.com/v2/telemetry?site=<b>hall&line=7"`),
		lost,
	}
}

// waiting has two machines wait, one of which takes itself for a known device.
func waiting(w *world) {
	lines(w)
	w.machines.waits("SN-0100", "sensor")
	w.pass(2 * time.Minute)
	w.machines.waits("SN-0001", "")
	w.pass(20 * time.Second)
}

func strangerKey(serial string) string {
	w := newWorld()
	w.create("demo", "dev")
	defer w.machines.close()
	return w.machines.waits(serial, "")
}

// actForm is a filled form of an act on a device, as it was reviewed.
func actForm(tell func(w *world), device, as string, more url.Values) url.Values {
	w := newWorld()
	tell(w)
	defer w.machines.close()
	d, _, err := w.machines.Show(context.Background(), device)
	orPanic(err)
	form := url.Values{"csrf": {"csrf-of-session-of-" + as}, "expect": {standing(d)}}
	for key, values := range more {
		form[key] = values
	}
	return form
}

// fleetStories are those of devices, products and waiting machines.
func fleetStories() []story {
	const devices, waits, products = "/pipelines/demo/devices", "/pipelines/demo/enrolments", "/pipelines/demo/products"
	long := strings.Repeat("very-long-", 12)
	ask := func(serial string) string { return waits + "/" + strangerKey(serial) + "/accept" }
	uninstallable := func(w *world) {
		pending(w)
		w.verdicts[w.stages["demo"][1].Offer.State] = &product.Verdict{
			Summary: "demo-app needs demo-codec (>= 2), which is not in this state",
			Apt:     "The following packages have unmet dependencies:\n demo-app : Depends: demo-codec (>= 2) but it is not installable\nE: Unable to correct problems, you have held broken packages.",
			Dose:    "package: demo-app\nversion: 2.0\nstatus: broken\nreasons:\n - missing:\n    pkg: demo-app\n    unsat-dependency: demo-codec (>= 2)",
		}
	}
	return []story{
		{name: "devices", tell: lines, path: devices, as: "otto", says: []string{"1 clone", "1 failed", "1 pending", "1 silent", "1 held", "1 behind", "3 ok", "1 retired", "all 9", "trade fair in Hanover", "maintenance window", "no carrier", "SN-0042"}, never: []string{"gw-gone"}},
		{name: "devices-none", tell: func(w *world) { w.create("demo", "dev", "production") }, path: devices, as: "anna", says: []string{"No device yet", "repo-manager device token create --pipeline demo"}},
		{name: "devices-of-a-state", tell: lines, path: devices + "?state=held", as: "vera", says: []string{"gw-fair", "1 device"}, never: []string{"gw-01", "Waiting"}},
		{name: "devices-retired", tell: lines, path: devices + "?state=retired", as: "vera", says: []string{"gw-gone", "fell into the harbour"}},
		{name: "devices-found", tell: lines, path: devices + "?q=sn-000&stage=production&product=sensor", as: "vera", says: []string{"gw-01", "gw-02", "Show all"}, never: []string{"gw-lab", "SN-0042"}},
		{name: "devices-not-found", tell: lines, path: devices + "?q=" + url.QueryEscape(hostile), as: "vera", says: []string{"No device fits."}},
		{name: "devices-by-package", tell: func(w *world) {
			lines(w)
			w.computing[w.stages["demo"][1].Offer.State] = true
			r := *w.report("demo", "canary", "2.0")
			w.device("gw-odd", "demo", &r)
		}, path: devices + "?package=" + url.QueryEscape("demo-app=1.0"), as: "vera", says: []string{"gw-01", "1 device may belong here, too"}, never: []string{"gw-odd"}},
		{name: "devices-by-nonsense", tell: lines, path: devices + "?package=" + url.QueryEscape("??<b>"), as: "vera", status: 400, says: []string{"it is no relation of packages", "for example"}},
		{name: "devices-second-page", tell: func(w *world) {
			pending(w)
			for i := range 130 {
				w.machines.put(fleet.Device{Name: fmt.Sprintf("kiosk-%03d", i), Pipeline: "demo"})
			}
		}, path: devices + "?state=pending&from=100", as: "vera", says: []string{"101 to 130 of 130 devices", "Previous devices", "kiosk-129"}, never: []string{"Next devices", "kiosk-099"}},
		{name: "devices-beyond", tell: lines, path: devices + "?from=5000", as: "vera", says: []string{"Previous devices"}},
		{name: "devices-waiting", tell: waiting, path: devices, as: "otto", says: []string{"2 machines wait"}},

		{name: "device", tell: configured, path: devices + "/gw-02", as: "otto", says: []string{"It runs what it should.", "secret, not shown", "a secret that must be set again", "device:gw-02", "stage:production", "default", "Hold…", "Retire…", "12.0 GB", "runs 20261120T101800Z"}, never: []string{"never shown"}},
		{name: "device-viewer", tell: configured, path: devices + "/gw-02", as: "vera", says: []string{"vera may look, but not act on devices of product sensor"}, never: []string{"Hold…", "Retire…", "never shown"}},
		{name: "device-behind", tell: lines, path: devices + "/gw-lab", as: "otto", says: []string{"It does not run what it should.", "maintenance window", "connection reset", "Nothing is configured"}},
		{name: "device-failed", tell: func(w *world) {
			released(w, func(r *protocol.Report) {
				r.Failed = []protocol.Failure{{State: r.Wanted, Snapshot: r.WantedName, At: w.now, Reason: "required health check 10-demo-app failed 3 times", Evidence: []protocol.Excerpt{{From: "the output of required check 10-demo-app", Text: "pump 1 <b>ok</b>\npump 2 does not answer"}}}}
				r.Deployments = append(r.Deployments, protocol.Deployment{ID: 2, State: strings.Repeat("ab", 32), Snapshot: "20261118T080000Z", Role: "rollback", Version: "0.9"})
			})
		}, path: devices + "/demo", as: "otto", says: []string{"failed here:", "Releases that failed on it", "rollback", "went back from", "the output of required check 10-demo-app", "pump 1 &lt;b&gt;ok&lt;/b&gt;"}},
		{name: "device-held", tell: lines, path: devices + "/gw-fair", as: "otto", says: []string{"Take the hold off…", "trade fair in Hanover", "until 22 November 2026"}},
		{name: "device-pinned", tell: func(w *world) {
			pending(w)
			r := w.report("demo", "canary", "2.0")
			r.Follow = "snapshot:" + r.WantedName
			w.device("lab", "demo", r)
		}, path: devices + "/lab", as: "otto", says: []string{"Take the pin off…", "a measurement runs"}},
		{name: "device-clone", tell: lines, path: devices + "/gw-copied", as: "otto", says: []string{"Two machines have this device's key", "10.0.3.99", "10.0.3.7", "spoke last", "Say which machine it is…"}},
		{name: "device-new", tell: lines, path: devices + "/gw-new", as: "otto", says: []string{"It has never reported", "It has reported none."}},
		{name: "device-retired", tell: lines, path: devices + "/gw-gone", as: "anna", says: []string{"fell into the harbour", "device register SN-0666"}, never: []string{"Hold…"}},
		{name: "device-refused", tell: func(w *world) {
			demo(w)
			r := w.report("demo", "production", "1.0")
			r.Refused = &protocol.Refused{Reason: "expired", Text: "the assignment expired on 12 November"}
			r.LastError = "cannot check in: " + hostile
			r.Holds = []protocol.Hold{{Reason: "the owner works on it"}}
			w.device("demo", "demo", r)
		}, path: devices + "/demo", as: "otto", says: []string{"It refused its assignment", "on the device itself"}},
		{name: "device-firmware", tell: func(w *world) {
			demo(w)
			r := w.report("demo", "production", "1.0")
			r.Firmware = []protocol.Firmware{
				{Component: "mcu", Version: "2.0", Wanted: "2.0"},
				{Component: "modem", Version: "1.1", Wanted: "1.2", Reason: "it waits until the release is committed"},
				{Component: "pump", Reason: "hardware revision C3 is not supported: this release has firmware for A1, B2"},
			}
			w.device("demo", "demo", r)
		}, path: devices + "/demo", as: "vera", says: []string{"Should have", "waits until the release", "C3 is not supported"}},
		{name: "device-unknown", tell: lines, path: devices + "/" + url.PathEscape(hostile), as: "otto", status: 404},
		{name: "device-of-another-pipeline", tell: func(w *world) {
			lines(w)
			w.create("kiosk", "dev")
			w.machines.put(fleet.Device{Name: "k1", Pipeline: "kiosk", Stage: "dev"})
		}, path: devices + "/k1", as: "anna", status: 404},
		{name: "device-hostile", tell: func(w *world) {
			demo(w)
			w.roles[hostile] = []string{"admin"}
			r := w.report("demo", "production", hostile)
			r.WhyNot, r.LastError, r.Revision, r.Updater, r.Deployments[0].Role = hostile, hostile, hostile, hostile, "booted"
			r.Health = &protocol.Health{Reason: hostile}
			r.Refused = &protocol.Refused{Reason: hostile, Text: hostile}
			r.Holds = []protocol.Hold{{Reason: hostile, By: hostile}}
			r.Failed = []protocol.Failure{{State: "x", Reason: hostile, At: w.now}}
			r.Firmware = []protocol.Firmware{{Component: hostile, Version: hostile, Wanted: hostile, Reason: hostile}, {Reason: hostile}}
			w.device(long, "demo", r)
			w.config[long] = []configuration.Effective{{Entry: configuration.Entry{Scope: configuration.Scope{Pipeline: "demo", Kind: configuration.OfDevice, Name: long}, Key: "motd", Value: configuration.Value{Type: configuration.String, JSON: fmt.Sprintf("%q", "<script>alert(1)</script>")}}}}
		}, path: devices + "/" + long, as: hostile},
		{name: "device-after-hold", tell: lines, path: devices + "/gw-fair?done=hold", as: "otto", says: []string{"gw-fair is held."}},
		{name: "device-done-forged", tell: lines, path: devices + "/gw-01?done=retire", as: "otto", never: []string{"is retired"}},

		{name: "act-hold", tell: lines, path: devices + "/gw-01/hold", as: "otto", says: []string{"Hold gw-01", "for a week", `name="reason"`}},
		{name: "act-hold-viewer", tell: lines, path: devices + "/gw-01/hold", as: "vera", says: []string{"that takes the role operator"}, never: []string{`name="reason"`}},
		{name: "act-hold-without-reason", tell: lines, method: "POST", path: devices + "/gw-01/hold", as: "otto", form: actForm(lines, "gw-01", "otto", url.Values{"for": {"24h"}}), status: 400, says: []string{"it needs a reason", "somebody will want to know"}},
		{name: "act-unhold", tell: lines, path: devices + "/gw-fair/unhold", as: "otto", says: []string{"Take the hold off", "trade fair"}},
		{name: "act-unhold-nothing", tell: lines, path: devices + "/gw-01/unhold", as: "otto", says: []string{"no operator holds this device"}, never: []string{`name="expect"`}},
		{name: "act-pin", tell: lines, path: devices + "/gw-01/pin", as: "otto", says: []string{`value="20261120T101800Z"`, "datalist"}},
		{name: "act-pin-nowhere", tell: lines, method: "POST", path: devices + "/gw-01/pin", as: "otto", form: actForm(lines, "gw-01", "otto", url.Values{"snapshot": {"2020"}, "reason": {"an old bug"}}), status: 404, says: []string{"Cannot find", "an old bug"}},
		{name: "act-unpin", tell: func(w *world) {
			pending(w)
			r := w.report("demo", "canary", "2.0")
			r.Follow = "snapshot:" + r.WantedName
			w.device("lab", "demo", r)
		}, path: devices + "/lab/unpin", as: "otto", says: []string{"Take the pin off"}},
		{name: "act-assign", tell: lines, path: devices + "/gw-01/assign", as: "otto", says: []string{"canary: 2026", "dev: unnamed state"}},
		{name: "act-retire", tell: lines, path: devices + "/gw-01/retire", as: "otto", says: []string{"for good"}},
		{name: "act-retired", tell: lines, path: devices + "/gw-gone/hold", as: "anna", says: []string{"gw-gone is retired."}, never: []string{`name="expect"`}},
		{name: "act-resolve", tell: lines, path: devices + "/gw-copied/resolve", as: "otto", says: []string{"Which machine is gw-copied?", `type="radio"`, "10.0.3.99"}},
		{name: "act-resolve-twins", tell: func(w *world) {
			demo(w)
			r := *w.report("demo", "production", "1.0")
			w.machines.twin("demo", r)
		}, path: devices + "/demo/resolve", as: "otto", says: []string{"nothing tells them apart"}, never: []string{`type="radio"`}},
		{name: "act-overtaken", tell: lines, method: "POST", path: devices + "/gw-01/hold", as: "otto", form: url.Values{"csrf": {"csrf-of-session-of-otto"}, "expect": {"of another time"}, "reason": {"a fair"}}, status: 409, says: []string{"what you reviewed is not what stands now", "/hold?reason=a&#43;fair"}},
		{name: "act-forbidden", tell: lines, method: "POST", path: devices + "/gw-01/retire", as: "vera", form: actForm(lines, "gw-01", "vera", url.Values{"reason": {"x"}}), status: 403, says: []string{"that takes the role operator"}},

		{name: "waiting-none", tell: lines, path: waits, as: "otto", says: []string{"Nobody waits", "repo-manager device token create"}},
		{name: "waiting", tell: waiting, path: waits, as: "otto", says: []string{"SN-0100", "10.0.3.14", "Decide…", "device gw-01 has this serial number"}},
		{name: "waiting-factory", tell: func(w *world) { waiting(w); w.roles["mia"] = []string{"manufacturing:demo"} }, path: waits, as: "mia", says: []string{"SN-0100", "mia may look, but not accept"}, never: []string{"Decide…"}},
		{name: "waiting-viewer", tell: waiting, path: waits, as: "vera", status: 403, says: []string{"operator or manufacturing"}, never: []string{"SN-0100"}},
		{name: "accept", tell: waiting, path: ask("SN-0100"), as: "otto", says: []string{"Accept machine", "lte of sensor", "Refuse it instead…", "SN-0100"}},
		{name: "accept-replaces", tell: waiting, path: ask("SN-0001"), as: "otto", says: []string{"Replace the key of gw-01"}, never: []string{`name="product"`}},
		{name: "accept-without-product", tell: func(w *world) { waiting(w); w.products = nil }, path: ask("SN-0100"), as: "anna", says: []string{"There is no product yet", "repo-manager product create"}},
		{name: "accept-wrong-module", tell: func(w *world) {
			waiting(w)
			w.products = append(w.products, product.Product{Pipeline: "demo", Name: "panel", Architecture: "amd64"})
		}, method: "POST", path: ask("SN-0100"), as: "anna", form: url.Values{
			"csrf": {"csrf-of-session-of-anna"}, "product": {"panel"}, "stage": {"canary"}, "module": {"sensor/lte"},
			"expect": {strings.Join([]string{strangerKey("SN-0100"), "SN-0100", hashOf("machine of SN-0100"), "sensor", "amd64", "B2", ""}, " ")},
		}, status: 400, says: []string{"module lte is of product sensor"}},
		{name: "accept-unknown", tell: waiting, path: waits + "/0000/accept", as: "otto", status: 404, says: []string{"none waits"}},

		{name: "products", tell: func(w *world) {
			uninstallable(w)
			w.computing[w.stages["demo"][0].Offer.State] = true
			w.products = append(w.products, product.Product{Pipeline: "demo", Name: "panel", Architecture: "arm64", Packages: []string{"panel-app"}})
		}, path: products, as: "vera", says: []string{"can be installed", "cannot be installed", "being computed", "demo-codec", "demo-device"}},
		{name: "products-none", tell: func(w *world) { demo(w); w.products = nil }, path: products, as: "vera", says: []string{"There is no product yet", "repo-manager product create NAME --pipeline demo"}},
		{name: "product", tell: lines, path: products + "/sensor?ref=canary&module=lte", as: "vera", says: []string{"Named by the product: 3", "top-level", "81.3 kB", "needed by demo-app (Depends)", "bom.txt?", "bom.cdx.json?"}},
		{name: "product-by-itself", tell: lines, path: products + "/sensor", as: "vera", says: []string{`<option value="production" selected>`}},
		{name: "product-computing", tell: func(w *world) { pending(w); w.computing[w.stages["demo"][1].Offer.State] = true }, path: products + "/sensor?ref=canary", as: "vera", says: []string{"Being computed."}, never: []string{"Download as text"}},
		{name: "product-verdict", tell: uninstallable, path: products + "/sensor?ref=canary", as: "vera", says: []string{"It cannot be installed:", "demo-codec", "unsat-dependency"}, never: []string{"Download as text"}},
		{name: "product-before-packages", tell: func(w *world) { w.create("demo", "dev", "production") }, path: products + "/sensor", as: "vera", says: []string{"No stage of this pipeline offers anything yet."}},
		{name: "product-unknown", tell: demo, path: products + "/toaster", as: "vera", status: 404, says: []string{"repo-manager product list"}},

		{name: "stage", tell: lines, path: "/pipelines/demo/stages/production", as: "vera", says: []string{"8 devices follow production", "devices?stage=production&amp;state=clone"}},
		{name: "pipeline-with-fleet", tell: lines, path: "/pipelines/demo", as: "otto", says: []string{"1 clone", "3 ok", "devices?stage=canary&amp;state=behind"}},
		{name: "review-products", tell: lines, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"For the devices of each product", "sensor with gps, lte", "1 upgraded, 1 new"}},
		{name: "review-computing", tell: func(w *world) { lines(w); w.computing[w.stages["demo"][1].Offer.State] = true }, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"being computed"}},
		{name: "review-uninstallable", tell: uninstallable, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"It cannot be installed:", "Its devices would stay on what they have."}},
		{name: "review-held", tell: lines, path: "/pipelines/demo/stages/production/promote?snapshot=canary", as: "anna", says: []string{"not yet: it is held"}},
	}
}

// twin has a second machine with the same hardware speak for a device: their
// boots come in turns.
func (m *machines) twin(name string, report protocol.Report) {
	machine := hashOf("machine of " + name)
	for i, boot := range []string{"one", "two", "one"} {
		report.Progress = fmt.Sprint(i)
		m.boots(name, machine, boot, report)
	}
}
