package product_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func (w *world) lookup(name string, state snapshots.ID, modules ...string) (product.Ready, product.Status, string) {
	return w.Lookup("demo", name, modules, state)
}

func TestLookup(t *testing.T) {
	w := newWorld(t)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}, Modules: map[string][]string{"lte": {"modem"}, "gps": {"other"}}})
	if _, status, reason := w.lookup("gateway", state, "lte", "gps"); status != product.Computing || reason == "" {
		t.Errorf("at first: %v %s", status, reason)
	}
	w.run()
	var ready product.Ready
	w.until("computed", func() bool {
		r, status, _ := w.lookup("gateway", state, "gps", "lte")
		ready = r
		return status == product.Computed
	})
	b := w.bom("gateway", state, "lte", "gps")
	if ready != (product.Ready{SHA256: b.SHA256, Size: int64(len(b.Text))}) {
		t.Errorf("ready is %+v, the bill %s", ready, b.SHA256)
	}
	events := w.told()
	if len(events) != 1 || events[0].State != state || events[0].Status != product.Computed || strings.Join(events[0].Modules, " ") != "gps lte" {
		t.Errorf("told %+v", events)
	}
	broken := w.state(pkg{"app 1", "Depends: nowhere\n"})
	w.until("a verdict", func() bool {
		_, status, reason := w.lookup("gateway", broken)
		return status == product.Failed && reason == "app : Depends: nowhere but it is not installable"
	})
	for _, c := range []struct{ product, module, says string }{{"nothing", "", "cannot find product"}, {"gateway", "radio", "cannot find module"}} {
		var modules []string
		if c.module != "" {
			modules = []string{c.module}
		}
		if _, status, reason := w.lookup(c.product, state, modules...); status != product.Failed || !strings.Contains(reason, c.says) {
			t.Errorf("%+v: %v %s", c, status, reason)
		}
	}
	if p, ok := w.Product("demo", "gateway"); !ok || p.Architecture != "amd64" {
		t.Errorf("product %+v, %v", p, ok)
	}
	if _, ok := w.Product("demo", "nothing"); ok {
		t.Error("there is a product that nobody made")
	}
}

// While uploads go on, states come and go faster than apt computes: only the
// newest counts, and what somebody still asks for.
func TestOnlyWhatIsWantedIsComputed(t *testing.T) {
	w := newWorld(t)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.create(product.Product{Name: "other", Packages: []string{"app"}})
	var states []snapshots.ID
	for i := range 10 {
		state := w.state(pkg{fmt.Sprintf("app %d", i+1), ""})
		states = append(states, state)
		w.lookup("gateway", state)
	}
	w.lookup("gateway", states[3]) // a device that is pinned
	w.lookup("other", states[0])
	// What a person wants to see first is no newer release.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.BOM(ctx, "demo", "gateway", nil, states[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("a person who left: %v", err)
	}
	w.run()
	w.until("three answers", func() bool { return len(w.told()) == 3 })
	time.Sleep(200 * time.Millisecond)
	var got []string
	for _, e := range w.told() {
		for i, state := range states {
			if state == e.State {
				got = append(got, fmt.Sprintf("%s %d", e.Product, i))
			}
		}
	}
	// What was asked for last comes first.
	if s := strings.Join(got, ", "); s != "other 0, gateway 3, gateway 9" {
		t.Errorf("computed %s", s)
	}
	// One that was left out is computed when it is wanted after all.
	w.until("another one", func() bool {
		_, status, _ := w.lookup("gateway", states[5])
		return status == product.Computed
	})
}

