package protocol

import (
	"math"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestConfigKeys(t *testing.T) {
	for key, name := range map[string]string{
		"a": "A", "host.name": "HOST_NAME", "a-b_c.d2": "A_B_C_D2", "paths": "PATHS", "app.path": "APP_PATH", "lc": "LC", "ldx": "LDX", strings.Repeat("a", 64): strings.Repeat("A", 64),
	} {
		if err := CheckConfigKey(key); err != nil || ConfigVariable(key) != name {
			t.Errorf("%s: %v, %s", key, err, ConfigVariable(key))
		}
	}
	for _, key := range []string{
		"", "A", "1a", ".a", "a.", "a..b", "a b", "a=b", "a\n", "é", "a/b", "../a", strings.Repeat("a", 65),
		"path", "ifs", "ld.preload", "ld_library.path", "bash_env", "lc.all", "aptfleet.config", "systemd.x", "ppid",
	} {
		if CheckConfigKey(key) == nil {
			t.Errorf("%q is a key", key)
		}
	}
}

// TestConfigVariablesAreNames asks sh whether the names can be assigned to.
func TestConfigVariablesAreNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.StringMatching(`[a-z][a-z0-9]{0,5}([._-][a-z0-9]{1,5}){0,4}`).Filter(func(key string) bool { return CheckConfigKey(key) == nil })
		key := keys.Draw(t, "key")
		if out, err := exec.Command("sh", "-euc", ConfigVariable(key)+`=x; test "$`+ConfigVariable(key)+`" = x`).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v, %s", key, err, out)
		}
	})
}

func TestConfigScalars(t *testing.T) {
	for _, good := range []any{"", "a\n\tb", "é😀", 0.0, -1.5, true, false} {
		if err := CheckConfigScalar(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range []any{nil, 1, "canary\x00", "canary\r", "canary\x7f", "canary\xff", "canary\ufffe", "canary\U0001ffff", math.NaN(), math.Inf(1), []any{}, map[string]any{}, strings.Repeat("canary", 3000)} {
		if err := CheckConfigScalar(bad); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%.20v: %v", bad, err)
		}
	}
}
