package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/term"
)

// TestStateInStatus: what lies in the state and what was kept is told, and so is
// that it cannot be told.
func TestStateInStatus(t *testing.T) {
	top := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(top, "kept", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &program{sysroot: top}
	if got := said(p.lookState().facts(&term.IO{})); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	put("units.json", `{"units":{"ledger":{"name":"ledger","epoch":2,"paths":["/opt/l","/var/lib/l"],"deployment":4,"since":"2026-11-20T12:00:00Z"}}}`)
	put("3/ledger/unit.json", `{"name":"ledger","epoch":1,"paths":["/var/lib/l"],"deployment":3,"at":"2026-11-20T12:00:00Z"}`)
	put("3/half.copying/unit.json", `{"name":"half"}`)
	want := "state\tledger of epoch 2 since 2026-11-20T12:00:00Z, in /opt/l /var/lib/l\n" +
		"kept\tledger of epoch 1, as deployment 3 left it 2026-11-20T12:00:00Z, in " + top + "/kept/3/ledger\n"
	if got := said(p.lookState().facts(&term.IO{})); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	put("units.json", "{")
	if got := said(p.lookState().facts(&term.IO{})); !strings.Contains(got, "state\tcannot read which state units there are") {
		t.Errorf("damaged: %q", got)
	}
}
