package firmware

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/test/microcontroller/bench"
	"aptfleet/test/rig"
)

// programs is where the microcontroller and its hook lie.
var programs string

// victimEnv makes this program an updater that converges once: one that can be
// killed.
const victimEnv = "APTFLEET_FIRMWARE_VICTIM"

func TestMain(m *testing.M) {
	if spec := os.Getenv(victimEnv); spec != "" {
		os.Exit(victim(spec))
	}
	os.Exit(rig.Main("aptfleet-firmware-", "", bench.Programs, func(dir string) (int, error) {
		programs = dir
		return m.Run(), nil
	}))
}

// victim converges in the situation root:dir:deployment.
func victim(spec string) int {
	var s Situation
	part := strings.Split(spec, ":")
	if _, err := fmt.Sscan(part[2], &s.Deployment); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	c := Converger{Root: part[0], Dir: part[1], Revision: func(context.Context) (string, error) { return part[3], nil }, Clock: time.Now}
	if _, err := c.Converge(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// device is a device with a microcontroller and two deployments or more, each
// of which brings a version of the firmware for A1 and for B2.
type device struct {
	*bench.Bench
	t        *testing.T
	dir      string
	revision string // that the device knows; "": the board's own
	unsure   error  // why the device does not know it
	now      time.Time
}

func newDevice(t *testing.T, revision string) *device {
	t.Helper()
	dir := t.TempDir()
	d := &device{t: t, dir: dir, now: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), Bench: &bench.Bench{
		Program: filepath.Join(programs, "microcontroller"), Dir: filepath.Join(dir, "board"), Revision: revision,
	}}
	for _, sub := range []string{"board", "updater/logs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Factory("1.0"); err != nil {
		t.Fatal(err)
	}
	d.release(1, "1.0")
	d.release(2, "2.0")
	t.Setenv("MCU_TTY", d.TTY())
	d.on()
	t.Cleanup(func() {
		if _, err := d.Flashed(); err != nil {
			t.Error(err)
		}
		if err := d.Cut(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *device) on() {
	d.t.Helper()
	if err := d.On(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) cut() {
	d.t.Helper()
	if err := d.Cut(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) root(n int) string { return filepath.Join(d.dir, fmt.Sprint("deployment-", n)) }

// release makes deployment n one whose firmware is of a version. change edits
// the descriptor.
func (d *device) release(n int, version string, change ...string) {
	d.t.Helper()
	text := "component: mcu\nhook: /usr/lib/board/flash\nreversible: true\ntimeout: 20s\nimages:\n"
	files := map[string][]byte{}
	for _, revision := range []string{"A1", "B2"} {
		image, err := bench.Image(revision, version)
		if err != nil {
			d.t.Fatal(err)
		}
		files["usr/lib/board/"+revision] = image
		text += fmt.Sprintf("  - revisions: [%s]\n    image: /usr/lib/board/%s\n    version: %q\n", revision, revision, version)
	}
	files[Dir+"/mcu.yaml"] = []byte(strings.NewReplacer(change...).Replace(text))
	for name, content := range files {
		path := filepath.Join(d.root(n), name)
		err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, content, 0o644))
		if err != nil {
			d.t.Fatal(err)
		}
	}
	hook := filepath.Join(d.root(n), "usr/lib/board/flash")
	if _, err := os.Lstat(hook); err == nil {
		return
	}
	if err := os.Symlink(filepath.Join(programs, "flash"), hook); err != nil {
		d.t.Fatal(err)
	}
}

// hook puts a script in the place of the hook of deployment n.
func (d *device) hook(n int, text string) {
	d.t.Helper()
	path := filepath.Join(d.root(n), "usr/lib/board/flash")
	err := os.Remove(path)
	if err == nil {
		err = os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// converge converges as the updater of deployment n.
func (d *device) converge(n int, change ...func(*Situation)) ([]Change, error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	s := Situation{Deployment: n, Release: fmt.Sprint("state-", n)}
	for _, c := range change {
		c(&s)
	}
	c := Converger{Root: d.root(n), Dir: filepath.Join(d.dir, "updater"), Clock: func() time.Time { return d.now }, Revision: func(context.Context) (string, error) {
		if d.unsure != nil {
			return "", d.unsure
		}
		if d.revision == "" {
			return d.Revision, nil
		}
		return strings.TrimPrefix(d.revision, "-"), nil
	}}
	return c.Converge(ctx, s)
}

// must is converge that must not fail.
func (d *device) must(n int, change ...func(*Situation)) {
	d.t.Helper()
	if _, err := d.converge(n, change...); err != nil {
		d.t.Errorf("deployment %d: %v", n, err)
	}
}

func trial(s *Situation)  { s.Trial = true }
func person(s *Situation) { s.Person = true }

// has checks what is in the flash, and what the book says about it. why "*" is
// any reason.
func (d *device) has(flashed, wanted, why string) {
	d.t.Helper()
	got, err := d.Flashed()
	if err != nil || got != flashed {
		d.t.Errorf("its flash holds %q, want %q (%v)", got, flashed, err)
	}
	c := d.entry()
	if c.Wanted != wanted || why != "*" && (c.Why == "") != (why == "") || why != "*" && !strings.Contains(c.Why, why) {
		d.t.Errorf("the book says %+v, want %q because of %q", c, wanted, why)
	}
}

func (d *device) book() Book {
	d.t.Helper()
	b, err := Read(filepath.Join(d.dir, "updater"))
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

func (d *device) entry() Component {
	d.t.Helper()
	for _, c := range d.book().Components {
		if c.Name == "mcu" {
			return c
		}
	}
	return Component{}
}

// results are those of the acts, oldest first.
func (d *device) results() string {
	d.t.Helper()
	var all []string
	for _, a := range d.book().Acts {
		all = append(all, fmt.Sprintf("%s→%s %s", a.From, a.To, a.Result))
	}
	return strings.Join(all, ", ")
}

// killed starts the updater of deployment n in a process of its own, and cuts
// the power of everything a while after something was the case; nil is at once.
func (d *device) killed(n int, when func() bool, after time.Duration) {
	d.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%s:%d:%s", victimEnv, d.root(n), filepath.Join(d.dir, "updater"), n, d.Revision))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	for when != nil && !when() {
		select {
		case <-ended:
			d.t.Fatal("the updater came to its end")
		case <-time.After(time.Millisecond):
		}
	}
	time.Sleep(after)
	// The microcontroller first: the hook must not see the processor go.
	d.cut()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Fatal(err)
	}
	<-ended
}

// half reports whether a flash is under way.
func (d *device) half() bool {
	d.t.Helper()
	got, err := d.Flashed()
	if err != nil {
		d.t.Fatal(err)
	}
	return got == "half"
}
