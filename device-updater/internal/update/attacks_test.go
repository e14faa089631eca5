package update

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/test/order"
)

// TestInstallationAttacks are releases whose packages do what they must not.
// Each meets the same device; in the end nothing of it has changed.
func TestInstallationAttacks(t *testing.T) {
	b := newBench(t, 2<<30)
	before := b.describe()
	// Other programs may unmount meanwhile: that is seen here, what they mount is
	// not.
	mounts := slices.Collect(strings.Lines(b.read("/proc/self/mounts")))
	// Marks tell what belongs to this test among the processes of the machine.
	mark := 1_000_000 + time.Now().UnixNano()%1_000_000
	sleep := fmt.Sprintf("sleep %d", mark)
	for _, a := range []struct {
		name    string
		app     apttest.Package
		more    []apttest.Package
		timeout time.Duration
		says    string // of the error; "": it is staged
		blamed  bool
		staged  func(t *testing.T)
	}{
		{name: "fails", app: app("echo no >&2; exit 3"), says: "app (--configure)", blamed: true},
		{name: "hangs", app: app("setsid " + sleep + " & " + sleep + " & exec " + sleep), timeout: 8 * time.Second, says: "it took more than 8s", blamed: true},
		{name: "forks for ever", app: app("f() { f; }; (while :; do :; done) & " + sleep), timeout: 8 * time.Second, says: "it took more than 8s", blamed: true},
		{
			name: "starts services",
			app: app(`systemctl start app.service || true; service app start || true
				mkdir -p /etc/init.d; printf '#!/bin/sh\n` + sleep + `\n' >/etc/init.d/app; chmod 755 /etc/init.d/app
				invoke-rc.d app start || true; deb-systemd-invoke start app.service || true
				start-stop-daemon --start --background --exec /bin/` + sleep[:5] + ` -- ` + sleep[6:] + `
				setsid ` + sleep + ` >/dev/null 2>&1 </dev/null &
				echo "$$" >/run/app.pid`),
			staged: func(t *testing.T) {
				if _, err := os.Lstat(b.staged("run/app.pid")); err == nil {
					t.Error("/run is in the deployment")
				}
			},
		},
		{name: "writes outside", app: app(b.escapes()), staged: func(t *testing.T) {
			if text, err := os.ReadFile(b.staged("escaped")); err != nil || string(text) != "tried\n" {
				t.Errorf("it could do this: %s(%v)", text, err)
			}
		}},
		{
			name: "asks", app: apttest.Package{
				Name: "app", Fields: "Depends: debconf\n", Files: map[string]string{},
				Templates: "Template: app/colour\nType: select\nChoices: red, green\nDefault: green\nDescription: Which colour?\n Say.\n",
				Scripts: map[string]string{
					"config":   ". /usr/share/debconf/confmodule; db_input critical app/colour || true; db_go || true",
					"postinst": `. /usr/share/debconf/confmodule; db_get app/colour; echo "$RET" >/etc/colour`,
				},
			}, timeout: 30 * time.Second,
			staged: func(t *testing.T) {
				if got := b.read(b.staged("etc/colour")); got != "green\n" {
					t.Errorf("the answer is %q", got)
				}
			},
		},
		{name: "asks without debconf", app: app("read answer || answer=none; read other </dev/tty || true; echo \"$answer\" >/etc/colour"), timeout: 30 * time.Second, staged: func(t *testing.T) {
			if got := b.read(b.staged("etc/colour")); got != "none\n" {
				t.Errorf("the answer is %q", got)
			}
		}},
		{
			name: "removes the updater", app: app("true"),
			more: []apttest.Package{{Name: "device-updater", Version: "2", Files: map[string]string{"usr/share/doc/device-updater/README": "gone\n"}}},
			says: "there is no /usr/bin/device-updater in it", blamed: true,
		},
		{name: "deletes the updater", app: app("rm /usr/bin/device-updater"), says: "/usr/bin/device-updater of device-updater is not as the package has it", blamed: true},
		{name: "fills memory", app: app("kill -KILL $$"), says: "too little memory"},
		{name: "kills apt", app: app("for p in /proc/[0-9]*; do if [ \"$(cat $p/comm)\" = apt-get ]; then kill -KILL ${p#/proc/}; fi; done; sleep 5"), says: "too little memory"},
	} {
		t.Run(a.name, func(t *testing.T) {
			b.ship(a.app, a.more...)
			b.machine.Settings.InstallTimeout = 5 * time.Minute
			if a.timeout > 0 {
				b.machine.Settings.InstallTimeout = a.timeout
			}
			err := b.machine.Update(t.Context(), Options{})
			switch {
			case a.says == "" && err != nil:
				text, _ := os.ReadFile(b.machine.Records.Log(b.machine.Journal.Last().Deployment))
				t.Fatalf("%v\n%s", err, text[max(0, len(text)-2000):])
			case a.says != "" && (err == nil || !strings.Contains(err.Error(), a.says)):
				t.Fatalf("got %v, want an error with %q", err, a.says)
			}
			if a.staged != nil {
				a.staged(t)
			}
			if got := b.failed(); (got != "") != a.blamed {
				t.Errorf("remembered against the release: %q", got)
			}
			if left := processes(t, strconv.FormatInt(mark, 10)); len(left) > 0 {
				t.Errorf("still there: %v", left)
			}
			for line := range strings.Lines(b.read("/proc/self/mounts")) {
				if !slices.Contains(mounts, line) {
					t.Errorf("still mounted: %s", line)
				}
			}
			if a.says == "" {
				return
			}
			for _, dir := range []string{"base", "pristine"} {
				if names, err := b.roots.List(dir); err != nil || len(names) > 0 {
					t.Errorf("left in %s: %v, %v", dir, names, err)
				}
			}
			var refused *Refused
			if err := b.machine.Update(t.Context(), Options{Patient: true}); errors.As(err, &refused) != a.blamed {
				t.Errorf("the next check: %v", err)
			}
		})
	}
	// Too little memory again and again, for hours: then it is the release.
	b.ship(app("kill -KILL $$"))
	var later time.Duration
	b.machine.Clock = func() time.Time { return time.Now().Add(later) }
	for i := range starvedOften {
		later = time.Duration(i) * starvedLong
		if err := b.machine.Update(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "too little memory") {
			t.Fatal(err)
		}
		if blamed := b.failed() != ""; blamed != (i == starvedOften-1) {
			t.Errorf("after %d times it is blamed: %v", i+1, blamed)
		}
	}
	if after := b.describe(); after != before {
		t.Error("the running root has changed")
	}
	b.ship(app("true"))
	if err := b.machine.Update(t.Context(), Options{}); err != nil {
		t.Errorf("a good release after all that: %v", err)
	}
}

