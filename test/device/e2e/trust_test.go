package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/internal/protocol"
)

// refuses waits until the server knows that the device refused what it was
// told, and for what reason; then it must have stayed as it is.
func (d *fielded) refuses(reason string) {
	d.t.Helper()
	known := d.awaitKnown("the refusal "+reason, func(known protocol.Device) bool {
		return known.Report != nil && known.Report.Refused != nil && known.Report.Refused.Reason == reason
	})
	d.t.Logf("refused: %s", known.Report.Refused.Text)
	d.stays()
	d.runs("1", "demo-app")
}

// Whoever has the server's disk, but not one of its two keys, cannot make its
// devices run anything.
func TestADeviceObeysTwoKeysOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := newDevice(t, onSite(s))
	d.on()
	// The assignment key is another.
	path := filepath.Join(s.Data, "keys/assignment.key")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, forged, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(forged)
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(key []byte) {
		t.Helper()
		s.Kill()
		err := os.WriteFile(path, key, 0o600)
		if err == nil {
			err = s.again(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	exchange(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	d.promote("2")
	d.refuses("signature")

	// The right key again, and a bill of materials that asks for an older
	// application than the one that the assignment names.
	bill, err := s.API.BOM(t.Context(), pipeline, d.product, nil, world.releases["2"].ID)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Data, "public", pipeline, "boms", bill.SHA256)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(content []byte) {
		t.Helper()
		next := file + ".next"
		err := os.WriteFile(next, content, 0o644)
		if err == nil {
			err = os.Rename(next, file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	altered := bytes.Replace(text, []byte("demo-app:all=2.0 "), []byte("demo-app:all=1.0 "), 1)
	if bytes.Equal(text, altered) {
		t.Fatalf("the bill of materials has no demo-app 2.0:\n%s", text)
	}
	exchange(good)
	replace(altered)
	d.refuses("bom")

	replace(text)
	d.awaitCommit("2")
	d.hasItsBOM("2")
	d.awaitKnown("that all is well", func(known protocol.Device) bool {
		return known.State == protocol.DeviceOK && known.Report.Refused == nil
	})
}
