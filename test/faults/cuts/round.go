package cuts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/lossydisk"
)

// record is a line of the updater's journal, as far as it is judged.
type record struct {
	Seq        int    `json:"seq"`
	Phase      string `json:"phase"`
	Deployment int    `json:"deployment"`
	Bad        bool   `json:"bad"`
}

// readJournal returns the whole records of a mounted device. A torn last line
// is none.
func readJournal(top string) ([]record, error) {
	content, err := os.ReadFile(filepath.Join(top, "updater/journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []record
	lines := bytes.SplitAfter(content, []byte("\n"))
	for i, line := range lines {
		var r record
		if err := json.Unmarshal(line, &r); err != nil || !bytes.HasSuffix(line, []byte("\n")) {
			if i >= len(lines)-2 {
				break
			}
			return nil, fmt.Errorf("line %d of the journal is damaged: %q", i+1, line)
		}
		all = append(all, r)
	}
	return all, nil
}

// mark is a moment of a recording that the updater told of: it was passed when
// that many events, or fewer, had been recorded.
type mark struct {
	name string
	at   int
}

// journalMark is what the mark of a journal record begins with: it was written
// and synced. Others name other states, as "firmware:…", until the next mark.
const journalMark = "journal:"

// round is one undisturbed update, and what is needed to judge images of it.
type round struct {
	number    int // of the release that it is about
	bad       bool
	from, to  int // deployments
	previous  int // of from, -1 for none
	recording *lossydisk.Recording
	marks     []mark
	before    int // records of the journal before it began
	settled   int // events, until which files of the old root had not been edited
	edited    int // events, from which on they had

	asBegun, asEdited files // the old root
	asMade, asKept    files // the new one, and as it is once it is committed
	state, seeded     files // what outlives releases and is of no unit, before and after

	dataBegun, dataEdited, dataMade files // the state unit
}

// settings is the configuration of a device that boots what is staged only on
// request.
func (w *world) settings() string {
	return strings.Join([]string{
		"archive: " + w.archive.url, "pipeline: " + pipeline, "distribution: " + distribution, "follow: " + stage,
		"components: [" + component + "]", "packages: [" + product + "]", "keyring: " + lent + "/keyring.asc",
		"revision: " + revision, "poll: 0s", "reboot: manual", "trial: {tries: 3, timeout: 60s, observe: 0s}", "",
	}, "\n")
}

// updater is a command line of the updater in a device.
func updater(args string) string {
	return "device-updater --config " + lent + "/device.yaml " + args
}

// mountState precedes everything else in each boot.
var mountState = updater("mount-state")

// mountedMark is that of a boot in which the state is mounted.
const mountedMark = "mounted"

// start boots deployment n of a mounted device.
func (w *world) start(ctx context.Context, d *device, n int, trace bool, random *rand.Rand, commands ...string) (reboots bool, out string, err error) {
	b := boot{
		Root: deploymentRoot(d.top(), n), Top: d.top(), Control: d.control(), Lend: w.lend, Updater: w.Program,
		Commands: slices.Concat([]string{mountState, startApplication}, commands),
	}
	if trace {
		b.Env = []string{"APTFLEET_FAULT_TRACE=" + lent + "/trace"}
		b.Commands[0] += " && echo " + mountedMark + " >" + lent + "/trace"
	}
	return b.start(ctx, random)
}

// tracer notes what the updater passes.
type tracer struct {
	fifo  *os.File
	marks chan mark
	ended chan struct{}
}

const lastMark = "the end"

func trace(path string, at func() int) (*tracer, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	// For reading and writing: it never ends by itself, and nobody waits.
	fifo, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	t := &tracer{fifo: fifo, marks: make(chan mark, 10_000), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		lines := bufio.NewScanner(fifo)
		for lines.Scan() && lines.Text() != lastMark {
			t.marks <- mark{lines.Text(), at()}
		}
	}()
	return t, nil
}

// stop returns the marks of processes that have ended.
func (t *tracer) stop() ([]mark, error) {
	_, err := t.fifo.WriteString(lastMark + "\n")
	<-t.ended
	close(t.marks)
	var all []mark
	for m := range t.marks {
		all = append(all, m)
	}
	return all, errors.Join(err, t.fifo.Close())
}

// edits are what an administrator changes while release n is staged, by path: a
// configuration file that the release has too, and others.
func edits(n int) map[string]string {
	return map[string]string{
		"etc/app.conf":              fmt.Sprintf("edited while %d was staged\n", n),
		"etc/local.conf":            strings.Repeat(fmt.Sprintf("of this machine, at %d\n", n), 50),
		fmt.Sprintf("etc/at-%d", n): filling(fmt.Sprint(n), 20_000),
	}
}

// edit makes the changes in the root of a deployment, and lets the application
// write, durably.
func edit(top string, deployment, n int) error {
	for path, content := range edits(n) {
		if err := os.WriteFile(filepath.Join(deploymentRoot(top, deployment), path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(writeRow(top, n), atomicfile.SyncFS(top))
}

// play does one update, undisturbed, and records it. The world's disk is
// afterwards as that leaves it.
func (w *world) play(ctx context.Context, number int, bad bool) (_ *round, err error) {
	if _, err := w.archive.release(ctx, filepath.Join(w.dir, fmt.Sprint("release-", number)), stateID(number), packages(number, bad)); err != nil {
		return nil, err
	}
	d, err := attach(ctx, w.disk, w.live)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	boots := func(want string) (bootcontrol.Decision, error) {
		decision, err := d.on(ctx)
		if err == nil && want != "" && decision.String() != want {
			err = fmt.Errorf("it should %s, and the loader says %s (%s)", want, decision, decision.Reason)
		}
		return decision, err
	}
	began, err := boots("")
	if err != nil {
		return nil, err
	}
	r := &round{number: number, bad: bad, from: began.Deployment, previous: -1, recording: w.disk.Record()}
	defer r.recording.Stop()
	tracer, err := trace(filepath.Join(w.lend, "trace"), r.recording.Len)
	if err != nil {
		return nil, err
	}
	defer func() {
		var e error
		r.marks, e = tracer.stop()
		err = errors.Join(err, e)
	}()
	root := func(n int) string { return deploymentRoot(d.top(), n) }
	if r.asBegun, err = readFiles(root(r.from)); err != nil {
		return nil, err
	}
	if r.state, r.dataBegun, err = readState(d.top()); err != nil {
		return nil, err
	}
	if known, err := d.block(bootcontrol.CommittedFile); err == nil && known["previous"] != "" {
		if _, err := fmt.Sscan(known["previous"], &r.previous); err != nil {
			return nil, err
		}
	}
	journal, err := readJournal(d.top())
	if err != nil {
		return nil, err
	}
	r.before = len(journal)
	run := func(n int, reboots bool, command string) error {
		again, out, err := w.start(ctx, d, n, true, w.random, command)
		if err == nil && again != reboots {
			err = fmt.Errorf("reboots: %v, want %v: %s", again, reboots, out)
		}
		if err != nil {
			return fmt.Errorf("undisturbed update to release %d, %s: %w", number, command, err)
		}
		return nil
	}
	if err := run(r.from, false, updater("update")); err != nil {
		return nil, err
	}
	r.settled = r.recording.Len()
	if err := edit(d.top(), r.from, number); err != nil {
		return nil, err
	}
	r.edited = r.recording.Len()
	if r.asEdited, err = readFiles(root(r.from)); err != nil {
		return nil, err
	}
	if _, r.dataEdited, err = readState(d.top()); err != nil {
		return nil, err
	}
	if err := run(r.from, true, updater("update --reboot")); err != nil {
		return nil, err
	}
	if err := d.off(); err != nil {
		return nil, err
	}
	tried, err := boots("")
	if err != nil || !tried.Trial {
		return nil, errors.Join(fmt.Errorf("release %d is not on trial: %s (%s)", number, tried, tried.Reason), err)
	}
	r.to = tried.Deployment
	if r.asMade, err = readFiles(root(r.to)); err != nil {
		return nil, err
	}
	if err := r.sound(); err != nil {
		return nil, err
	}
	if err := run(r.to, bad, updater("check")); err != nil {
		return nil, err
	}
	if bad {
		if err := d.off(); err != nil {
			return nil, err
		}
		if _, err := boots(fmt.Sprintf("boot %d", r.from)); err != nil {
			return nil, err
		}
		if err := run(r.from, false, updater("check")); err != nil {
			return nil, err
		}
	}
	if r.seeded, r.dataMade, err = readState(d.top()); err != nil {
		return nil, err
	}
	runs := r.from
	if !bad {
		runs = r.to
		if r.asKept, err = readFiles(root(r.to)); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(r.soundKept(), r.soundData(d.top(), runs)); err != nil {
		return nil, err
	}
	return r, d.off()
}

// sound says whether the undisturbed update did what it is for: what images are
// compared with must not be wrong itself.
func (r *round) sound() error {
	same := func(path string) bool { return r.asMade[path] == r.asEdited[path] }
	kernel := fmt.Sprintf("/boot/vmlinuz-6.1.0-%d", r.number)
	switch {
	case r.asBegun.difference(r.asEdited) == "":
		return errors.New("nobody edited /etc")
	case !same("/etc/app.conf") || !same("/etc/local.conf"):
		return errors.New("the new deployment lacks what was edited")
	case !r.besides(fmt.Sprintf("of = %d.0\n", r.number)):
		return errors.New("the new deployment lacks the release's own configuration")
	case same("/usr/share/app/version") || r.asMade[kernel] == "" || r.asEdited[kernel] != "" || same("/boot/aptfleet/entry.cfg"):
		return errors.New("the new deployment is not of the release")
	}
	return nil
}

// besides reports whether the release's own configuration lies beside the one
// that was edited: dpkg puts it there if it had been edited before, the merge
// otherwise.
func (r *round) besides(content string) bool {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	return strings.Contains(r.asMade["/etc/app.conf.aptfleet-new"], sum) || strings.Contains(r.asMade["/etc/app.conf.dpkg-dist"], sum)
}

// soundKept is sound for what a commit changes: it takes away what limits the
// trial, and nothing else.
func (r *round) soundKept() error {
	for path, was := range r.asMade {
		if !r.bad && r.asKept[path] != was && !strings.HasPrefix(path, "/etc/systemd/system.conf.d/") {
			return fmt.Errorf("the commit makes %q of %s, which was %q", r.asKept[path], path, was)
		}
	}
	if len(r.asKept) > len(r.asMade) {
		return errors.New("the commit brings files")
	}
	return nil
}

// soundData is sound for what outlives releases, once the update is over and
// deployment n runs.
func (r *round) soundData(top string, n int) error {
	changed := epochOf(r.number) != epochOf(runsBefore(r.number))
	fits, err := flashed(top, n)
	switch {
	case err != nil:
		return err
	case !fits:
		return fmt.Errorf("the firmware is not that of deployment %d", n)
	case r.dataBegun.difference(r.dataEdited) == "":
		return errors.New("the application wrote nothing")
	case r.bad && r.dataMade.difference(r.dataEdited) != "":
		return fmt.Errorf("the old release does not read its old data: %s", r.dataMade.difference(r.dataEdited))
	case !r.bad && changed == (r.dataMade[unitPlaces[1]] == r.dataEdited[unitPlaces[1]]):
		return fmt.Errorf("the epoch changes: %v, and the data do the opposite", changed)
	}
	return nil
}

// old returns what the old root is behind the first n events.
func (r *round) old(n int) files {
	if n <= r.settled {
		return r.asBegun
	}
	return r.asEdited
}

// told is how many journal records were told to be on the disk within the first
// n events of the recording.
func (r *round) told(n int) int {
	count := 0
	for _, m := range r.marks {
		if m.at <= n && strings.HasPrefix(m.name, journalMark) {
			count++
		}
	}
	return count
}

// passed reports whether the record of a phase was told to be on the disk within
// the first n events.
func (r *round) passed(phase string, n int) bool {
	return slices.ContainsFunc(r.marks, func(m mark) bool { return m.at <= n && m.name == journalMark+phase })
}

// during is a state that is not the journal's, behind the first n events; "" if
// there is none.
func (r *round) during(n int) string {
	state := ""
	for _, m := range r.marks {
		if m.at > n {
			break
		}
		state = ""
		if kind, _, ok := strings.Cut(m.name, ":"); ok && slices.Contains(besideJournal, kind) {
			state = kind
		}
	}
	return state
}
