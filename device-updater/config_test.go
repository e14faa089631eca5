package main

import (
	"crypto/ecdh"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/settings"
	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
	"aptfleet/internal/term"
)

func TestConfig(t *testing.T) {
	sysroot, flags := deviceFlags(t)
	code, out, errOut := call(t, append(flags, "config", "list")...)
	if code != 0 || out != "" {
		t.Errorf("before the first: %d, %q, %q", code, out, errOut)
	}
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := seal.Seal(key.PublicKey().Bytes(), "bench", "api.token", []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	s := settings.New(sysroot+"/updater", "1", func() (*ecdh.PrivateKey, error) { return key, nil })
	s.Hooks, s.Clock = t.TempDir(), time.Now
	config := &protocol.AssignedConfig{Revision: "00c0ffee", Values: map[string]any{"interval": 30.0, "name": "a\nb"}, Secrets: map[string][]byte{"api.token": sealed}}
	if _, err := s.Apply(t.Context(), "bench", config); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"config get interval", 0, "30\n"},
		{"config get name", 0, "a\nb\n"},
		{"config get nothing", term.ExitFailed, ""},
		{"config get api.token", term.ExitFailed, ""},
		{"config get api.token --show-secrets", 0, "canary\n"},
		{"config list", 0, "api.token\t(secret)\ninterval\t30\nname\ta\\nb\n"},
		{"config list --show-secrets", 0, "api.token\tcanary\ninterval\t30\nname\ta\\nb\n"},
		{"config list --json", 0, `{
  "revision": "00c0ffee",
  "applied": "00c0ffee",
  "values": {
    "api.token": null,
    "interval": 30,
    "name": "a\nb"
  },
  "secrets": [
    "api.token"
  ]
}
`},
		{"config", term.ExitUsage, ""},
		{"config get", term.ExitUsage, ""},
	} {
		code, out, errOut := call(t, append(flags, strings.Fields(c.args)...)...)
		if code != c.code || out != c.out || code == 0 && errOut != "" {
			t.Errorf("%s: status %d, %q, %q", c.args, code, out, errOut)
		}
		if !strings.Contains(c.args, "--show-secrets") && strings.Contains(out+errOut, "canary") {
			t.Errorf("%s shows a secret", c.args)
		}
	}
}
