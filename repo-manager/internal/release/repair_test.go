package release_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
)

// history gives a world a past: uploads, a named snapshot, promotions, an undo.
// It returns the snapshot and what was published of fixed bases.
func (w *world) history() (named release.Snapshot) {
	w.t.Helper()
	ctx := w.t.Context()
	for _, version := range []string{"1", "2"} {
		_, err := w.add("tool", version, "amd64")
		must(w.t, err)
		named, err = w.CreateSnapshot(ctx, ann, "demo", "", "a note", []string{"rc"})
		must(w.t, err)
		_, err = w.Promote(ctx, ann, "demo", named.ID, "canary", "tested", nil, false)
		must(w.t, err)
	}
	_, err := w.Undo(ctx, ann, "demo", "canary", "too early", nil)
	must(w.t, err)
	_, err = w.add("tool", "3", "amd64")
	must(w.t, err)
	_, err = w.Promote(ctx, ann, "demo", "dev", "canary", "again", nil, false)
	must(w.t, err)
	return named
}

// fixed returns the signed files of all fixed bases.
func (w *world) fixed() map[string]string {
	all := make(map[string]string)
	root := filepath.Join(w.dir, "public/demo")
	must(w.t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.Contains(path, "/snapshots/") && !strings.Contains(path, "/states/") || entry.Type() != 0 {
			return err
		}
		content, err := os.ReadFile(path)
		all[path] = string(content)
		return err
	}))
	return all
}

// only returns the index of the one element that is accepted.
func only[T any](t *testing.T, all []T, is func(T) bool) int {
	t.Helper()
	at := slices.IndexFunc(all, is)
	if at < 0 {
		t.Fatal("the row that is to be altered is not there")
	}
	return at
}

