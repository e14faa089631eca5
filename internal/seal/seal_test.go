package seal

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestVectors opens what others sealed: RFC 9180, A.2.1.1, and a text in our
// own format that was made from the RFC alone with X25519, HMAC and
// ChaCha20-Poly1305 of python3-cryptography.
func TestVectors(t *testing.T) {
	for _, c := range []struct{ name, private, info, additional, sealed, want string }{
		{
			"RFC 9180",
			"8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
			string(unhex(t, "4f6465206f6e2061204772656369616e2055726e")), "Count-0",
			"1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a" +
				"1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
			"Beauty is truth, truth beauty",
		},
		{
			"python",
			"263a4dbe41488fb87214b0032339dbb9f0c8da14c16dfcf13084bf3c2552eca5", info, string(bound("gw-1", "api.token")),
			"af1855c95e561b3464c6ce46a1d7914de6183cfb1629cecf9ce1f8a82533276b" +
				"ba95bdde25010226dfadf43fe5b35e6de2afd502e1dd97ad3a3a39a142",
			"correct horse",
		},
	} {
		key, err := ParseKey(unhex(t, c.private))
		if err != nil {
			t.Fatal(err)
		}
		got, err := open(key, []byte(c.info), []byte(c.additional), unhex(t, c.sealed))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestOnlyThatDeviceAndKey(t *testing.T) {
	own, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "secret")
		sealed, err := Seal(own.PublicKey().Bytes(), "gw-1", "api.token", secret)
		if err != nil || len(sealed) != len(secret)+Overhead {
			t.Fatalf("%d bytes, %v", len(sealed), err)
		}
		got, err := Open(own, "gw-1", "api.token", sealed)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := Open(other, "gw-1", "api.token", sealed); err == nil {
			t.Fatal("another device opened it")
		}
		if _, err := Open(own, "gw-2", "api.token", sealed); err == nil {
			t.Fatal("it opened as another device's")
		}
		if _, err := Open(own, "gw-1", "api.user", sealed); err == nil {
			t.Fatal("it opened under another name")
		}
		damaged := bytes.Clone(sealed)
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		damaged[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := Open(own, "gw-1", "api.token", damaged); err == nil {
			t.Fatalf("it opened with byte %d changed", at)
		}
		if _, err := Open(own, "gw-1", "api.token", sealed[:at]); err == nil {
			t.Fatalf("the first %d bytes of it opened", at)
		}
	})
	a, errA := Seal(own.PublicKey().Bytes(), "d", "k", []byte("x"))
	b, errB := Seal(own.PublicKey().Bytes(), "d", "k", []byte("x"))
	if errA != nil || errB != nil || bytes.Equal(a, b) {
		t.Errorf("one secret is sealed alike twice: %v, %v", errA, errB)
	}
}

func TestBadKeys(t *testing.T) {
	for _, public := range [][]byte{nil, make([]byte, 31), make([]byte, 32)} {
		_, err := Seal(public, "gw-1", "api.token", []byte("canary"))
		if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "gw-1") {
			t.Errorf("a key of %d zero bytes: %v", len(public), err)
		}
	}
	if _, err := ParseKey(make([]byte, 33)); err == nil {
		t.Error("33 bytes are a key")
	}
}
