package sign_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"aptfleet/internal/sign"
)

var moment = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

const release = "Origin: Aptfleet\nSuite: production\n- a line with a hyphen\nSHA256:\n 00 1 Packages\n"

func newKey(t *testing.T) *sign.Key {
	t.Helper()
	key, err := sign.Generate("Archive of tests", "archive@test.example", moment)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(t *testing.T, key *sign.Key) (binary, armored []byte) {
	t.Helper()
	binary, err := key.CertificateBinary()
	if err != nil {
		t.Fatal(err)
	}
	armored, err = key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return binary, armored
}

func clearSign(t *testing.T, key *sign.Key, at time.Time) []byte {
	t.Helper()
	message, err := key.ClearSign([]byte(release), at)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func TestSignedTextComesBack(t *testing.T) {
	key := newKey(t)
	message := clearSign(t, key, moment)
	if again := clearSign(t, key, moment); !bytes.Equal(message, again) {
		t.Error("the same text signed at the same time differs")
	}
	binary, armored := certificate(t, key)
	for name, keyring := range map[string][]byte{"binary": binary, "armoured": armored} {
		text, signer, err := sign.Verify(message, keyring, moment.Add(time.Hour))
		if err != nil {
			t.Fatalf("%s keyring: %v", name, err)
		}
		if string(text) != release || signer != key.Fingerprint() {
			t.Errorf("%s keyring: got %q signed by %s, want %q by %s", name, text, signer, release, key.Fingerprint())
		}
	}
	detached, err := key.Detach([]byte(release), moment)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err := sign.VerifyDetached([]byte(release), detached, binary, moment); err != nil || signer != key.Fingerprint() {
		t.Errorf("detached: %s, %v", signer, err)
	}
	if _, err := sign.VerifyDetached([]byte(release+"x"), detached, binary, moment); err == nil {
		t.Error("a detached signature of another text was accepted")
	}
}

func TestKeySurvivesItsFile(t *testing.T) {
	key := newKey(t)
	private, err := key.Private()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := sign.Load(private)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Fingerprint() != key.Fingerprint() || len(key.Fingerprint()) != 40 {
		t.Fatalf("fingerprint %s became %s", key.Fingerprint(), loaded.Fingerprint())
	}
	if !bytes.Equal(clearSign(t, key, moment), clearSign(t, loaded, moment)) {
		t.Error("the loaded key signs differently")
	}
	_, armored := certificate(t, key)
	for name, bad := range map[string][]byte{"a certificate": armored, "nothing": nil, "noise": []byte("-----BEGIN nonsense"), "half a key": private[:len(private)/2]} {
		if _, err := sign.Load(bad); err == nil || !strings.HasPrefix(err.Error(), "cannot load archive key: ") {
			t.Errorf("Load of %s: %v", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	message := clearSign(t, key, moment)
	ring, _ := certificate(t, key)
	other, _ := certificate(t, stranger)
	for name, test := range map[string]struct {
		message, keyring []byte
		now              time.Time
	}{
		"a changed text":          {bytes.Replace(message, []byte("production"), []byte("productiom"), 1), ring, moment},
		"another key":             {message, other, moment},
		"an empty keyring":        {message, nil, moment},
		"a damaged keyring":       {message, ring[:len(ring)/2], moment},
		"text before the message": {append([]byte("Suite: evil\n"), message...), ring, moment},
		"text behind the message": {append(bytes.Clone(message), "Suite: evil\n"...), ring, moment},
		"a second message":        {append(bytes.Clone(message), message...), ring, moment},
		"a cut message":           {message[:len(message)-40], ring, moment},
		"no signature":            {[]byte(release), ring, moment},
		"a signature of tomorrow": {clearSign(t, key, moment.Add(24*time.Hour)), ring, moment},
	} {
		if text, _, err := sign.Verify(test.message, test.keyring, test.now); err == nil || text != nil {
			t.Errorf("%s was accepted", name)
		}
	}
	both := append(bytes.Clone(other), ring...)
	if _, signer, err := sign.Verify(message, both, moment); err != nil || signer != key.Fingerprint() {
		t.Errorf("a keyring of two: %s, %v", signer, err)
	}
}

// TestKeysThatEnded: certificates of other programs may expire or be revoked.
func TestKeysThatEnded(t *testing.T) {
	at := func(when time.Time) *packet.Config { return &packet.Config{Time: func() time.Time { return when }} }
	config := at(moment)
	config.KeyLifetimeSecs = 3600
	entity, err := openpgp.NewEntity("Upstream", "", "upstream@test.example", config)
	if err != nil {
		t.Fatal(err)
	}
	var message bytes.Buffer
	w, err := clearsign.Encode(&message, entity.PrivateKey, at(moment))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ring := func() []byte {
		var b bytes.Buffer
		if err := entity.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if text, _, err := sign.Verify(message.Bytes(), ring(), moment.Add(time.Minute)); err != nil || string(text) != "text\n" {
		t.Errorf("while the key is valid: %q, %v", text, err)
	}
	if _, _, err := sign.Verify(message.Bytes(), ring(), moment.Add(2*time.Hour)); err == nil {
		t.Error("an expired key was accepted")
	}
	if err := entity.RevokeKey(packet.KeyCompromised, "stolen", at(moment)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sign.Verify(message.Bytes(), ring(), moment.Add(time.Minute)); err == nil {
		t.Error("a revoked key was accepted")
	}
}

// TestForeignVerifiers lets the programs that apt calls judge our signatures.
func TestForeignVerifiers(t *testing.T) {
	key := newKey(t)
	dir := t.TempDir()
	binary, armored := certificate(t, key)
	detached, err := key.Detach([]byte(release), moment)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"ring.pgp": binary, "ring.asc": armored, "InRelease": clearSign(t, key, moment), "Release": []byte(release), "Release.gpg": detached}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(wantOK bool, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Fatalf("%s is missing (hint: make test installs it)", args[0])
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); (err == nil) != wantOK {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	run(true, "gpgv", "--keyring", "./ring.pgp", "InRelease")
	run(true, "gpgv", "--keyring", "./ring.pgp", "Release.gpg", "Release")
	// Debian 13's apt uses sqv; Debian 12's sqv reads detached signatures only.
	run(true, "sqv", "--keyring", "ring.pgp", "Release.gpg", "Release")
	run(true, "sqv", "--keyring", "ring.asc", "Release.gpg", "Release")
	if err := os.WriteFile(filepath.Join(dir, "Release"), []byte(release+"Suite: evil\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(false, "gpgv", "--keyring", "./ring.pgp", "Release.gpg", "Release")
	run(false, "sqv", "--keyring", "ring.pgp", "Release.gpg", "Release")
}

func FuzzVerify(f *testing.F) {
	key, err := sign.Generate("f", "f@test.example", moment)
	if err != nil {
		f.Fatal(err)
	}
	message, err := key.ClearSign([]byte(release), moment)
	if err != nil {
		f.Fatal(err)
	}
	ring, err := key.CertificateBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n\n-----BEGIN PGP SIGNATURE-----\n\n=AAAA\n-----END PGP SIGNATURE-----\n"))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, _, err := sign.Verify(data, ring, moment)
		// White space at line ends is not signed, everything else is.
		if err == nil && string(text) != release {
			t.Fatalf("a text was accepted that nobody signed: %q", text)
		}
	})
}