// One row per damage of each table. What is derivable is mended, while the
// server runs and when it starts with the damage; what is not is said.
func TestRowsAreRepaired(t *testing.T) {
	last := func(s release.Standing) bool { return s.Name == "canary" }
	of := func(dir string) func(release.Base) bool {
		return func(b release.Base) bool { return strings.HasPrefix(b.Dir, dir) }
	}
	damagedText := func(text []byte) []byte { return bytes.Replace(text, []byte("Label: demo"), []byte("Label: evil"), 1) }
	rows := []struct {
		name    string
		alter   func(t *testing.T, b *release.Batch)
		path    string // that a finding begins with
		reason  string
		did     string // "" if it must be restored
		restore string
		running bool // only a server that runs knows what it was
		stopped bool // only one that starts sees it so
	}{
		{name: "a pipeline is lost", path: "database: pipelines demo", reason: "is missing", did: "as the server knows it", running: true,
			alter: func(t *testing.T, b *release.Batch) { b.Pipelines = nil }},
		{name: "a pipeline is altered", path: "database: pipelines demo", reason: "is not what it was committed as", did: "as the server knows it", running: true,
			alter: func(t *testing.T, b *release.Batch) { b.Pipelines[0].Distribution = "sid" }},
		{name: "a component is lost", path: "database: components demo/apps", reason: "is missing", did: "as the server knows it", running: true,
			alter: func(t *testing.T, b *release.Batch) { b.Components = nil }},
		{name: "a component was lost", path: "database: components demo/apps", reason: "nothing says what it is", restore: "restore the database", stopped: true,
			alter: func(t *testing.T, b *release.Batch) { b.Components = nil }},
		{name: "a component is altered", path: "database: components demo/apps", reason: "is not what it was committed as", did: "as the server knows it", running: true,
			alter: func(t *testing.T, b *release.Batch) { b.Components[0].Keep = 9 }},

		{name: "a stage is lost", path: "database: stages demo/canary", reason: "is missing", did: "as its last move",
			alter: func(t *testing.T, b *release.Batch) {
				at := only(t, b.Standings, last)
				b.Standings = slices.Delete(b.Standings, at, at+1)
			}},
		{name: "all stages are lost", path: "database: stages demo/", reason: "is missing", did: "as its last move",
			alter: func(t *testing.T, b *release.Batch) { b.Standings = nil }},
		{name: "a stage offers another state", path: "database: stages demo/canary", reason: "is not what", did: "as its last move",
			alter: func(t *testing.T, b *release.Batch) { b.Standings[only(t, b.Standings, last)].Offer.State[0] ^= 1 }},
		{name: "a stage stands on another move", path: "database: stages demo/canary", reason: "is not what", did: "as its last move",
			alter: func(t *testing.T, b *release.Batch) { b.Standings[only(t, b.Standings, last)].Standing = 3 }},
		{name: "a stage is dated earlier", path: "database: stages demo/canary", reason: "is not what", did: "as its last move",
			alter: func(t *testing.T, b *release.Batch) {
				s := &b.Standings[only(t, b.Standings, last)]
				s.Date = s.Date.Add(-time.Hour)
			}},
		{name: "a stage has another name", path: "database: stages demo/", reason: "is ", did: "",
			alter: func(t *testing.T, b *release.Batch) { b.Standings[only(t, b.Standings, last)].Name = "canarz" }},

		{name: "a snapshot is lost", path: "database: snapshots demo/", reason: "is missing", did: "as its Release and the audit trail say",
			alter: func(t *testing.T, b *release.Batch) { b.Snapshots = b.Snapshots[1:] }},
		{name: "a snapshot has another state", path: "database: snapshots demo/", reason: "is not what", did: "as its Release and the audit trail say",
			alter: func(t *testing.T, b *release.Batch) { b.Snapshots[0].State[0] ^= 1 }},
		{name: "a snapshot counts other packages", path: "database: snapshots demo/", reason: "is not what", did: "as its Release and the audit trail say",
			alter: func(t *testing.T, b *release.Batch) { b.Snapshots[0].Packages++ }},
		{name: "a snapshot has another id", path: "database: snapshots demo/", reason: "", did: "",
			alter: func(t *testing.T, b *release.Batch) { b.Snapshots[0].ID = "20010101T000000Z" }},

		{name: "a move is lost", path: "database: moves demo/5", reason: "is missing", restore: "an undo may not go back beyond it",
			alter: func(t *testing.T, b *release.Batch) {
				at := only(t, b.Moves, func(m release.Move) bool { return m.Seq == 5 })
				b.Moves = slices.Delete(b.Moves, at, at+1)
			}},
		{name: "the newest move is lost", path: "database: moves demo/", reason: "put what stage canary offers there", restore: "restore the database",
			alter: func(t *testing.T, b *release.Batch) { b.Moves = b.Moves[:len(b.Moves)-1] }},
		{name: "a move goes elsewhere", path: "database: moves demo/", reason: "is ", restore: "restore the database",
			alter: func(t *testing.T, b *release.Batch) { b.Moves[len(b.Moves)-1].To.State[0] ^= 1 }},
		{name: "a move comes from elsewhere", path: "database: moves demo/", reason: "does not begin where move", restore: "restore the database",
			alter: func(t *testing.T, b *release.Batch) { b.Moves[len(b.Moves)-1].From.State[0] ^= 1 }},
		{name: "a move goes back to one of another stage", path: "database: moves demo/", reason: "which is none of its stage", restore: "restore the database",
			alter: func(t *testing.T, b *release.Batch) { b.Moves[len(b.Moves)-1].Over = 1 }},

		{name: "a snapshot's base is lost", path: "database: bases demo/snapshots/", reason: "is missing", did: "read again from the published tree",
			alter: func(t *testing.T, b *release.Batch) {
				at := only(t, b.Bases, of("snapshots/"))
				b.Bases = slices.Delete(b.Bases, at, at+1)
			}},
		{name: "all bases are lost", path: "database: bases demo/", reason: "is missing", did: "read again from the published tree",
			alter: func(t *testing.T, b *release.Batch) { b.Bases = nil }},
		{name: "a base's Release is altered", path: "database: bases demo/states/", reason: "its Release is of pipeline \"evil\"", did: "corrected by what it has signed",
			alter: func(t *testing.T, b *release.Batch) {
				base := &b.Bases[only(t, b.Bases, of("states/"))]
				base.Text = damagedText(base.Text)
			}},
		{name: "a base's InRelease is altered", path: "database: bases demo/snapshots/", reason: "is not what it was committed as", did: "read again from the published tree",
			alter: func(t *testing.T, b *release.Batch) {
				base := &b.Bases[only(t, b.Bases, of("snapshots/"))]
				base.InRelease = damagedText(base.InRelease)
			}},
		{name: "a base's signature is altered", path: "database: bases demo/snapshots/", reason: "is not what it was committed as", did: "read again from the published tree",
			alter: func(t *testing.T, b *release.Batch) {
				b.Bases[only(t, b.Bases, of("snapshots/"))].Signature = []byte("x")
			}},
		{name: "a base has another state", path: "database: bases demo/snapshots/", reason: "is not what it was committed as", did: "corrected by what it has signed",
			alter: func(t *testing.T, b *release.Batch) { b.Bases[only(t, b.Bases, of("snapshots/"))].State[0] ^= 1 }},

		{name: "a file's row is lost", path: "database: files ", reason: "is missing", did: "written again as a state says",
			alter: func(t *testing.T, b *release.Batch) { b.Files = b.Files[1:] }},
		{name: "a file's row has another name", path: "database: files ", reason: "is not what it was committed as", did: "written again as the record of uploads says",
			alter: func(t *testing.T, b *release.Batch) { b.Files[0].Name = "x_1_all.deb" }},
		{name: "a file's row has another size", path: "database: files ", reason: "is not what it was committed as", did: "written again as the record of uploads says",
			alter: func(t *testing.T, b *release.Batch) { b.Files[0].Size++ }},
		{name: "a file's row has another SHA-256", path: "database: files ", reason: "is ", did: "",
			alter: func(t *testing.T, b *release.Batch) { b.Files[0].SHA256[0] ^= 1 }},
		{name: "uploads and their files' rows are lost", path: "database: files ", reason: "is missing", did: "written again as a state says",
			alter: func(t *testing.T, b *release.Batch) { b.Files, b.Uploads = nil, nil }},
	}
	for _, row := range rows {
		for _, restart := range []bool{false, true} {
			if restart && row.running || !restart && row.stopped {
				continue
			}
			t.Run(fmt.Sprintf("%s/restart=%v", row.name, restart), func(t *testing.T) {
				t.Parallel() // they wait for the disk
				inWorld(t, func(t *testing.T, w *world) {
					named := w.history()
					before := w.fixed()
					list := w.list("canary")
					if restart {
						w.close()
					}
					w.store.Alter(func(b *release.Batch) {
						slices.SortFunc(b.Files, func(a, b release.File) int { return bytes.Compare(a.SHA256[:], b.SHA256[:]) })
						row.alter(t, b)
					})
					if restart {
						w.open()
					}
					report, err := w.Check(t.Context(), nil)
					must(t, err)
					is := func(f release.Finding) bool {
						return strings.HasPrefix(f.Path, row.path) && strings.Contains(f.Reason, row.reason)
					}
					if !slices.ContainsFunc(report.Findings, is) {
						t.Fatalf("check finds no %s … %s: %+v", row.path, row.reason, report.Findings)
					}
					repaired, err := w.Repair(t.Context(), ann, nil)
					must(t, err)
					at := only(t, repaired.Findings, is)
					if f := repaired.Findings[at]; row.restore == "" && !strings.Contains(f.Repaired, row.did) || !strings.Contains(f.Restore, row.restore) {
						t.Errorf("found %+v", f)
					}
					after, err := w.Check(t.Context(), nil)
					must(t, err)
					if row.restore == "" {
						for _, f := range slices.Concat(repaired.Findings, after.Findings) {
							if f.Repaired == "" || f.Restore != "" {
								t.Errorf("not repaired: %+v", f)
							}
						}
					} else {
						for _, f := range after.Findings {
							if !slices.ContainsFunc(repaired.Findings, func(g release.Finding) bool { return g.Path == f.Path && g.Restore != "" }) {
								t.Errorf("after the repair: %+v, which it did not say", f)
							}
						}
					}
					for path, content := range before {
						if now, err := os.ReadFile(path); err != nil || string(now) != content {
							t.Errorf("%s is another file than before", path)
						}
					}
					if got := w.list("canary"); got != list {
						t.Errorf("canary offers %q, before %q", got, list)
					}
					if got, err := w.Snapshot(t.Context(), "demo", named.ID); err != nil || got.State != named.State || got.By != "ann" || !got.Created.Equal(named.Created) || got.Note != "a note" || got.Packages != named.Packages {
						t.Errorf("snapshot %+v, %v; before %+v", got, err, named)
					}
					if row.restore != "" {
						w.skipClean = true
						return
					}
					// It is in the store, not only in memory.
					w.close()
					w.open()
				})
			})
		}
	}
}

