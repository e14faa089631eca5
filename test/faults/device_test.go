package faults

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// A server that is killed after a counter became durable and before the device
// was answered gives that counter no other content, whatever moved meanwhile.
func TestKilledCheckIns(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	data := newData(t)
	start := func(fault string) *rig.Server {
		t.Helper()
		s, err := rig.Start(ctx, rig.Config{Program: program, Data: data, Env: []string{"APTFLEET_FAULT=" + fault}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		return s
	}
	stop := func(s *rig.Server) {
		t.Helper()
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	s := start("")
	if _, err := s.API.CreatePipeline(ctx, protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.API.CreateProduct(ctx, "demo", protocol.Product{Name: "gateway", Architecture: "amd64", Packages: []string{"app"}}); err != nil {
		t.Fatal(err)
	}
	token, err := s.API.CreateEnrolmentToken(ctx, protocol.EnrolmentToken{Pipeline: "demo", Product: "gateway", Stage: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := rig.NewDevice("SN-1")
	if err != nil {
		t.Fatal(err)
	}
	if status, err := d.Enrol(ctx, s.Public, token.Token); err != nil || status != http.StatusOK {
		t.Fatalf("the enrolment: %d, %v", status, err)
	}
	stages := []string{"canary", "production", "dev"}
	for i := range 6 {
		stop(s)
		s = start("check-in:committed")
		if _, err := d.CheckIn(ctx, s.Public); err == nil {
			t.Fatalf("round %d: the check-in was answered: %+v", i, d.Accepted)
		}
		select {
		case <-s.Exited():
		case <-time.After(patience):
			t.Fatal("the server still runs")
		}
		if status := s.State().Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("the server ended with %v", s.State())
		}
		s = start("")
		before := d.Accepted
		if i%2 == 1 { // something moves before the device asks again
			if _, err := s.API.AssignDevice(ctx, "SN-1", stages[i%3]); err != nil {
				t.Fatal(err)
			}
		}
		// The device judges what it is told: one counter with two contents is an error.
		if _, err := d.CheckIn(ctx, s.Public); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		known, err := s.API.Device(ctx, "SN-1")
		if err != nil || known.Counter != d.Accepted.Counter || known.Stage != d.Accepted.Stage || d.Accepted.Counter < before.Counter || known.Report == nil {
			t.Errorf("round %d: the server knows %d %s, the device was told %d %s, before that %d; %v", i,
				known.Counter, known.Stage, d.Accepted.Counter, d.Accepted.Stage, before.Counter, err)
		}
		// What the next check-in has to say.
		if _, err := s.API.AssignDevice(ctx, "SN-1", stages[(i+1)%3]); err != nil {
			t.Fatal(err)
		}
		d.Report.Progress += "x"
	}
	stop(s)
}
