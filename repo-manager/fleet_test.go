package main

import (
	"net/http"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// public is the URL of the server's public listener.
func (s *running) public() string { return "http://" + s.listeners.public.Addr().String() }

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
	_, err := s.api().CreatePipeline(t.Context(), protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
	must(t, err)
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