// Whatever is left of a base, in its row and in the tree, is enough as long as
// one of its signatures is good.
func TestABaseIsJoinedFromWhatIsLeft(t *testing.T) {
	rows := map[string]struct {
		row  func(b *release.Base)
		lost []string // files
		did  string
		same bool // byte by byte
	}{
		"no files, no InRelease":          {func(b *release.Base) { b.InRelease = []byte("x") }, []string{"Release", "InRelease", "Release.gpg"}, "signed anew", false},
		"no files, no Release.gpg":        {func(b *release.Base) { b.Signature = []byte("x") }, []string{"Release", "InRelease", "Release.gpg"}, "signed anew", false},
		"half here, half there":           {func(b *release.Base) { b.InRelease = []byte("x") }, []string{"Release", "Release.gpg"}, "read again", true},
		"half here, half there, reversed": {func(b *release.Base) { b.Signature, b.Text = nil, nil }, []string{"Release", "InRelease"}, "read again", true},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.history()
				before := w.fixed()
				var text []byte
				var dir string
				w.store.Alter(func(b *release.Batch) {
					base := &b.Bases[only(t, b.Bases, func(b release.Base) bool { return strings.HasPrefix(b.Dir, "snapshots/") })]
					text, dir = base.Text, base.Dir
					row.row(base)
				})
				for _, name := range row.lost {
					must(t, os.Remove(filepath.Join(w.dir, "public/demo", dir, "dists/trixie", name)))
				}
				report, err := w.Repair(t.Context(), ann, nil)
				must(t, err)
				at := only(t, report.Findings, func(f release.Finding) bool { return strings.HasPrefix(f.Path, "database: bases demo/"+dir) })
				if !strings.Contains(report.Findings[at].Repaired, row.did) {
					t.Errorf("found %+v", report.Findings)
				}
				if got, _ := w.inRelease(dir); got != string(text) {
					t.Error("its Release is another text than before")
				}
				for path, content := range before {
					if now, err := os.ReadFile(path); row.same && (err != nil || string(now) != content) {
						t.Errorf("%s is another file than before", path)
					}
				}
			})
		})
	}
}

