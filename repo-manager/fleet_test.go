package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// public is the URL of the server's public listener.
func (s *running) public() string { return "http://" + s.listeners.public.Addr().String() }

// withProduct makes pipeline demo with product gateway.
func withProduct(t *testing.T, s *running) {
	t.Helper()
	_, err := s.api().CreatePipeline(t.Context(), protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
	must(t, err)
	_, err = s.api().CreateProduct(t.Context(), "demo", protocol.Product{Name: "gateway", Architecture: "amd64", Packages: []string{"app"}})
	must(t, err)
}

// enrolled is a device that enrolled at a server by a token and has checked in.
func enrolled(t *testing.T, s *running, serial string) *rig.Device {
	t.Helper()
	token, err := s.api().CreateEnrolmentToken(t.Context(), protocol.EnrolmentToken{Pipeline: "demo", Product: "gateway", Stage: "dev"})
	must(t, err)
	d, err := rig.NewDevice(serial)
	must(t, err)
	if status, err := d.Enrol(t.Context(), s.public(), token.Token); err != nil || status != http.StatusOK || d.Enrolled.Device != serial {
		t.Fatalf("the enrolment: %d, %v, %+v", status, err, d.Enrolled)
	}
	if status, err := d.CheckIn(t.Context(), s.public()); err != nil || status != http.StatusOK || d.Accepted.Counter == 0 {
		t.Fatalf("the first check-in: %d, %v, %+v", status, err, d.Accepted)
	}
	return d
}

// A machine enrols by a token, checks in, is told what to do, and after that
// that nothing changed.
func TestADeviceFromItsTokenToSilence(t *testing.T) {
	s := serve(t, withURL(shortDir(t)+"/data", "http://archive.example"))
	withProduct(t, s)
	d := enrolled(t, s, "SN-1")
	if d.Accepted.Release != nil || d.Accepted.Wait == "" || d.Accepted.Stage != "dev" {
		t.Errorf("it was told %+v", d.Accepted)
	}
	for range 2 {
		if status, err := d.CheckIn(t.Context(), s.public()); err != nil || status != http.StatusNoContent {
			t.Errorf("the next check-in: %d, %v", status, err)
		}
	}
	system, err := s.api().System(t.Context())
	must(t, err)
	if system.AssignmentKey != protocol.KeyID(d.Enrolled.AssignmentKey) || d.Enrolled.ArchiveKey == "" || d.Enrolled.Archive != "http://archive.example" {
		t.Errorf("the server is %+v, the device was told %+v", system, d.Enrolled)
	}
}

// A server that was restored from a backup that is older than what devices
// were told goes on above that; one without its assignment key does not start.
func TestDevicesOfARestoredServer(t *testing.T) {
	dir := filepath.Join(shortDir(t), "backup")
	data := filepath.Join(shortDir(t), "data")
	first := serve(t, withURL(data, "http://archive.example"))
	withProduct(t, first)
	d := enrolled(t, first, "SN-1")
	first.backUp(dir)
	later := enrolled(t, first, "SN-2")
	for _, stage := range []string{"canary", "production", "dev"} { // counters 2, 3, 4
		_, err := first.api().AssignDevice(t.Context(), "SN-1", stage)
		must(t, err)
		_, err = d.CheckIn(t.Context(), first.public())
		must(t, err)
		d.Restart(true)
	}
	_, err := first.api().AssignDevice(t.Context(), "SN-1", "canary")
	must(t, err)
	_, err = d.CheckIn(t.Context(), first.public())
	must(t, err)
	if d.Accepted.Counter != 5 {
		t.Fatalf("the device was told %+v", d.Accepted)
	}
	must(t, first.stop())

	r := restoreTo(t, dir, withURL(filepath.Join(shortDir(t), "data"), "http://archive.example"))
	status, err := d.CheckIn(t.Context(), r.public())
	if err != nil || status != http.StatusOK || d.Accepted.Counter != 6 || d.Accepted.Stage != "dev" {
		t.Errorf("%d, %v, told %+v", status, err, d.Accepted)
	}
	if status, err := d.CheckIn(t.Context(), r.public()); err != nil || status != http.StatusNoContent {
		t.Errorf("again: %d, %v", status, err)
	}
	// A device that the backup does not know is told so, and has to enrol again.
	_, err = later.CheckIn(t.Context(), r.public())
	var told *rig.DeviceError
	if !errors.As(err, &told) || told.Status != http.StatusUnauthorized || told.Told.Code != protocol.CodeUnknownDevice {
		t.Errorf("the other device: %v", err)
	}
	must(t, r.stop())

	keys := filepath.Join(r.settings.Data, "keys")
	for _, name := range []string{assignmentKeyFile, readSecretFile} {
		if info, err := os.Stat(filepath.Join(keys, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	must(t, os.Rename(filepath.Join(keys, assignmentKeyFile), filepath.Join(keys, "elsewhere")))
	if opened, err := openServer(t.Context(), r.settings, r.log, r.say); err == nil || !strings.Contains(err.Error(), "assignment.key is gone") {
		t.Errorf("without the assignment key: %v", err)
		if err == nil {
			must(t, opened.close())
		}
	}
}

// A backup without keys takes them from beside the archive key.
func TestKeysBesideTheArchiveKey(t *testing.T) {
	dir := filepath.Join(shortDir(t), "backup")
	first := serve(t, withURL(filepath.Join(shortDir(t), "data"), "http://archive.example"))
	withProduct(t, first)
	d := enrolled(t, first, "SN-1")
	change, err := first.api().CreateBackup(t.Context(), protocol.NewBackup{Dir: dir, WithoutKeys: true})
	must(t, err)
	_, err = first.api().Wait(t.Context(), change.ID, nil)
	must(t, err)
	must(t, first.stop())

	alone := filepath.Join(t.TempDir(), "archive.key")
	text, err := os.ReadFile(first.key.path)
	must(t, err)
	must(t, os.WriteFile(alone, text, 0o600))
	deaf := filepath.Join(shortDir(t), "data")
	io, _, errs := fakeIO(false)
	if status := execute(t.Context(), io, []string{"restore", dir, "--data", deaf, "--key", alone}); status != 0 || !strings.Contains(errs.String(), "the key that devices obey is not there") {
		t.Errorf("with the archive key alone: exit %d, %s", status, errs)
	}

	r := restoreTo(t, dir, withURL(filepath.Join(shortDir(t), "data"), "http://archive.example"), "--key", first.key.path)
	d.Restart(false)
	if status, err := d.CheckIn(t.Context(), r.public()); err != nil || status != http.StatusNoContent {
		t.Errorf("%d, %v", status, err)
	}
}

func TestBadFleetKeys(t *testing.T) {
	data := t.TempDir()
	must(t, os.Mkdir(filepath.Join(data, "keys"), 0o700))
	k, err := openFleetKeys(data, true)
	must(t, err)
	again, err := openFleetKeys(data, false)
	must(t, err)
	if !k.made || again.made || !k.assignment.Equal(again.assignment) || !bytes.Equal(k.read, again.read) {
		t.Error("the second start has other keys")
	}
	for name, text := range map[string]string{assignmentKeyFile: "no key", readSecretFile: "00"} {
		path := filepath.Join(data, "keys", name)
		before, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := openFleetKeys(data, true); err == nil {
			t.Errorf("%s of %q was taken", name, text)
		}
		must(t, os.WriteFile(path, before, 0o600))
	}
}