// Twenty ask for the same at once: apt runs once.
func TestEqualQuestionsAreOne(t *testing.T) {
	w := newWorld(t)
	dir := w.wrap(`echo run >> $DIR/runs; sleep 0.3`)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.run()
	var group sync.WaitGroup
	sums := make([]string, 20)
	for i := range sums {
		group.Go(func() {
			b, err := w.BOM(t.Context(), "demo", "gateway", nil, state)
			if err != nil {
				t.Error(err)
			}
			sums[i] = b.SHA256
		})
	}
	group.Wait()
	for _, sum := range sums {
		if sum == "" || sum != sums[0] {
			t.Errorf("sums %v", sums)
		}
	}
	if runs, err := os.ReadFile(filepath.Join(dir, "runs")); err != nil || string(runs) != "run\n" {
		t.Errorf("apt ran %q, %v", runs, err)
	}
}

// apt is killed while it computes. That is no verdict: the next try computes.
func TestKilledApt(t *testing.T) {
	w := newWorld(t)
	dir := w.wrap(`if test ! -e $DIR/pid; then echo $$ > $DIR/pid.new; mv $DIR/pid.new $DIR/pid; exec sleep 60; fi`)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.run()
	failed := make(chan error, 1)
	go func() {
		_, err := w.BOM(t.Context(), "demo", "gateway", nil, state)
		failed <- err
	}()
	var pid int
	w.until("apt runs", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	var known *release.Error
	if err := <-failed; !errors.As(err, &known) || !strings.Contains(known.Text, "killed") {
		t.Errorf("a killed apt: %v", err)
	}
	if _, status, _ := w.lookup("gateway", state); status != product.Computing {
		t.Errorf("a killed apt is a verdict: %v", status)
	}
	if b := w.bom("gateway", state); len(b.Packages) != 7 {
		t.Errorf("afterwards:\n%s", lines(b))
	}
}

// A computation that does not end is ended, and so is one whose server stops.
func TestEndlessApt(t *testing.T) {
	w := newWorld(t)
	w.limit = time.Second
	w.open()
	w.wrap(`exec sleep 60`)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.run()
	began := time.Now()
	if _, err := w.BOM(t.Context(), "demo", "gateway", nil, state); err == nil || !strings.Contains(err.Error(), "longer than 1s") {
		t.Errorf("an endless apt: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	w.limit = time.Minute
	w.stop()
	w.open()
	w.run()
	failed := make(chan error, 1)
	go func() {
		_, err := w.BOM(t.Context(), "demo", "gateway", nil, state)
		failed <- err
	}()
	time.Sleep(100 * time.Millisecond)
	began = time.Now()
	w.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the server took %s to stop", took)
	}
	if err := <-failed; err == nil {
		t.Error("there is a bill of a server that stopped")
	}
	if _, err := w.BOM(t.Context(), "demo", "gateway", nil, state); err == nil {
		t.Error("a server that stopped computes")
	}
}

// A fleet that asks again and again for what waits for its next try keeps nobody
// busy, and is told why it waits.
func TestAskingDoesNotHurryARetry(t *testing.T) {
	w := newWorld(t)
	w.wrap("echo 'E: no space left' >&2; exit 100")
	state := w.state(pkg{"app 1", ""})
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.run()
	w.until("the first try failed", func() bool {
		_, status, reason := w.lookup("gateway", state)
		return status == product.Computing && strings.Contains(reason, "no space left")
	})
	before := w.looked.Load()
	for range 10_000 {
		w.lookup("gateway", state)
	}
	time.Sleep(50 * time.Millisecond)
	if n := w.looked.Load() - before; n > 2 {
		t.Errorf("the queue was looked through %d times", n)
	}
}

// A person who leaves does not stop what others wait for.
func TestLeaving(t *testing.T) {
	w := newWorld(t)
	w.wrap(`sleep 0.5`)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.run()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.BOM(ctx, "demo", "gateway", nil, state); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("left: %v", err)
	}
	if b := w.bom("gateway", state); b.SHA256 == "" {
		t.Error("no bill")
	}
}

// The disk is full where bills are published, where apt's lists lie, and in the
// database: nothing is half there, and it goes on as soon as there is room.
func TestFullDisk(t *testing.T) {
	for _, dir := range []string{"public", "solve"} {
		t.Run(dir, func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
				t.Fatalf("cannot mount a tmpfs: %v; make test runs as root", err)
			}
			t.Cleanup(func() { must(t, syscall.Unmount(disk, syscall.MNT_DETACH)) })
			w := newWorld(t)
			must(t, os.RemoveAll(filepath.Join(w.data, dir)))
			must(t, os.MkdirAll(filepath.Join(disk, "full", "demo"), 0o755))
			must(t, os.Symlink(filepath.Join(disk, "full"), filepath.Join(w.data, dir)))
			filler := filepath.Join(disk, "filler")
			fill(t, filler)
			state := w.state(sample...)
			w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
			w.run()
			_, err := w.BOM(t.Context(), "demo", "gateway", nil, state)
			if release.CodeOf(err) != release.NoSpace {
				t.Errorf("on a full disk: %v", err)
			}
			if answers, err := w.store.Answers(t.Context()); err != nil || len(answers) > 0 {
				t.Errorf("kept %v, %v", answers, err)
			}
			if left, err := filepath.Glob(w.bill("*")); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
			if dir == "solve" {
				// pkgcache alone has megabytes.
				must(t, syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"))
			}
			must(t, os.Remove(filler))
			if b := w.bom("gateway", state); len(b.Packages) != 7 {
				t.Errorf("afterwards:\n%s", lines(b))
			}
		})
	}
	t.Run("database", func(t *testing.T) {
		w := newWorld(t)
		state := w.state(sample...)
		w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
		w.store.FailNext(syscall.ENOSPC)
		w.run()
		if _, err := w.BOM(t.Context(), "demo", "gateway", nil, state); release.CodeOf(err) != release.NoSpace {
			t.Errorf("a full database: %v", err)
		}
		if b := w.bom("gateway", state); b.SHA256 == "" {
			t.Error("no bill")
		}
	})
}

