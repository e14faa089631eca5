package protocol

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"
)

func key(seed byte) ed25519.PrivateKey {
	raw := make([]byte, ed25519.SeedSize)
	raw[0] = seed
	return ed25519.NewKeyFromSeed(raw)
}

func TestSignaturesAreForOneKeyTextAndPurpose(t *testing.T) {
	one, two := key(1), key(2)
	signed := Sign(one, ForCheckIn, []byte(`{"a":1}`))
	public := one.Public().(ed25519.PublicKey)
	if text, err := signed.Verify(public, ForCheckIn); err != nil || string(text) != `{"a":1}` {
		t.Errorf("%s %v", text, err)
	}
	if signed.Key != KeyID(public) || len(signed.Key) != 32 {
		t.Errorf("it names the key %q", signed.Key)
	}
	changed := signed
	changed.Payload = []byte(`{"a":2}`)
	short := signed
	short.Signature = short.Signature[:63]
	for name, verify := range map[string]func() ([]byte, error){
		"another purpose": func() ([]byte, error) { return signed.Verify(public, ForAssignment) },
		"another key":     func() ([]byte, error) { return signed.Verify(two.Public().(ed25519.PublicKey), ForCheckIn) },
		"no key":          func() ([]byte, error) { return signed.Verify(nil, ForCheckIn) },
		"another text":    func() ([]byte, error) { return changed.Verify(public, ForCheckIn) },
		"half of it":      func() ([]byte, error) { return short.Verify(public, ForCheckIn) },
	} {
		if text, err := verify(); !errors.Is(err, ErrSignature) || text != nil {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
}

// An assignment's content is what it says, not when it was said.
func TestContent(t *testing.T) {
	base := func() Assignment {
		return Assignment{
			Version: 1, Device: "d", Counter: 1, Issued: time.Unix(1, 0), Expires: time.Unix(2, 0), Release: &AssignedRelease{State: "s"},
			Config: &AssignedConfig{Revision: "r", Values: map[string]any{"a": 1.0, "b": "x"}, Secrets: map[string][]byte{"p": {1}}},
		}
	}
	want := base().Content()
	for name, change := range map[string]func(*Assignment){
		"counter": func(a *Assignment) { a.Counter = 2 },
		"times":   func(a *Assignment) { a.Issued, a.Expires = time.Unix(3, 0), time.Unix(4, 0) },
		"secrets": func(a *Assignment) { a.Config.Secrets["p"] = []byte{2} },
	} {
		a := base()
		if change(&a); a.Content() != want {
			t.Errorf("%s changes it", name)
		}
	}
	for name, change := range map[string]func(*Assignment){
		"release":  func(a *Assignment) { a.Release.State = "t" },
		"hold":     func(a *Assignment) { a.Hold = &Hold{Reason: "fair"} },
		"revision": func(a *Assignment) { a.Config.Revision = "q" },
		"value":    func(a *Assignment) { a.Config.Values["a"] = 2.0 },
		"stage":    func(a *Assignment) { a.Stage = "canary" },
	} {
		a := base()
		if change(&a); a.Content() == want {
			t.Errorf("%s does not change it", name)
		}
	}
}