// A store that says that it is damaged is told apart from files.
func TestADamagedStoreIsSaid(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.store.Damage("row 3 missing from index moves_by_stage")
		report, err := w.Check(t.Context(), nil)
		must(t, err)
		if len(report.Findings) != 1 || report.Findings[0].Path != "database" {
			t.Fatalf("found %+v", report.Findings)
		}
		report, err = w.Repair(t.Context(), ann, nil)
		must(t, err)
		if len(report.Findings) != 1 || !strings.Contains(report.Findings[0].Repaired, "lookups") {
			t.Errorf("found %+v", report.Findings)
		}
	})
}

// A stage whose InRelease is bad is published anew, modified later, and that is on
// record: after a restart nothing moves.
func TestARepairedStageIsModifiedLater(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.history()
		before := w.modified("canary")
		path := filepath.Join(w.dir, "public/demo/canary/dists/trixie/InRelease")
		must(t, os.Remove(path))
		must(t, os.WriteFile(path, []byte("x"), 0o644))
		_, err := w.Repair(t.Context(), ann, nil)
		must(t, err)
		after := w.modified("canary")
		if !after.After(before) {
			t.Errorf("modified at %s, before it was at %s", after, before)
		}
		w.close()
		w.open()
		if again := w.modified("canary"); !again.Equal(after) {
			t.Errorf("modified at %s after a restart, at %s before", again, after)
		}
		acts, err := w.Acts(t.Context(), "", 1)
		must(t, err)
		if len(acts) != 1 || acts[0].Verb != "repair" || acts[0].By != "ann" {
			t.Errorf("acts: %+v", acts)
		}
	})
}

