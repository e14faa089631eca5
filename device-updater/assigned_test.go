package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/servertest"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/aptroot"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
	"aptfleet/internal/sign"
	"aptfleet/test/debian"
)

// shipped is the release of a state as a server ships it: solved by apt,
// signed, with its bill of materials.
func shipped(t *testing.T, a *apttest.Archive, state string, topLevel []string) bom.BOM {
	t.Helper()
	root, err := aptroot.New(t.TempDir(), aptroot.Source{
		URL: a.URL + "/demo/states/" + state, Distribution: "trixie", Components: []string{"main"}, Keyring: a.Keyring,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := root.Solve(t.Context(), topLevel)
	if err != nil {
		t.Fatal(err)
	}
	b := bom.BOM{State: state, Product: servertest.Product, Architecture: a.Native, TopLevel: topLevel}
	for _, p := range list {
		b.Packages = append(b.Packages, bom.Package{Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: p.SHA256})
	}
	return b
}

// offer has the server offer what is in the archive, with a bill of materials.
func offer(t *testing.T, s *servertest.Server, a *apttest.Archive, b bom.BOM) *protocol.AssignedRelease {
	t.Helper()
	s.Lock()
	defer s.Unlock()
	maps.Copy(s.Files, a.Files())
	s.Certificate = string(s.Files["keyring.asc"])
	base := "demo/states/" + b.State
	text, _, err := sign.Verify(s.Files[base+"/dists/trixie/InRelease"], []byte(s.Certificate), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	bill := b.Encode()
	s.Files["demo/boms/"+bom.Sum(bill)] = bill
	return &protocol.AssignedRelease{
		State: b.State, Base: base, Distribution: "trixie", Components: []string{"main"}, Release: hex.EncodeToString(sum[:]), BOM: bom.Sum(bill), BOMSize: int64(len(bill)),
	}
}

// TestAnAssignedReleaseIsStaged: a machine with real packages enrols, gets a
// release and its configuration from a private archive over TLS, and has exactly
// the bill of materials staged; a wrong bill is refused.
func TestAnAssignedReleaseIsStaged(t *testing.T) {
	archive := apttest.New(t)
	s := servertest.Start(t, true)
	s.Registered["SN1"], s.Password = true, "secret"
	s.Certificate = string(archive.Files()["keyring.asc"])
	var stanzas []byte
	m := makeMachine(t, "server: "+s.URL+"\nca: /etc/aptfleet/ca.pem\nserial: SN1\nreboot: manual\npoll: 1s\n", 3<<30, func(deployment string) {
		tar, err := debian.Root(t.Context(), debian.Spec{Suite: "trixie"})
		if err != nil {
			t.Fatal(err)
		}
		if err := debian.Unpack(t.Context(), tar, deployment); err != nil {
			t.Fatal(err)
		}
		stanzas = apttest.AsIs(t, deployment)
		put(t, filepath.Join(deployment, "etc/aptfleet/ca.pem"), string(s.CA))
		hook := filepath.Join(deployment, "usr/lib/aptfleet/config.d/50-note")
		put(t, hook, "#!/bin/sh\necho \"$@\" >>/sysroot/noted\n")
		if err := os.Chmod(hook, 0o755); err != nil {
			t.Fatal(err)
		}
	})
	program, err := os.ReadFile(m.bin)
	if err != nil {
		t.Fatal(err)
	}
	updater := apttest.Package{Name: "device-updater", Version: "1", Files: map[string]string{}, Modes: map[string]os.FileMode{"usr/bin/device-updater": 0o755}}
	for _, name := range []string{
		"aptfleet-updater.service", "multi-user.target.wants/aptfleet-updater.service", "aptfleet-state.service", "local-fs.target.requires/aptfleet-state.service",
		"aptfleet-trial.timer", "aptfleet-trial.service", "sysinit.target.wants/aptfleet-trial.timer", "emergency.service.d/aptfleet.conf", "rescue.service.d/aptfleet.conf",
	} {
		updater.Files["usr/lib/systemd/system/"+name] = "x\n"
	}
	updater.Files["usr/bin/device-updater"] = string(program)
	state := strings.Repeat("a", 64)
	app := apttest.Package{Name: "app", Version: "1", Fields: "Depends: lib\n", Files: map[string]string{"usr/share/app/version": "1\n"}}
	lib := apttest.Package{Name: "lib", Version: "2", Files: map[string]string{"usr/share/lib/version": "2\n"}}
	archive.Release(state, stanzas, []apttest.Package{app, lib, updater})
	bill := shipped(t, archive, state, []string{"app", "apt", "device-updater"})
	release := offer(t, s, archive, bill)

	m.eventually("the first report", func() bool { return device1(s).Report.Follow == "assignment" })
	secret, err := seal.Seal(device1(s).Enrolment.Sealing, "dev-sn1", "api.token", []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	config := &protocol.AssignedConfig{
		Revision: strings.Repeat("c", 32), Values: map[string]any{"interval": 30}, Secrets: map[string][]byte{"api.token": secret},
	}
	configured := func(a *protocol.Assignment) { a.Config = config }
	s.Assign(release, configured)
	m.eventually("it is staged", func() bool { return device1(s).Report.Phase == "STAGED" })
	m.eventually("it says that it waits", func() bool { return strings.Contains(device1(s).Report.WhyNot, "it is staged and waits") })
	r := device1(s).Report
	if r.Config != config.Revision || r.Refused != nil || r.LastError != "" || r.Wanted != state {
		t.Errorf("it reports %+v", r)
	}

	// Exactly the bill of materials, by what dpkg says.
	records, err := update.OpenRecords(filepath.Join(m.top, "updater"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := records.Deployment(2)
	if err != nil || d.BOM != string(bill.Encode()) || d.State != state {
		t.Errorf("%+v, %v", d, err)
	}
	status, err := os.ReadFile(filepath.Join(m.top, "pristine/2/var/lib/dpkg/status"))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := apt.ParseStatus(bytes.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, p := range bill.Packages {
		want = append(want, p.String())
	}
	for _, i := range installed {
		got = append(got, i.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) || len(want) < 20 {
		t.Errorf("installed is %v, wanted %v", got, want)
	}
	m.says(0, "it is staged and waits", "status")
	m.says(0, "STAGED", "history")
	m.says(0, "30", "config", "get", "interval")
	m.says(0, "correct horse", "config", "get", "api.token", "--show-secrets")
	if noted, err := os.ReadFile(filepath.Join(m.top, "noted")); err != nil || string(noted) != "api.token interval\n" {
		t.Errorf("the hook noted %q, %v", noted, err)
	}
	if text, err := json.Marshal(r); err != nil || bytes.Contains(text, []byte("correct horse")) {
		t.Errorf("a secret is told: %s, %v", text, err)
	}
	// The deployment of the factory is no release.
	m.says(0, "equal to what the factory made", "verify")
	m.says(3, "cannot tell which release this device runs", "try", "/usr/bin/device-updater")

	s.Assign(release, func(a *protocol.Assignment) {
		configured(a)
		a.Hold = &protocol.Hold{Reason: "a fair", By: "vera"}
	})
	m.eventually("the hold", func() bool { return strings.Contains(device1(s).Report.WhyNot, "held by vera: a fair") })
	m.says(3, "cannot try packages: it is held by vera: a fair", "try", "/usr/bin/device-updater")
	m.says(3, "repo-manager device unhold", "rejoin", "--reboot")
	m.says(3, "held by vera: a fair", "update", "--dry-run")

	i := slices.IndexFunc(bill.Packages, func(p bom.Package) bool { return p.Name == "app" })
	bill.Packages = slices.Clone(bill.Packages)
	bill.Packages[i].SHA256 = strings.Repeat("e", 64)
	s.Assign(offer(t, s, archive, bill), configured)
	m.eventually("a wrong bill is refused", func() bool {
		refused := device1(s).Report.Refused
		return refused != nil && refused.Reason == "package" && strings.Contains(refused.Text, "app:all=1 has SHA-256")
	})
	s.Assign(release, configured)
	m.eventually("it is staged again", func() bool { r := device1(s).Report; return r.Phase == "STAGED" && r.Refused == nil })
	if _, err := os.Stat(filepath.Join(m.top, "deployments/2")); err == nil {
		t.Error("it is made bootable already")
	}
}
