package release_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
)

// model is what a pipeline should be, as simple as it can be said: one
// repository of one architecture that keeps one version, and one stage with
// the stack of what was promoted to it.
type model struct {
	head  map[string]string // version by name
	stack []string          // lists of packages, the current one last
}

func (m *model) list() string {
	var list []string
	for name, version := range m.head {
		list = append(list, name+" "+version+" amd64")
	}
	return sorted(strings.Join(list, ", "))
}

// TestAnyOrder does acts in any order, with restarts in between, and compares
// the engine with the model after each.
func TestAnyOrder(t *testing.T) {
	plans := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) [3]int {
		return [3]int{rapid.IntRange(0, 9).Draw(r, "act"), rapid.IntRange(0, 2).Draw(r, "name"), rapid.IntRange(1, 6).Draw(r, "version")}
	}), 5, 25)
	// Each plan builds a whole tree, so there are few of them, and always the same.
	for seed := range 12 {
		plan := plans.Example(seed)
		inWorld(t, func(t *testing.T, w *world) {
			m := model{head: make(map[string]string)}
			dates := map[string]time.Time{}
			for i, step := range plan {
				name, version := "app"+fmt.Sprint(step[1]), fmt.Sprint(step[2])
				switch step[0] {
				case 0, 1, 2, 3:
					m.upload(t, w, name, version, false)
				case 4:
					m.upload(t, w, name, version, true)
				case 5:
					_, err := w.Remove(t.Context(), ann, "demo", "apps", name, "")
					if _, there := m.head[name]; there != (err == nil) {
						t.Errorf("step %d: removing %s: %v", i, name, err)
					}
					delete(m.head, name)
				case 6, 7:
					move := w.promote("dev", "canary")
					same := len(m.stack) > 0 && m.stack[len(m.stack)-1] == m.list()
					if same != (move.Seq == 0) {
						t.Errorf("step %d: the promotion was move %d", i, move.Seq)
					}
					if !same {
						m.stack = append(m.stack, m.list())
					}
				case 8:
					_, err := w.Undo(t.Context(), ann, "demo", "canary", "", nil)
					if (len(m.stack) > 1) != (err == nil) {
						t.Errorf("step %d: undo with %d promotions: %v", i, len(m.stack), err)
					}
					if len(m.stack) > 1 {
						m.stack = m.stack[:len(m.stack)-1]
					}
				case 9:
					w.close()
					w.open()
				}
				if got := sorted(w.list("dev")); got != m.list() {
					t.Errorf("step %d: dev lists %q, want %q", i, got, m.list())
				}
				if len(m.stack) > 0 {
					if got := sorted(w.list("canary")); got != m.stack[len(m.stack)-1] {
						t.Errorf("step %d: canary lists %q, want %q", i, got, m.stack[len(m.stack)-1])
					}
				}
				for _, stage := range []string{"dev", "canary"} {
					if w.stage(stage).Offer.State.IsZero() {
						continue
					}
					text, date := w.inRelease(stage)
					if date.Before(dates[stage]) || field(text, "Aptfleet-State") != w.stage(stage).Offer.State.String() {
						t.Errorf("step %d: %s publishes %s of %s after one of %s", i, stage, field(text, "Aptfleet-State"), date, dates[stage])
					}
					dates[stage] = date
				}
			}
			synctest.Wait()
		})
		if t.Failed() {
			t.Fatalf("plan %v", plan)
		}
	}
}

func (m *model) upload(t *testing.T, w *world, name, version string, older bool) {
	t.Helper()
	_, err := w.addSalted(name, version, "amd64", "", older)
	if there, ok := m.head[name]; ok && deb.Compare(version, there) < 0 && !older {
		wantCode(t, err, release.Refused, "older")
		return
	}
	must(t, err)
	m.head[name] = version
}