// fill writes until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	for {
		if _, err := file.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return
		}
	}
}

// gc removes a state while it is computed: no verdict, nothing kept.
func TestStateThatGoes(t *testing.T) {
	w := newWorld(t)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	kept := w.kept
	w.chunks.gone, w.kept = true, nil
	w.run()
	if _, err := w.BOM(t.Context(), "demo", "gateway", nil, state); release.CodeOf(err) != release.NotFound {
		t.Errorf("a state that is gone: %v", err)
	}
	// A chunk that is lost although the state is kept is trouble.
	w.kept = kept
	if _, err := w.BOM(t.Context(), "demo", "gateway", nil, state); err == nil || release.CodeOf(err) == release.NotFound {
		t.Errorf("a state that is damaged: %v", err)
	}
	w.chunks.gone = false
	b := w.bom("gateway", state)
	other := w.bom("gateway", w.state(append(sample, pkg{"more 1", ""})...))
	w.kept = w.kept[1:]
	stray := w.bill(strings.Repeat("ab", 32))
	must(t, os.WriteFile(stray, nil, 0o644)) // a crash between a file and its row
	must(t, w.Forget(t.Context()))
	for path, there := range map[string]bool{w.bill(b.SHA256): false, stray: false, w.bill(other.SHA256): true} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) == there {
			t.Errorf("%s: there is %v (%v)", path, !there, err)
		}
	}
	answers, err := w.store.Answers(t.Context())
	if err != nil || len(answers) != 1 || answers[0].SHA256 == [32]byte{} {
		t.Errorf("answers %v, %v", answers, err)
	}
	if files := w.Files(); len(files) != 1 || files["demo/boms/"+other.SHA256] == [32]byte{} {
		t.Errorf("files %v", files)
	}
	if _, status, _ := w.lookup("gateway", state); status == product.Computed {
		t.Error("the state that went has a bill")
	}
}

