package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
)

// memoryTool is a tool that publishes from memory. Its fault is what it does
// wrong: a contest must notice.
type memoryTool struct {
	peer
	fault  string
	stages map[string]map[string]string // name to version
	before map[string]string
	signer *sign.Key
}

func newMemoryTool(t *testing.T, fault string) *memoryTool {
	t.Helper()
	key, err := sign.Generate("Test", "test@test.example", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	m := &memoryTool{fault: fault, signer: key, stages: map[string]map[string]string{dev: {}, canary: {}}}
	m.key.public = filepath.Join(t.TempDir(), "certificate.asc")
	if err := os.WriteFile(m.key.public, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	m.http = httptest.NewServer(http.HandlerFunc(m.answer))
	t.Cleanup(m.http.Close)
	return m
}

// answer serves /<stage>/InRelease and /<stage>/<index>.
func (m *memoryTool) answer(w http.ResponseWriter, r *http.Request) {
	stage, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for _, name := range slices.Sorted(maps.Keys(m.stages[stage])) {
		fmt.Fprintf(z, "Package: %s\nVersion: %s\n\n", name, m.stages[stage][name])
	}
	err := z.Close()
	answer := packed.Bytes()
	if file == "InRelease" && err == nil {
		answer, err = m.signer.ClearSign(fmt.Appendf(nil, "SHA256:\n %x %d %s\n", sha256.Sum256(answer), len(answer), index), time.Now())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := w.Write(answer); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (m *memoryTool) name() string                            { return cmp.Or(m.fault, "faultless") }
func (m *memoryTool) version(context.Context) (string, error) { return "1", nil }
func (m *memoryTool) start(context.Context) error             { return nil }
func (m *memoryTool) dists(stage string) string               { return m.http.URL + "/" + stage }
func (m *memoryTool) snapshot(context.Context, string) error  { return nil }

func (m *memoryTool) add(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	p, err := deb.Read(file, deb.Limits{})
	m.stages[dev][p.Name] = p.Version
	return errors.Join(err, file.Close())
}

func (m *memoryTool) addAll(_ context.Context, dir string, files []string) error {
	for i, file := range files {
		if m.fault == "loses one of all" && i == 3 {
			continue
		}
		if err := m.add(filepath.Join(dir, file)); err != nil {
			return err
		}
	}
	return nil
}

func (m *memoryTool) branch(context.Context) error {
	m.stages[canary] = maps.Clone(m.stages[dev])
	return nil
}

func (m *memoryTool) addOne(_ context.Context, path string) error {
	before := maps.Clone(m.stages[dev])
	if err := m.add(path); err != nil {
		return err
	}
	switch m.fault {
	case "publishes nothing":
		m.stages[dev] = before
	case "publishes another version":
		for name, version := range m.stages[dev] {
			if before[name] != version {
				m.stages[dev][name] += "~"
			}
		}
	case "loses another package":
		for name, version := range before {
			if m.stages[dev][name] == version {
				delete(m.stages[dev], name)
				break
			}
		}
	}
	return nil
}

func (m *memoryTool) diff(context.Context, string) (string, error) {
	var b strings.Builder
	for name, version := range m.stages[dev] {
		if m.stages[canary][name] != version && m.fault != "sees no difference" {
			fmt.Fprintln(&b, name)
		}
	}
	return b.String(), nil
}

func (m *memoryTool) promote(context.Context, string) error {
	m.before = m.stages[canary]
	m.stages[canary] = maps.Clone(m.stages[dev])
	if m.fault == "promotes half" {
		for name, version := range m.before {
			if m.stages[dev][name] != version {
				m.stages[canary][name] = version
				break
			}
		}
	}
	return nil
}

func (m *memoryTool) undo(_ context.Context, names []string) error {
	m.stages[canary] = m.before
	if m.fault == "undoes half" {
		m.stages[canary] = maps.Clone(m.before)
		m.stages[canary][names[0]] = m.stages[dev][names[0]]
	}
	return nil
}

func TestAContestBelievesNobody(t *testing.T) {
	c, err := generated(context.Background(), 20, xzMembers, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{runs: 3, least: 3, budget: time.Hour, patience: 50 * time.Millisecond}
	for fault, want := range map[string]string{
		"":                          "",
		"loses one of all":          "20 packages were imported and 19 are published",
		"publishes nothing":         "the change is not in",
		"publishes another version": "its index does not list it",
		"loses another package":     "the index of dev has 19 packages, it had 20",
		"sees no difference":        "sees no difference in",
		"promotes half":             "its index does not list it",
		"undoes half":               "still offers 1 changes after its undo",
	} {
		contest := newContest(p, newMemoryTool(t, fault), c, t.TempDir())
		err := contest.run(context.Background())
		if want == "" && err != nil {
			t.Errorf("a faultless tool: %v", err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("a tool that %s: error %v, want %q", fault, err, want)
		}
		if want == "" && len(contest.rows) != len(operations) {
			t.Errorf("%d rows, want %d", len(contest.rows), len(operations))
		}
	}
}

func TestSignaturesAreLookedAt(t *testing.T) {
	m := newMemoryTool(t, "")
	if err := mustBeSigned(t.Context(), m, t.TempDir()); err != nil {
		t.Error(err)
	}
	m.signer = newMemoryTool(t, "").signer
	if err := mustBeSigned(t.Context(), m, t.TempDir()); err == nil {
		t.Error("a signature of another key is good")
	}
}

func TestRepeat(t *testing.T) {
	for _, test := range []struct {
		p    plan
		each time.Duration
		want int
	}{
		{plan{runs: 20, least: 3, budget: time.Minute}, time.Second, 20},
		{plan{runs: 20, least: 3, budget: time.Minute}, 10 * time.Second, 6},
		{plan{runs: 20, least: 3, budget: time.Minute}, time.Hour, 3},
		{plan{runs: 2, least: 3, budget: time.Minute}, time.Hour, 2},
	} {
		all, err := test.p.repeat(func(int) (cost, error) { return cost{wall: test.each}, nil })
		if err != nil || len(all) != test.want {
			t.Errorf("%+v, %s each: %d runs (%v), want %d", test.p, test.each, len(all), err, test.want)
		}
	}
}

func TestIndexSum(t *testing.T) {
	sum := strings.Repeat("a", 64)
	for _, test := range []struct{ text, want string }{
		{"SHA256:\n " + sum + " 12 " + index + "\n", sum},
		{"SHA256:\n " + sum + "       12 " + index + "\n", sum},
		{"MD5Sum:\n " + sum[:32] + " 12 " + index + "\n", ""},
		{"SHA256:\n " + sum + " 12 " + strings.TrimSuffix(index, ".gz") + "\n", ""},
		{"", ""},
	} {
		if got, _ := indexSum(test.text); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}
