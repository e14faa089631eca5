package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// ledger is the application of releases whose name begins with "db": its
// database has a format, which its package declares as epoch. It adds a line
// when it starts and another one when it stops; so the last that it writes is
// written while the device shuts down. A version of it that meets a database
// which it did not leave like that, or of a later format, does not start.
func ledger(version, format string) sample {
	s := app("demo-app", version)
	return s.file("/usr/lib/aptfleet/state.d/demo-app.conf", "path /opt/ledger/data\nunit ledger "+format+" /var/lib/ledger /opt/ledger/data\n").
		file("/usr/lib/tmpfiles.d/demo-app.conf", "v /opt/ledger/volume 0755 - - -\n").
		file("/opt/ledger/program", version+"\n").
		file("/opt/ledger/data/template", "template of "+version+"\n").
		file(appUnit, service("ExecStart="+appRun, "ExecStop=/usr/lib/demo-app/stop", "StateDirectory=ledger demo")).
		executable("/usr/lib/demo-app/stop", "#!/bin/sh\nset -e\ncd /var/lib/ledger\necho 'closed by "+version+"' >>db\nsha256sum db >/var/lib/demo/left-by-"+format+"\nsync\n").
		executable(appRun, `#!/bin/sh
set -e
cd /var/lib/ledger
found=$(sed -n '1s/format //p' db 2>/dev/null || true)
case "$found" in
"") echo "format `+format+`" >db; chmod 0640 db; chown 0:4 db ;;
`+format+`) [ ! -e /var/lib/demo/left-by-`+format+` ] || sha256sum -c /var/lib/demo/left-by-`+format+` ;;
*) [ "$found" -lt `+format+` ] || { echo "cannot read format $found"; exit 1; }
   sed -i '1s/.*/format `+format+`/; 2,$s/$/ (converted)/' db ;;
esac
echo "opened by `+version+`" >>db
echo `+version+` >>/opt/ledger/data/rows
exec sleep infinity
`)
}

// database is what the application has, as it lies on the disk.
func (d *fielded) database() string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Top(), "state/var-lib/ledger/db"))
	if err != nil {
		d.t.Error(err)
	}
	return string(b)
}

func (d *fielded) says(want string, argv ...string) {
	d.t.Helper()
	if out, err := d.Exec(d.patient(), argv...); err != nil || strings.TrimSpace(out) != want {
		d.t.Errorf("%v says %q (%v), want %q", argv, out, err, want)
	}
}

// onLedger is a device that runs the first version of the application.
func onLedger(t *testing.T, change ...func(*fielded)) *fielded {
	t.Helper()
	d := newDevice(t, change...)
	d.on()
	d.promote("db-1")
	d.awaitCommit("db-1")
	return d
}

// goesBack lets a release that changes the format fail, and the application reads
// its old database, byte for byte with what it wrote last when it was stopped.
func goesBack(t *testing.T, release string, change ...func(*fielded)) {
	t.Helper()
	d := onLedger(t, change...)
	d.promote(release)
	d.awaitRollback(release)
	d.runs("1", "demo-app")
	if got, want := d.database(), "format 1\nopened by 1.1\nclosed by 1.1\nopened by 1.1\n"; got != want {
		t.Errorf("it reads\n%swant\n%s", got, want)
	}
	d.says("640 0:4", "stat", "-c", "%a %u:%g", "/var/lib/ledger/db")
	d.says("1.1\n1.1", "cat", "/opt/ledger/data/rows")
	d.says("template of 1.1", "cat", "/opt/ledger/data/template")
	d.says("1.1", "cat", "/opt/ledger/program")
	d.await("what was kept of the release that failed be gone", func() bool {
		// The deployment before did not declare the unit, and may come back.
		left, err := filepath.Glob(filepath.Join(d.Top(), "kept/*/*"))
		return err == nil && len(left) == 1 && strings.HasSuffix(left[0], "kept/1/ledger")
	})
}

func TestAnApplicationReadsItsOldDataAfterATrialThatFailed(t *testing.T) {
	t.Parallel()
	goesBack(t, "db-2-unhealthy")
}

