package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// credentials are the device's for the archive.
func (d *fielded) credentials() (user, password string) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.Top(), "identity/enrolment.json"))
	var e struct{ Device, Password string }
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return e.Device, e.Password
}

// read asks the archive of a site for a snapshot and returns the status.
func (s *site) read(t *testing.T, release, user, password string) int {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.Data, "keys/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Public+"/"+pipeline+"/snapshots/"+world.releases[release].ID+"/dists/"+distribution+"/InRelease", nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		request.SetBasicAuth(user, password)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func TestAPrivateArchiveIsReadByItsDevicesUntilTheyAreRetired(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	private := true
	if _, err := s.API.SetPipeline(t.Context(), pipeline, protocol.SetPipeline{Private: &private}); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, onSite(s))
	d.on()
	d.promote("2")
	d.awaitCommit("2")
	d.hasItsBOM("2")
	user, password := d.credentials()
	for _, c := range []struct {
		who, user, password string
		want                int
	}{{"nobody", "", "", http.StatusUnauthorized}, {"the device", user, password, http.StatusOK}, {"a liar", user, "guessed", http.StatusUnauthorized}} {
		if got := s.read(t, "2", c.user, c.password); got != c.want {
			t.Errorf("the archive answers %s with %d, want %d", c.who, got, c.want)
		}
	}

	// Retired it runs on, and reads nothing any more.
	if _, err := s.API.RetireDevice(t.Context(), d.name, "it was sold"); err != nil {
		t.Fatal(err)
	}
	d.promote("4")
	d.await("that it is retired", func() bool { return d.server().Code == protocol.CodeRetired })
	d.await("the end of its credentials", func() bool { return s.read(t, "2", user, password) == http.StatusUnauthorized })
	d.stays()
	d.off()
	d.on()
	d.runs("2", "demo-app")
	if last := d.lastBoot(); last.Trial || last.Deployment != d.committed() {
		t.Errorf("a retired device boots %+v, committed is %d", last, d.committed())
	}
}

func TestTheServerIsKilledWhileDevicesUpdate(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; TestADeviceObeysTwoKeysOnly has a server killed, too")
	}
	t.Parallel()
	s := newSite(t)
	random := seeded(t)
	devices := []*fielded{newDevice(t, onSite(s)), newDevice(t, onSite(s)), newDevice(t, onSite(s))}
	for _, d := range devices {
		d.on()
	}
	for _, d := range devices {
		d.promote("2")
	}
	for range 12 {
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		s.Kill()
		if err := s.again(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range devices {
		d.awaitCommit("2")
		d.hasItsBOM("2")
		known := d.awaitKnown("that all is well", func(known protocol.Device) bool { return known.State == protocol.DeviceOK })
		if known.Report.Refused != nil {
			t.Errorf("%s refused an assignment: %+v", d.name, known.Report.Refused)
		}
		// What is lost with a server is not sent again as something else: one for
		// each release, and one to wait for the second.
		if known.Counter > 3 {
			t.Errorf("%s was given %d assignments for two releases", d.name, known.Counter)
		}
	}
}

// The server burns down after its last backup. What is brought back knows
// less than its devices have seen, and they follow it all the same.
func TestDevicesFollowAServerThatWasRestored(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; test/scripts has the story with a device that installs nothing")
	}
	t.Parallel()
	s := newSite(t)
	d := newDevice(t, onSite(s))
	d.on()
	backup := t.TempDir()
	if err := s.backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	d.promote("2")
	d.awaitCommit("2")
	d.hold("forgotten soon")
	before := d.known().Counter
	late := newDevice(t, onSite(s), func(d *fielded) { d.how = bySerial })
	late.on()

	s.Kill()
	if err := os.Rename(s.Data, s.Data+".lost"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(s.Data + ".lost"); err != nil {
			t.Error(err)
		}
	})
	if err := restore(t.Context(), backup, s.Data, "--sign-anew"); err != nil {
		t.Fatal(err)
	}
	if err := s.again(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It offers what it offered then, as after an undo.
	d.awaitCommit("1")
	d.hasItsBOM("1")
	known := d.awaitKnown("that all is well", func(known protocol.Device) bool { return known.State == protocol.DeviceOK })
	if known.Counter <= before || known.Report.Refused != nil {
		t.Errorf("the counter is %d after %d (refused: %+v)", known.Counter, before, known.Report.Refused)
	}
	// A device that was enrolled after the backup is unknown now and runs on. It
	// is the same again once somebody wants that: with its key, and above its
	// counter.
	late.await("that it is unknown", func() bool { return late.server().Code == protocol.CodeUnknownDevice })
	late.runs("1", "demo-app")
	late.introduce()
	late.told("enrolled again", func() error {
		_, err := late.Exec(late.patient(), "device-updater", "enrol")
		return err
	})
}
