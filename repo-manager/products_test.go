package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

// A server that is stopped while apt computes ends soon, apt with it, and goes
// on where it was.
func TestStopsWhileAptComputes(t *testing.T) {
	s := serve(t, local(shortDir(t)+"/data"))
	withProduct(t, s)
	d := enrolled(t, s, "SN-1")
	_, err := s.api().CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	path, bin, began := os.Getenv("PATH"), t.TempDir(), filepath.Join(t.TempDir(), "began")
	must(t, os.WriteFile(filepath.Join(bin, "apt-get"), []byte("#!/bin/sh\ntouch "+began+"\nexec sleep 600\n"), 0o755))
	t.Setenv("PATH", bin+":"+path)
	asked := make(chan error, 1)
	go func() {
		_, err := s.api().BOM(t.Context(), "demo", "gateway", nil, "dev")
		asked <- err
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("apt was not asked within a minute")
		}
	}
	begin := time.Now()
	must(t, s.stop())
	if took := time.Since(begin); took > patience+impatience+5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := <-asked; err == nil {
		t.Error("who asked was given a bill of materials")
	}

	t.Setenv("PATH", path)
	again := serve(t, local(s.settings.Data))
	bill, err := again.api().BOM(t.Context(), "demo", "gateway", nil, "dev")
	if err != nil || bill.Verdict == nil { // there is no package app
		t.Errorf("%+v, %v", bill, err)
	}
	if _, err := d.CheckIn(t.Context(), again.public()); err != nil {
		t.Error(err)
	}
	if got, err := again.api().Devices(t.Context(), protocol.DeviceFilter{}); err != nil || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}