// After the database was restored from a backup, the tree may be newer than
// it: what the database says is published with a later Date.
func TestATreeThatIsNewerThanTheDatabase(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.history()
		var old release.Batch
		w.store.Alter(func(b *release.Batch) { old = *b })
		time.Sleep(time.Minute)
		_, err := w.add("tool", "4", "amd64")
		must(t, err)
		_, published := w.inRelease("dev")
		w.close()
		w.store.Alter(func(b *release.Batch) { *b = old })
		w.open()
		time.Sleep(10 * time.Second)
		_, err = w.Repair(t.Context(), ann, nil)
		must(t, err)
		if list := w.list("dev"); !strings.Contains(list, "tool 3") {
			t.Errorf("dev offers %s", list)
		}
		if text, date := w.inRelease("dev"); date.Before(published) {
			t.Errorf("dated %s, before %s:\n%s", date, published, text)
		}
	})
}

// A server starts without the text of what its stages offer, and has it again.
func TestAStateThatIsLostWhileTheServerIsDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.history()
		before := w.fixed()
		state := w.stage("canary").Offer.State.String()
		w.close()
		must(t, os.Remove(filepath.Join(w.dir, "blobs", state[:2], state)))
		w.open()
		if list := w.list("canary"); !strings.Contains(list, "tool 3") {
			t.Errorf("canary offers %s", list)
		}
		for path, content := range before {
			if now, err := os.ReadFile(path); err != nil || string(now) != content {
				t.Errorf("%s is another file than before", path)
			}
		}
	})
}

// What must be restored is restored by the same bytes again: as an upload of
// what the repository has, or by itself.
func TestAPoolFileIsRestored(t *testing.T) {
	for name, restore := range map[string]func(w *world) error{
		"package add": func(w *world) error {
			upload, err := w.add("tool", "3", "amd64")
			if err == nil && !upload.Already {
				err = errors.New("it was taken as new")
			}
			return err
		},
		"package restore": func(w *world) error {
			in := w.receive("tool", "3", "amd64", "")
			upload, err := w.RestoreFile(w.t.Context(), ann, in)
			if err == nil && upload.Already {
				err = errors.New("it was there already")
			}
			return errors.Join(err, in.Discard())
		},
	} {
		for damage, do := range map[string]func(path string) error{
			"missing": os.Remove,
			"damaged": func(path string) error {
				return errors.Join(os.Remove(path), os.WriteFile(path, []byte("evil"), 0o444))
			},
		} {
			t.Run(name+"/"+damage, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					w.history()
					in := w.receive("tool", "3", "amd64", "")
					path := filepath.Join(w.dir, "public", publish.PoolFilename(in.Package.SHA256, "tool_3_amd64.deb"))
					must(t, in.Discard())
					must(t, do(path))
					report, err := w.Repair(t.Context(), ann, nil)
					must(t, err)
					if len(report.Findings) != 1 || report.Findings[0].SHA256 != hex(in.Package.SHA256) || !slices.Contains(report.Findings[0].NeededBy, "demo/canary") {
						t.Fatalf("found %+v", report.Findings)
					}
					must(t, restore(w))
					content, err := os.ReadFile(path)
					must(t, err)
					if sha256.Sum256(content) != in.Package.SHA256 {
						t.Error("it has other bytes")
					}
				})
			})
		}
	}
}