func TestAnApplicationReadsItsOldDataAlsoIfTheNewUpdaterNeverRan(t *testing.T) {
	t.Parallel()
	// PID 1 ends the trial after a time in which a good release is committed on
	// a busy machine, too.
	goesBack(t, "db-2-no-updater", func(d *fielded) { d.trial = trial{Tries: 1, Timeout: "45s", Observe: "3s"} })
}

func TestARollbackAcrossAnEpochSaysWhatWouldBeLost(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package rootfs cuts such a rollback at every step")
	}
	t.Parallel()
	d := onLedger(t)
	d.promote("db-2")
	d.awaitCommit("db-2")
	d.runs("2", "demo-app")
	if got, want := d.database(), "format 2\nopened by 1.1 (converted)\nclosed by 1.1 (converted)\nopened by 2.2\n"; got != want {
		t.Errorf("it reads\n%swant\n%s", got, want)
	}
	if out, err := d.Exec(d.patient(), "cat", "/opt/ledger/program", "/opt/ledger/data/template"); err != nil || out != "2.2\ntemplate of 1.1\n" {
		t.Errorf("program and seed: %q, %v", out, err)
	}
	out, err := d.Exec(d.patient(), "sh", "-c", "device-updater rollback 2>&1; echo status $?")
	if err != nil || !strings.Contains(out, "status 3") || !strings.Contains(out, "state unit ledger, epoch 2) would be lost") ||
		!strings.Contains(out, "what was written to /opt/ledger/data /var/lib/ledger since ") || !strings.Contains(out, "--restore-state") {
		t.Errorf("rollback: %v\n%s", err, out)
	}
	if d.committed() != d.lastBoot().Deployment || d.phase() != "IDLE" {
		t.Errorf("it began nevertheless: %+v", d.journal())
	}
	if out, err := d.Exec(d.patient(), "device-updater", "status"); err != nil || !strings.Contains(out, "state\tledger of epoch 2 since ") || !strings.Contains(out, "kept\tledger of epoch 1, as deployment ") {
		t.Errorf("status: %v\n%s", err, out)
	}
	if _, err := d.Exec(d.patient(), "device-updater", "rollback", "--restore-state"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("db-1")
	d.runs("1", "demo-app")
	if got, want := d.database(), "format 1\nopened by 1.1\nclosed by 1.1\nopened by 1.1\n"; got != want {
		t.Errorf("it reads\n%swant\n%s", got, want)
	}
	var report protocol.Report
	d.await("status name what was undone", func() bool { report = d.status(); return len(report.Failed) == 1 })
	if out, err := d.Exec(d.patient(), "sh", "-c", "cat /sysroot/kept/*/ledger/state/var-lib/ledger/db"); err != nil || !strings.HasSuffix(out, "opened by 2.2\nclosed by 2.2\n") {
		t.Errorf("what was put aside: %v\n%s", err, out)
	}
}

func TestASubvolumeInsideADeploymentIsPreventedAndReported(t *testing.T) {
	t.Parallel()
	d := onLedger(t)
	inode := func(path string) string {
		out, err := d.Exec(d.patient(), "stat", "-c", "%i", path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return strings.TrimSpace(out)
	}
	if inode("/opt/ledger/volume") == "256" {
		t.Error("systemd-tmpfiles made a subvolume of what its package declares")
	}
	// A person who does so nevertheless learns why no update comes.
	if _, err := d.Exec(d.patient(), "sh", "-c", "echo 'v /opt/nested' >/run/nested.conf && SYSTEMD_TMPFILES_FORCE_SUBVOL=1 systemd-tmpfiles --create /run/nested.conf"); err != nil {
		t.Fatal(err)
	}
	if inode("/opt/nested") != "256" {
		t.Fatal("no subvolume was made: this test is blind")
	}
	d.promote("db-2")
	d.await("the subvolume in status", func() bool {
		return strings.Contains(d.status().WhyNot, "/opt/nested is a subvolume of its own and would come out empty")
	})
	if _, err := d.Exec(d.patient(), "rmdir", "/opt/nested"); err != nil {
		t.Fatal(err)
	}
	d.awaitCommit("db-2")
}
