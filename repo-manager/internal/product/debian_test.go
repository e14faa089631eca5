package product_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/snapshots"
	"aptfleet/test/debian"
	"aptfleet/test/order"
)

// A product of more than 400 packages in a state that has all of Debian takes
// less than five seconds of processor time, ours and apt's, and afterwards
// nothing that counts.
func TestAllOfDebian(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; the other tests have products of a few packages")
	}
	w := newWorld(t).run()
	state := w.stateOf(debianPackages(t, "trixie"))
	gateway := product.Product{
		Name: "gateway", Recommends: true, Modules: map[string][]string{"lte": {"modemmanager", "ppp"}},
		Packages: []string{
			"systemd-sysv", "linux-image-amd64", "openssh-server", "nginx", "python3-requests", "network-manager", "avahi-daemon", "mosquitto",
			"podman", "chrony", "nftables", "apt", "docker.io", "bluez", "cups", "samba",
		},
	}
	w.create(gateway)
	slim := gateway
	slim.Name, slim.Recommends = "slim", false
	w.create(slim)
	timed := func(what, name string, limit time.Duration, modules ...string) product.Bill {
		began, used := time.Now(), processor(t)
		b := w.bom(name, state, modules...)
		took := processor(t) - used
		t.Logf("%s: %d packages, %d ms of processor time, %d ms", what, len(b.Packages), took.Milliseconds(), time.Since(began).Milliseconds())
		if took > limit {
			t.Errorf("%s took %s, more than %s", what, took, limit)
		}
		if b.Verdict != nil {
			t.Fatalf("%s\n%s", b.Verdict.Apt, b.Verdict.Dose)
		}
		return b
	}
	b := timed("first product of a state", "gateway", 5*time.Second)
	if len(b.Packages) < 400 {
		t.Errorf("only %d packages", len(b.Packages))
	}
	timed("second product of it", "slim", 5*time.Second)
	timed("with a module", "gateway", 5*time.Second, "lte")
	timed("cached", "gateway", 10*time.Millisecond)
	began := time.Now()
	const lookups = 100_000
	for range lookups {
		if _, status, _ := w.lookup("gateway", state); status != product.Computed {
			t.Fatal("it is not computed")
		}
	}
	t.Logf("looked up: %d ns", time.Since(began).Nanoseconds()/lookups)
	for i, p := range b.Packages {
		if b.Details[i].Reason.Kind == product.ByApt {
			t.Errorf("nothing explains %s", p)
		}
	}
	text, err := b.CycloneDX("trixie")
	must(t, err)
	t.Logf("%d bytes of text, %d as CycloneDX; %d MB to download, %d MB installed", len(b.Text), len(text), b.Download()/1e6, b.Installed()/1e6)

	w.create(product.Product{Name: "broken", Packages: []string{"postfix", "exim4-daemon-light"}})
	began = time.Now()
	v := w.bom("broken", state).Verdict
	if v == nil {
		t.Fatal("two mail servers can be installed")
	}
	t.Logf("verdict: %d ms\n%s\n%s", time.Since(began).Milliseconds(), v.Apt, v.Dose)
}

// processor is the time that this process and those that it waited for have
// used: unlike a clock it does not tell what else the machine does.
func processor(t *testing.T) (used time.Duration) {
	t.Helper()
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		must(t, syscall.Getrusage(who, &u))
		used += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return used
}

// debianPackages returns what a Debian release has in main for amd64.
func debianPackages(t *testing.T, suite string) []snapshots.Package {
	t.Helper()
	mirror, _, err := debian.Mirror()
	must(t, err)
	file := filepath.Join(t.TempDir(), "Packages.gz")
	if out, err := exec.Command("/usr/lib/apt/apt-helper", "download-file", mirror+"/dists/"+suite+"/main/binary-amd64/Packages.gz", file).CombinedOutput(); err != nil {
		t.Fatalf("cannot fetch Debian's index: %v\n%s", err, out)
	}
	packed, err := os.ReadFile(file)
	must(t, err)
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	var packages []snapshots.Package
	stanzas := deb.NewStanzaReader(unpacked, deb.MaxStanza)
	for {
		stanza, err := stanzas.Next()
		if err == io.EOF {
			return packages
		}
		must(t, err)
		p, err := snapshots.ParsePackage(stanza.Bytes())
		must(t, err)
		packages = append(packages, p)
	}
}

// chain is a release of n packages, of which the product app needs the first
// 400.
func chain(w *world, n int) snapshots.ID {
	var packages []snapshots.Package
	for i := range n {
		fields := "Priority: optional\n"
		if i < 399 {
			fields = fmt.Sprintf("Depends: p%05d\n", i+1)
		}
		p, err := snapshots.ParsePackage([]byte(pkg{fmt.Sprintf("p%05d 1.%d", i, i), fields}.stanza()))
		must(w.t, err)
		packages = append(packages, p)
	}
	return w.stateOf(packages)
}

// BenchmarkBOM: of 400 packages in a state of 20,000.
func BenchmarkBOM(b *testing.B) {
	w := newWorld(b).run()
	state := chain(w, 20_000)
	for i := range 1000 {
		w.create(product.Product{Name: fmt.Sprintf("app%d", i), Packages: []string{"p00000"}})
	}
	at := 0
	b.Run("first of a state", func(b *testing.B) {
		for range b.N {
			w.stop()
			w.open() // no lists are ready
			w.run()
			w.bom(fmt.Sprintf("app%d", at), state)
			at++
		}
	})
	b.Run("another of it", func(b *testing.B) {
		for range b.N {
			w.bom(fmt.Sprintf("app%d", at), state)
			at++
		}
	})
	b.Run("cached", func(b *testing.B) {
		for range b.N {
			w.bom("app0", state)
		}
	})
	b.Run("looked up", func(b *testing.B) {
		for range b.N {
			w.lookup("app0", state)
		}
	})
}
