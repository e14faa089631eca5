package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/bom"
)

// TestAFirstDeploymentIsItsBillOfMaterials, or it is not committed.
func TestAFirstDeploymentIsItsBillOfMaterials(t *testing.T) {
	native, foreign := architecture(), "mips"
	state := strings.Repeat("ab", 32)
	whole := bom.BOM{State: state, Product: "gateway", Architecture: native, TopLevel: []string{"app"}, Packages: []bom.Package{
		{Name: "app", Architecture: "all", Version: "1:2.0", SHA256: strings.Repeat("1", 64)},
		{Name: "libc6", Architecture: native, Version: "2.41", SHA256: strings.Repeat("2", 64)},
	}}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	stanza := func(name, architecture, version string) string {
		return "Package: " + name + "\nStatus: install ok installed\nArchitecture: " + architecture + "\nVersion: " + version + "\n\n"
	}
	status := stanza("app", "all", "1:2.0") + stanza("libc6", native, "2.41")
	for name, c := range map[string]struct {
		change func(*bom.BOM)
		status string
		says   string
	}{
		"equal":                {nil, status, ""},
		"another version":      {nil, strings.Replace(status, "2.41", "2.40", 1), "libc6:" + native + "=2.41 is not installed"},
		"one more":             {nil, status + stanza("extra", "all", "1"), "extra:all=1 is installed and not in the list"},
		"one less":             {nil, stanza("app", "all", "1:2.0"), "libc6:" + native + "=2.41 is not installed"},
		"half installed":       {nil, strings.Replace(status, "ok installed", "ok half-configured", 1), "half-configured"},
		"another state":        {func(b *bom.BOM) { b.State = strings.Repeat("cd", 32) }, status, "is of state cdcd"},
		"another architecture": {func(b *bom.BOM) { b.Architecture = foreign }, status, "for " + foreign},
	} {
		t.Run(name, func(t *testing.T) {
			bill := whole
			if c.change != nil {
				c.change(&bill)
			}
			file := filepath.Join(t.TempDir(), "bom")
			if err := os.WriteFile(file, bill.Encode(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), []byte(c.status), 0o644); err != nil {
				t.Fatal(err)
			}
			d := update.Deployment{ID: 1, State: state}
			err := exactly(&d, file, root)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.BOM != string(bill.Encode()) || len(d.Packages) != 2 || d.Packages[1].SHA256 != strings.Repeat("2", 64) || d.Version() != "1:2.0" {
				t.Errorf("the record is %+v", d)
			}
		})
	}
	damaged := filepath.Join(t.TempDir(), "bom")
	if err := os.WriteFile(damaged, whole.Encode()[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exactly(&update.Deployment{State: state}, damaged, root); err == nil {
		t.Error("half a bill of materials was taken")
	}
}
