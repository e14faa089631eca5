package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/bom"
	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/rig"
)

// TestABillOfMaterialsIsVouchedFor: the signed indices of the base have each of
// its packages with its hash, or there is no image.
func TestABillOfMaterialsIsVouchedFor(t *testing.T) {
	bin := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(rig.Build(t.Context(), bin, "", "repo-manager"))
	server, err := rig.Start(t.Context(), rig.Config{Program: filepath.Join(bin, "repo-manager"), Data: filepath.Join(t.TempDir(), "data")})
	must(err)
	t.Cleanup(func() { must(server.Stop()) })
	_, err = server.API.CreatePipeline(t.Context(), protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{debianArch(t)}, Stages: []string{"dev"}})
	must(err)
	_, err = server.API.CreateRepository(t.Context(), "demo", "apps", 1)
	must(err)
	var list bom.BOM
	for _, name := range []string{"app", "lib"} {
		file, err := rig.Package(name, "1:2.0", "all", []byte(name))
		must(err)
		_, err = server.API.Upload(t.Context(), "demo", "apps", client.File{Name: name + ".deb", Body: bytes.NewReader(file), Size: int64(len(file))})
		must(err)
		sum := sha256.Sum256(file)
		list.Packages = append(list.Packages, bom.Package{Name: name, Architecture: "all", Version: "1:2.0", SHA256: hex.EncodeToString(sum[:])})
	}
	snapshot, err := server.API.CreateSnapshot(t.Context(), "demo", protocol.NewSnapshot{})
	must(err)
	list.State, list.Product, list.Architecture = snapshot.State, "gateway", debianArch(t)

	for _, c := range []struct {
		name   string
		change func(*bom.BOM)
		says   string
	}{
		{"as it is", func(*bom.BOM) {}, ""},
		{"another file", func(b *bom.BOM) { b.Packages[0].SHA256 = strings.Repeat("0", 64) }, "in the bill of materials"},
		{"another version", func(b *bom.BOM) { b.Packages[1].Version = "1:2.1" }, "lib:all=1:2.1"},
		{"another package", func(b *bom.BOM) { b.Packages[1].Name = "nothing" }, "nothing:all=1:2.0"},
	} {
		changed := list
		changed.Packages = append([]bom.Package{}, list.Packages...)
		c.change(&changed)
		p := Plan{
			Base: server.Public + "/demo/snapshots/" + snapshot.ID, Distribution: "trixie", Components: []string{"apps"},
			Keyring: filepath.Join(server.Data, "public/archive-keyring.asc"),
		}
		p.Exactly(changed.Encode(), changed)
		b := builder{Plan: p, dir: t.TempDir(), log: io.Discard}
		err := b.vouched(t.Context())
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
		if c.says == "" && strings.Join(p.Packages, " ") != "app=1:2.0 lib=1:2.0" {
			t.Errorf("apt is asked for %v", p.Packages)
		}
	}
}

func debianArch(t *testing.T) string {
	t.Helper()
	arch, err := debian.Architecture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return arch
}