// A product is changed, and another deleted, while they are computed.
func TestProductThatChanges(t *testing.T) {
	w := newWorld(t)
	dir := w.wrap(`touch $DIR/started; while test ! -e $DIR/go; do sleep 0.02; done`)
	state := w.state(sample...)
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	w.create(product.Product{Name: "doomed", Packages: []string{"lib"}})
	w.lookup("gateway", state)
	w.run()
	w.until("apt runs", func() bool { _, err := os.Stat(filepath.Join(dir, "started")); return err == nil })
	_, err := w.Set(t.Context(), actor, "demo", "gateway", func(p product.Product) product.Product {
		p.Packages = []string{"other"}
		return p
	})
	must(t, err)
	_, status, _ := w.lookup("gateway", state)
	must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	if status != product.Computing {
		t.Errorf("the new definition is %v", status)
	}
	if got := lines(w.bom("gateway", state)); strings.Contains(got, "app") || !strings.Contains(got, "other:amd64=1 top-level") {
		t.Errorf("the new definition is\n%s", got)
	}
	must(t, os.Remove(filepath.Join(dir, "go")))
	must(t, os.Remove(filepath.Join(dir, "started")))
	w.lookup("doomed", state)
	w.until("apt runs again", func() bool { _, err := os.Stat(filepath.Join(dir, "started")); return err == nil })
	deleted := make(chan error, 1)
	go func() {
		_, err := w.Delete(t.Context(), actor, "demo", "doomed", "", false)
		deleted <- err
	}()
	must(t, <-deleted)
	must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	w.bom("gateway", w.state(pkg{"other 1", ""})) // after whatever becomes of it
	answers, err := w.store.Answers(t.Context())
	must(t, err)
	for _, a := range answers {
		if a.Product == "doomed" {
			t.Errorf("an answer about a deleted product: %+v", a)
		}
	}
	if files, err := filepath.Glob(w.bill("*")); err != nil || len(files) != len(w.Files()) {
		t.Errorf("published %v, known %v (%v)", files, w.Files(), err)
	}
}

// After a restart everything is there again, files that were lost too.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.run()
	state, broken := w.state(sample...), w.state(pkg{"app 1", "Depends: nowhere\n"})
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}})
	b, v := w.bom("gateway", state), w.bom("gateway", broken)
	must(t, w.restores(t, nil))
	must(t, os.WriteFile(w.bill(b.SHA256), []byte(strings.Repeat("x", len(b.Text))), 0o644))
	must(t, w.restores(t, []string{"demo/boms/" + b.SHA256}))
	w.stop()
	must(t, os.RemoveAll(filepath.Join(w.data, "public/demo/boms")))
	must(t, os.Mkdir(filepath.Join(w.data, "public/demo/boms"), 0o755))
	stray := w.bill(strings.Repeat("ab", 32))
	must(t, os.WriteFile(stray, nil, 0o644)) // a crash between a file and its row
	w.wrap(`exit 100`)                       // nothing is computed again
	w.open()
	if ready, status, _ := w.lookup("gateway", state); status != product.Computed || ready.SHA256 != b.SHA256 {
		t.Errorf("after a restart: %v %v", ready, status)
	}
	if _, status, reason := w.lookup("gateway", broken); status != product.Failed || reason != v.Verdict.Summary {
		t.Errorf("after a restart: %v %s", status, reason)
	}
	if published, err := os.ReadFile(w.bill(b.SHA256)); err != nil || string(published) != string(b.Text) {
		t.Errorf("published: %q, %v", published, err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stray file stays: %v", err)
	}
	if again := w.bom("gateway", state); lines(again) != lines(b) {
		t.Errorf("after a restart\n%s", lines(again))
	}
}

// restores holds what Restore writes against what it should.
func (w *world) restores(t *testing.T, want []string) error {
	got, err := w.Restore(t.Context())
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("restored %v, want %v", got, want)
	}
	return err
}
