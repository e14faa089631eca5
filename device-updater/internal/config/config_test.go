package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/config"
)

const good = `archive: http://127.0.0.1:8080/
pipeline: demo
follow: production
components: [apps, debian]
keyring: /usr/share/keyrings/aptfleet-archive-keyring.pgp
packages: [demo-device]
`

func load(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "device.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path)
}

func TestDefaults(t *testing.T) {
	c, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if c.Poll != time.Minute || c.Reboot != config.RebootAuto || c.Trial != (config.Trial{Tries: 3, Timeout: 10 * time.Minute, Observe: 30 * time.Second}) ||
		c.Watchdog != (config.Watchdog{When: config.WatchdogTrial, Timeout: time.Minute}) {
		t.Errorf("%+v", c)
	}
	if c.Archive != "http://127.0.0.1:8080" {
		t.Errorf("archive %q keeps its slash", c.Archive)
	}
	if c.Window != "" || c.Keep != 2 || c.Inhibit.Max != time.Hour {
		t.Errorf("%+v", c)
	}
}

func TestAllKeys(t *testing.T) {
	c, err := load(t, good+"distribution: trixie\nserver: https://fleet.example/\nca: /etc/aptfleet/ca.pem\ntoken: aft1_x\nserial: SN-1\nrevision: B2\nproduct: gateway\npoll: 0\nreboot: manual\nwindow: mon-fri 22:00-02:00; sat,sun 00:00-24:00\nkeep: 4\ninhibit: {max: 0}\ntrial: {tries: 2, timeout: 20s, observe: 3s}\nwatchdog: {when: always, timeout: 15s}\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Poll != 0 || c.Reboot != config.RebootManual || c.Trial != (config.Trial{Tries: 2, Timeout: 20 * time.Second, Observe: 3 * time.Second}) || c.Watchdog != (config.Watchdog{When: config.WatchdogAlways, Timeout: 15 * time.Second}) || c.Token != "aft1_x" || c.Server != "https://fleet.example" || c.CA != "/etc/aptfleet/ca.pem" || c.Serial != "SN-1" || c.Revision != "B2" || c.Product != "gateway" ||
		c.Window != "mon-fri 22:00-02:00; sat,sun 00:00-24:00" || c.Keep != 4 || c.Inhibit.Max != 0 {
		t.Errorf("%+v", c)
	}
}

func TestBase(t *testing.T) {
	for follow, want := range map[string]string{
		"production":                        "demo/production",
		"snapshot:20261120T101500Z":         "demo/snapshots/20261120T101500Z",
		"state:" + strings.Repeat("0a", 32): "demo/states/" + strings.Repeat("0a", 32),
	} {
		c, err := load(t, strings.Replace(good, "production", follow, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Base(); got != want {
			t.Errorf("%s: %s, want %s", follow, got, want)
		}
	}
}

// TestRefused: each text has one mistake; the error names its key.
func TestRefused(t *testing.T) {
	set := func(key, value string) string {
		var lines []string
		for line := range strings.Lines(good) {
			if !strings.HasPrefix(line, key+":") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "") + key + ": " + value + "\n"
	}
	for _, c := range []struct{ text, names string }{
		{good + "colour: red\n", "colour"},
		{good + "trial: {tries: 3, patience: 1m}\n", "patience"},
		{good + "poll: soon\n", "poll"},
		{good + "poll: -1s\n", "poll"},
		{good + "reboot: maybe\n", "reboot"},
		{good + "window: at night\n", "window"},
		{good + "window: [02:00-04:00]\n", "window"},
		{good + "keep: 1\n", "keep"},
		{good + "keep: 21\n", "keep"},
		{good + "keep: all\n", "keep"},
		{good + "inhibit: 1h\n", "inhibit"},
		{good + "inhibit: {max: -1s}\n", "inhibit.max"},
		{good + "inhibit: {max: 169h}\n", "inhibit.max"},
		{good + "inhibit: {min: 1h}\n", "min"},
		{good + "trial: {tries: 0}\n", "trial.tries"},
		{good + "trial: {tries: 10}\n", "trial.tries"},
		{good + "trial: {timeout: 1s}\n", "trial.timeout"},
		{good + "trial: {timeout: 20s, observe: 20s}\n", "trial.observe"},
		{good + "trial: {tries: three}\n", "tries"},
		{good + "watchdog: {when: sometimes}\n", "watchdog.when"},
		{good + "watchdog: {timeout: 1s}\n", "watchdog.timeout"},
		{good + "watchdog: {timeout: 2h}\n", "watchdog.timeout"},
		{good + "hooks: {timeout: 0s}\n", "hooks.timeout"},
		{good + "hooks: {retries: -1}\n", "hooks"},
		{good + "hooks: {patience: 1h}\n", "patience"},
		{set("archive", "ftp://x"), "archive"},
		{set("archive", "http://user:pw@x"), "archive"},
		{set("archive", "''"), "archive"},
		{set("pipeline", "../x"), "pipeline"},
		{set("follow", "snapshot:today"), "follow"},
		{set("follow", "a/b"), "follow"},
		{set("components", "[]"), "components"},
		{set("components", "['a b']"), "components"},
		{set("keyring", "keys.pgp"), "keyring"},
		{set("packages", "[]"), "packages"},
		{set("packages", "['-y']"), "packages"},
		{set("packages", "demo-device"), "packages"},
		{set("distribution", "'a b'"), "distribution"},
		{good + "name: demo\n", "name"},
		{good + "server: fleet.example\n", "server"},
		{good + "server: http://fleet.example\n", "insecure"},
		{good + "server: https://u:p@fleet.example\n", "server"},
		{good + "ca: ca.pem\n", "ca"},
		{good + "serial: a b\n", "serial"},
		{good + "product: A/B\n", "product"},
		{"follow: assignment\npoll: -1s\n", "poll"},
		{"server: https://fleet.example\nkeyring: keys.pgp\n", "keyring"},
		{"- a\n", "configuration"},
		{"a: [\n", "configuration"},
	} {
		_, err := load(t, c.text)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.names) || strings.Contains(err.Error(), "\n") {
			t.Errorf("want one line that names %s, got %v\n%s", c.names, err, c.text)
		}
	}
	if _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("no file: want an error")
	}
}

func TestCodeName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "os-release")
	for text, want := range map[string]string{
		"ID=debian\nVERSION_CODENAME=trixie\n":     "trixie",
		"VERSION_CODENAME=\"bookworm\"\nID=debian": "bookworm",
		"ID=debian\n":             "",
		"VERSION_CODENAME=../x\n": "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := config.CodeName(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// TestWhatIsFollowed: a server assigns, unless the configuration names
// something of an archive.
func TestWhatIsFollowed(t *testing.T) {
	for _, c := range []struct {
		text     string
		enrolled bool
		want     string // "": an error
	}{
		{good, false, "production"},
		{good, true, "production"},
		{"poll: 1m\n", true, config.FollowAssignment},
		{"server: https://fleet.example\n", false, config.FollowAssignment},
		{"follow: assignment\n", false, config.FollowAssignment},
		{"poll: 1m\n", false, ""},
	} {
		got, err := load(t, c.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err = got.Resolve(c.enrolled)
		if (err == nil) != (c.want != "") || err == nil && got.Follow != c.want {
			t.Errorf("%q, enrolled %v: %q, %v", c.text, c.enrolled, got.Follow, err)
		}
	}
}