// describe lists the files of the running root.
func (b *bench) describe() string {
	b.t.Helper()
	var text strings.Builder
	if err := rootfs.WriteManifest(b.t.Context(), &text, b.booted(""), nil); err != nil {
		b.t.Fatal(err)
	}
	return text.String()
}

// escapes is a script that tries to reach what is not in its root, and writes
// into /escaped what it could do.
func (b *bench) escapes() string {
	b.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(b.disk, &st); err != nil {
		b.t.Fatal(err)
	}
	u, err := url.Parse(b.fleet.archive.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		b.t.Fatal(err)
	}
	marker := filepath.Join(b.t.TempDir(), "marker")
	if err := os.WriteFile(marker, []byte("outside\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return strings.NewReplacer("MAJOR", fmt.Sprint(unix.Major(st.Rdev)), "MINOR", fmt.Sprint(unix.Minor(st.Rdev)), "HOST", host, "PORT", port, "MARKER", marker, "TOP", b.top).Replace(`
		set +e
		exec 2>/dev/null
		echo tried >/escaped
		could() { what=$1; shift; if "$@"; then echo "$what" >>/escaped; fi; }
		could "see the deployments" test -e /sysroot/deployments
		could "see the machine's files" test -e MARKER
		could "see the top" test -e TOP/updater
		could "see it as another process does" test -e /proc/1/root/MARKER
		mkdir -p /outside
		could "mount devices" mount -t devtmpfs none /outside
		could "mount the disk" sh -c 'mknod /disk b MAJOR MINOR && mount -t btrfs /disk /outside'
		could "read the disk" sh -c 'dd if=/disk of=/dev/null bs=512 count=1'
		could "read the disk in /dev" sh -c 'mknod /dev/disk b MAJOR MINOR && dd if=/dev/disk of=/dev/null bs=512 count=1'
		could "read the disk in /run" sh -c 'mknod /run/disk b MAJOR MINOR && dd if=/run/disk of=/dev/null bs=512 count=1'
		could "make the root hold devices" mount -o remount,bind,dev /
		could "mount in a namespace" unshare -m mount -t tmpfs none /outside
		could "mount devices as another user" unshare -r -m mount -t devtmpfs none /outside
		could "change the mode of /dev/null" chmod 600 /dev/null
		could "change the owner of /dev/null" chown 1 /dev/null
		could "change settings of the kernel" sh -c 'cat /proc/sys/vm/swappiness >/proc/sys/vm/swappiness'
		could "reach the magic key" sh -c 'exec 9>/proc/sysrq-trigger'
		could "write into /sys" sh -c 'exec 9>/sys/power/state'
		could "make /sys writable" mount -o remount,rw /sys
		could "make /proc/sys writable" mount -o remount,bind,rw /proc/sys
		could "set the clock" date -s "$(date)"
		could "name the machine" hostname "$(hostname)"
		could "take over the first process" test -r /proc/1/environ -a -e /proc/1/exe
		could "protect itself from the kernel" sh -c 'echo -1000 >/proc/self/oom_score_adj'
		could "reach the network" perl -MIO::Socket::INET -e 'exit(IO::Socket::INET->new(PeerAddr => "HOST", PeerPort => PORT, Timeout => 2) ? 0 : 1)'
		could "climb out of a chroot" perl -e 'mkdir "/hole"; opendir D, "/"; chroot "/hole"; chdir D; chdir ".." for 1 .. 64; chroot "."; exit(-e "MARKER" ? 0 : 1)'
		rm -rf /disk /hole /outside
		set -e`)
}

// processes returns the command lines on this machine with a word in them.
func processes(t *testing.T, word string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), word) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// TestFullDiskAtEachPhase: the disk is filled when a phase begins. The update is
// refused or given up, nothing is lost or held against the release, and it goes
// on when there is room.
func TestFullDiskAtEachPhase(t *testing.T) {
	b := newBench(t, 1<<30)
	before := b.describe()
	leaves := []int64{0}
	phases := []journal.Phase{journal.Install, journal.Verify, journal.Finalise}
	if order.Long() {
		leaves = []int64{0, 256 << 10, 1 << 20, 8 << 20, 40 << 20}
		phases = []journal.Phase{journal.Check, journal.Preflight, journal.Download, journal.Snapshot, journal.Install, journal.Verify, journal.Staged, journal.Finalise}
	}
	for _, phase := range phases {
		for _, leave := range leaves {
			t.Run(fmt.Sprintf("%s, %d KB", phase, leave>>10), func(t *testing.T) {
				big := app("true")
				big.Files["usr/share/app/data"] = strings.Repeat(fmt.Sprintf("%d %s\n", leave, phase), 2<<20)
				b.ship(big)
				var empty func()
				b.machine.Notify = func(s Status) {
					if s.Phase == string(phase) && empty == nil {
						empty = b.fill(leave)
					}
				}
				err := b.machine.Update(t.Context(), Options{Reboot: true})
				b.machine.Notify = nil
				if empty == nil {
					t.Fatalf("it never came to %s: %v", phase, err)
				}
				t.Logf("%v", err)
				if reason := b.failed(); reason != "" {
					t.Errorf("held against the release: %s", reason)
				}
				if d, err := b.Default(); err != nil || d.Committed != 1 {
					t.Errorf("committed: %+v, %v", d, err)
				}
				if after := b.describe(); after != before {
					t.Error("the running root has changed")
				}
				if err != nil && b.rebooting {
					t.Errorf("it reboots after %v", err)
				}
				empty()
				if !b.rebooting {
					// As the daemon does: what is open is brought to an end.
					if err := b.machine.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
					if err := b.machine.Update(t.Context(), Options{Reboot: true}); err != nil || !b.rebooting {
						t.Fatalf("with room again: %v, rebooting: %v", err, b.rebooting)
					}
				}
				// Back to where it began.
				b.bad = "only a test"
				b.reboot()
				if b.current == 1 || !b.rebooting {
					t.Fatalf("it runs %d after the switch, rebooting: %v", b.current, b.rebooting)
				}
				b.reboot()
				b.bad = ""
				if b.current != 1 {
					t.Fatalf("it runs %d", b.current)
				}
			})
		}
	}
	if after := b.describe(); after != before {
		t.Error("the running root has changed")
	}
}