func TestOnlyWhatIsRecordedIsRestored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.history()
		in := w.receive("tool", "3", "amd64", "other bytes")
		_, err := w.RestoreFile(t.Context(), ann, in)
		wantCode(t, err, release.NotFound, "no package with the SHA-256", "exactly the bytes of then")
		must(t, in.Discard())
		in = w.receive("tool", "1", "amd64", "")
		again, err := w.RestoreFile(t.Context(), ann, in)
		if err != nil || !again.Already {
			t.Errorf("a file that is there: %+v, %v", again, err)
		}
		must(t, in.Discard())
	})
}

// slow is a publisher whose repair waits.
type slow struct {
	release.Publisher
	begun, go_ chan struct{}
}

func (s *slow) Repair(ctx context.Context, with publish.Repairs) (publish.Report, error) {
	close(s.begun)
	select {
	case <-s.go_:
	case <-ctx.Done():
		return publish.Report{}, ctx.Err()
	}
	return s.Publisher.Repair(ctx, with)
}

// One repair at a time; uploads go on meanwhile; one that is left goes on.
func TestOneRepairAtATime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := &slow{w.Engine.Publisher, make(chan struct{}), make(chan struct{})}
		w.Engine.Publisher = s
		impatient, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := w.Repair(impatient, ann, nil)
			done <- err
		}()
		<-s.begun
		_, err := w.Repair(t.Context(), ann, nil)
		wantCode(t, err, release.Locked, "cannot start repair of the archive")
		_, err = w.add("tool", "1", "amd64")
		must(t, err)
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "goes on as change 1") {
			t.Errorf("error is %v", err)
		}
		close(s.go_)
		for {
			change, err := w.Change(t.Context(), 1)
			must(t, err)
			if change.Status == release.Done {
				break
			}
			time.Sleep(time.Second)
		}
	})
}

// Damage while uploads, promotions and repairs go on: afterwards all is well
// and no upload is lost.
func TestRepairsUnderLoad(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.history()
		stop, done := make(chan struct{}), make(chan int)
		go func() {
			taken := 0
			for n := 10; ; n++ {
				select {
				case <-stop:
					done <- taken
					return
				default:
				}
				in := w.receive("load", fmt.Sprint(n), "amd64", "")
				if _, err := w.Add(context.Background(), ann, "demo", "apps", in, false); err == nil {
					taken = n // else a chunk was missing just then, and the client was told
				}
				if err := in.Discard(); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		for n := range 5 {
			var victims []string
			for _, pattern := range []string{"blobs/??/*", "public/.indices/*/*/Packages.*", "public/demo/*/*/dists/trixie/InRelease"} {
				found, err := filepath.Glob(filepath.Join(w.dir, pattern))
				must(t, err)
				victims = append(victims, found[n%len(found)])
			}
			for _, path := range victims {
				must(t, os.Remove(path))
			}
			report, err := w.Repair(t.Context(), ann, nil)
			must(t, err)
			for _, f := range report.Findings {
				if f.Repaired == "" {
					t.Errorf("not repaired: %+v", f)
				}
			}
			time.Sleep(3 * time.Second)
		}
		close(stop)
		taken := <-done
		if list := w.list("dev"); taken < 12 || !strings.Contains(list, fmt.Sprintf("load %d ", taken)) {
			t.Errorf("load %d was taken, dev offers %s", taken, list)
		}
	})
}
