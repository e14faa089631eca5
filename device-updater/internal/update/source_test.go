package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/sign"
)

// offering is a server with one InRelease, and a Source that asks it.
func offering(t *testing.T, now time.Time) (s *Source, offer func(date time.Time, state string)) {
	t.Helper()
	key, err := sign.Generate("Archive", "archive@aptfleet.example", now.Add(-1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(t.TempDir(), "keyring.asc")
	if err := os.WriteFile(keyring, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	var body []byte
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(web.Close)
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s = &Source{
		Client: &archive.Client{HTTP: web.Client(), URL: web.URL, Distribution: "trixie", Keyring: keyring, Clock: func() time.Time { return now }},
		Base:   "demo/production", StateBase: func(state string) string { return "demo/states/" + state }, Records: records,
		SetClock: func(time.Time) error { t.Error("the clock was set"); return nil },
	}
	return s, func(date time.Time, state string) {
		t.Helper()
		stage := strings.TrimPrefix(s.Base, "demo/")
		text := fmt.Sprintf("Origin: Aptfleet\nLabel: demo\nSuite: %s\nCodename: trixie\nDate: %s\nAptfleet-State: %s\nSHA256:\n %064d 0 x\n", stage, date.UTC().Format(time.RFC1123), state, 1)
		if body, err = key.ClearSign([]byte(text), date); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTimeGoesForward: what was seen is a floor, also for the next process and
// the system's clock.
func TestTimeGoesForward(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s, offer := offering(t, now)
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	offer(now.Add(-time.Minute), a)
	if o, err := s.Offer(t.Context()); err != nil || o.State != a {
		t.Fatalf("%+v, %v", o, err)
	}
	times, err := s.Records.Times()
	if err != nil || !times.Floor.Equal(now.Add(-time.Minute)) || !times.Seen["demo/production"].Equal(times.Floor) {
		t.Errorf("%+v, %v", times, err)
	}
	offer(now.Add(-time.Hour), b)
	var refused *archive.Error
	if _, err := s.Offer(t.Context()); !errors.As(err, &refused) || refused.Kind != archive.Older {
		t.Errorf("an older one: %v", err)
	}
	// Another base has a history of its own.
	s.Base = "demo/canary"
	offer(now.Add(-time.Hour), b)
	if o, err := s.Offer(t.Context()); err != nil || o.State != b {
		t.Errorf("%+v, %v", o, err)
	}
	if times, err := s.Records.Times(); err != nil || !times.Floor.Equal(now.Add(-time.Minute)) {
		t.Errorf("the floor went back: %+v, %v", times, err)
	}
	// The clock stands before what was signed.
	var set time.Time
	s.SetClock = func(t time.Time) error { set = t; return nil }
	offer(now.Add(time.Hour), a)
	if _, err := s.Offer(t.Context()); err != nil || !set.Equal(now.Add(time.Hour)) {
		t.Errorf("the clock was set to %s, %v", set, err)
	}
	s.SetClock = func(time.Time) error { return os.ErrPermission }
	if _, err := s.Offer(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a clock that cannot be set: %v", err)
	}
}

func TestAnotherStateIsNotUsed(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s, offer := offering(t, now)
	offer(now, strings.Repeat("a", 64))
	if _, err := s.Offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Plan(t.Context(), Offer{State: strings.Repeat("b", 64)}, t.TempDir(), Deployment{}); err == nil || !strings.Contains(err.Error(), "the server offers") {
		t.Errorf("%v", err)
	}
}

// TestVerifyWantsAWorkingUpdater: each file that a device cannot do without,
// and a program that runs.
func TestVerifyWantsAWorkingUpdater(t *testing.T) {
	plan := apt.Plan{List: []apt.Package{{Name: "app", Version: "1", Architecture: "all"}}}
	plant := func() string {
		root := t.TempDir()
		files := append([]string{"var/lib/dpkg/status"}, updaterFiles...)
		for _, name := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("Package: app\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return root
	}
	says := "device-updater 1.0\n"
	var runErr error
	s := &Source{Run: func(_ context.Context, c sandbox.Command, out io.Writer) error {
		if c.Argv[0] == "/usr/bin/device-updater" {
			if _, err := io.WriteString(out, says); err != nil {
				return err
			}
			return runErr
		}
		return nil
	}}
	var manifest bytes.Buffer
	if err := s.Verify(t.Context(), plan, plant(), &manifest); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(manifest.String(), `"/usr/bin/device-updater"`) {
		t.Errorf("the manifest lacks the updater:\n%s", &manifest)
	}
	for _, name := range updaterFiles {
		root := plant()
		if err := os.Remove(filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context(), plan, root, io.Discard); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	says = "hello\n"
	if err := s.Verify(t.Context(), plan, plant(), io.Discard); err == nil {
		t.Error("another program was taken for the updater")
	}
	runErr = errors.New("exec format error")
	if err := s.Verify(t.Context(), plan, plant(), io.Discard); err == nil || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("%v", err)
	}
	plan.List[0].Version = "2"
	if err := s.Verify(t.Context(), plan, plant(), io.Discard); err == nil || !strings.Contains(err.Error(), "app:all=2 is not installed") {
		t.Errorf("%v", err)
	}
}

// TestPackageShipsWhatVerifyWants: the manifest of our own package and the list
// of what must be in a deployment agree.
func TestPackageShipsWhatVerifyWants(t *testing.T) {
	manifest, err := os.ReadFile("../../aptfleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range updaterFiles {
		if !strings.Contains(string(manifest), "dst: /"+name+"\n") {
			t.Errorf("aptfleet.yaml does not ship /%s", name)
		}
	}
}

// TestKernelArgumentsOfAProduct: what a package of the release says reaches the
// loader's file of the deployment, and what the loader must not be given stops
// the release.
func TestKernelArgumentsOfAProduct(t *testing.T) {
	plan := apt.Plan{List: []apt.Package{{Name: "board", Version: "1", Architecture: "all"}}}
	for arguments, want := range map[string]string{
		"console=ttyS0,115200n8 quiet\n": "set options=\"console=ttyS0,115200n8 quiet\"\n",
		"root=/dev/sda1\n":               "",
	} {
		root := t.TempDir()
		files := map[string]string{
			"var/lib/dpkg/status":                     "Package: board\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
			"boot/vmlinuz-6.12-a":                     "k",
			"boot/initrd.img-6.12-a":                  "i",
			"usr/lib/modules/6.12-a/modules.dep":      "",
			"usr/lib/aptfleet/kernel.d/50-board.conf": arguments,
		}
		for _, name := range updaterFiles {
			files[name] = "x"
		}
		for name, text := range files {
			path := filepath.Join(root, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		s := &Source{Run: func(_ context.Context, c sandbox.Command, out io.Writer) error {
			if c.Argv[0] == "/usr/bin/device-updater" {
				_, err := io.WriteString(out, "device-updater 1.0\n")
				return err
			}
			return nil
		}}
		err := s.Verify(t.Context(), plan, root, io.Discard)
		entry, readErr := os.ReadFile(filepath.Join(root, "boot/aptfleet/entry.cfg"))
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "/usr/lib/aptfleet/kernel.d/50-board.conf") || readErr == nil {
				t.Errorf("%q: %v, %s", arguments, err, entry)
			}
			continue
		}
		if err != nil || !strings.HasSuffix(string(entry), want) {
			t.Errorf("%q: %v, %s", arguments, err, entry)
		}
	}
}

// TestAClockThatWasSetBack after the release was offered is set forward before
// apt verifies it.
func TestAClockThatWasSetBack(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	s, offer := offering(t, now)
	state := strings.Repeat("a", 64)
	offer(now, state)
	o, err := s.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Client.Clock = func() time.Time { return time.Unix(0, 0) }
	var set time.Time
	stop := errors.New("stop here")
	s.SetClock = func(t time.Time) error { set = t; return stop }
	if err := s.open(t.Context(), o); !errors.Is(err, stop) || !set.Equal(now) {
		t.Errorf("%v, the clock was set to %s", err, set)
	}
}

// emptyRoot is a root in which dpkg knows of no package.
func emptyRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}
