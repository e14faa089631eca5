package update

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWatchdog: the drop-in is there during the trial, and after it as the
// configuration says.
func TestWatchdog(t *testing.T) {
	const want = "# Written by device-updater for trial boots.\n[Manager]\nRuntimeWatchdogSec=60s\n"
	for _, c := range []struct {
		name     string
		watchdog Watchdog
		conf     string // the administrator's system.conf
		trial    string // what is there during the trial; "": nothing
		after    string
	}{
		{"for trials", Watchdog{Timeout: time.Minute}, "", want, ""},
		{"always", Watchdog{Timeout: time.Minute, Keep: true}, "", want, want},
		{"never", Watchdog{}, "", "", ""},
		{"the administrator has one", Watchdog{Timeout: time.Minute}, "[Manager]\n RuntimeWatchdogSec = 20s\n", "", ""},
		{"Debian's own comments", Watchdog{Timeout: time.Minute}, "[Manager]\n#RuntimeWatchdogSec=off\n", want, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if c.conf != "" {
				put(t, filepath.Join(root, managerConf), c.conf)
			}
			fakeSystemctl(t, "exit 0")
			s := Systemd{Run: t.TempDir(), Root: root, Watchdog: c.watchdog}
			got := func() string {
				text, err := os.ReadFile(filepath.Join(root, watchdogDropIn))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
				return string(text)
			}
			if err := s.ArmTrial(root, time.Minute); err != nil || got() != c.trial {
				t.Errorf("in the trial: %q, %v", got(), err)
			}
			for range 2 { // it may be repeated
				if err := s.DisarmTrial(t.Context()); err != nil || got() != c.after {
					t.Errorf("after it: %q, %v", got(), err)
				}
			}
		})
	}
}

// TestWatchdogThatIsNotWantedAnyMore: a deployment is armed again by an updater
// with another configuration.
func TestWatchdogThatIsNotWantedAnyMore(t *testing.T) {
	root := t.TempDir()
	for _, w := range []Watchdog{{Timeout: time.Minute, Keep: true}, {}} {
		if err := (Systemd{Watchdog: w}).ArmTrial(root, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(root, watchdogDropIn)); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
