package release_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Nothing is committed while somebody looks, and everything is afterwards.
func TestStill(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		looking, look, uploaded := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		seen := make(chan error, 1)
		go func() {
			seen <- w.Still(t.Context(), func(context.Context) error {
				close(looking)
				<-look
				return errors.New("what it says is what the caller is told")
			})
		}()
		<-looking
		before, err := w.Resolve(t.Context(), "demo", "dev")
		must(t, err)
		in := w.receive("hello", "1.0", "amd64", "")
		go func() {
			_, err := w.Add(t.Context(), ann, "demo", "apps", in, false)
			uploaded <- err
		}()
		time.Sleep(time.Minute)
		during, err := w.Resolve(t.Context(), "demo", "dev")
		must(t, err)
		if during != before || len(uploaded) > 0 {
			t.Error("an upload was taken meanwhile")
		}
		close(look)
		if err := <-seen; err == nil {
			t.Error("the error was lost")
		}
		must(t, <-uploaded)
	})
}

func TestRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		must(t, w.Record(t.Context(), ann, "back up", "server", "to /srv/backup"))
		acts, err := w.Acts(t.Context(), "", 1)
		must(t, err)
		if a := acts[0]; a.By != "ann" || a.Via != "socket" || a.Verb != "back up" || a.Object != "server" || a.Detail != "to /srv/backup" || a.At.IsZero() || a.Pipeline != "" {
			t.Errorf("recorded %+v", a)
		}
	})
}

// A gc would remove what a backup is about to copy.
func TestBackupAndGCExcludeEachOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		waits := func(ctx context.Context, _ *release.Progress) error {
			<-ctx.Done()
			return ctx.Err()
		}
		for first, second := range map[string]string{release.KindBackup: release.KindGC, release.KindGC: release.KindBackup} {
			one, err := w.StartChange(t.Context(), ann, release.Change{Kind: first, Subject: "a", Summary: first}, waits)
			must(t, err)
			_, err = w.StartChange(t.Context(), ann, release.Change{Kind: second, Pipeline: "demo", Subject: "b", Summary: second}, waits)
			wantCode(t, err, release.Locked, "cannot start "+second, first, "ann")
			other, err := w.StartChange(t.Context(), ann, release.Change{Kind: "mirror-update", Summary: "update"}, waits)
			must(t, err)
			for _, id := range []int64{one.ID, other.ID} {
				_, err = w.AbortChange(t.Context(), id)
				must(t, err)
			}
			time.Sleep(time.Second)
		}
	})
}
