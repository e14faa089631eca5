package blobstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"sync"
	"testing"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
	"aptfleet/snapshots/chunkstest"
)

// Run tests what open returns: each time an empty store.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Run("chunks", func(t *testing.T) {
		chunkstest.Run(t, func(t *testing.T) snapshots.Chunks { return open(t).Store })
	})
	for _, row := range []struct {
		name string
		test func(*testing.T, *Subject)
	}{
		{"appends a text to what is there", testAppendText},
		{"makes a frame once", testFrameOnce},
		{"keeps a frame that somebody else made", testForeignFrame},
		{"makes no frame of what it has not", testNoFrame},
		{"does not believe what a power failure left", testTorn},
		{"returns what is stored, good or not", testStored},
		{"restores over what is there", testRestore},
		{"encodes without keeping", testEncode},
		{"names everything differently", testNames},
		{"walks over and lists what there is", testWalk},
		{"drops a text with its frames", testDrop},
		{"does not drop what is protected", testProtect},
		{"outlives a process", testReopen},
		{"serves many at once", testMany},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			row.test(t, &s)
		})
	}
}

// reopen is a restart.
func (s *Subject) reopen() { s.Store = s.Reopen() }

func put(t *testing.T, s Store, text string) snapshots.ID {
	t.Helper()
	id, err := s.Put(context.Background(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func makeFrame(t *testing.T, s Store, id snapshots.ID, as frame.Encoding) []byte {
	t.Helper()
	data, err := s.AppendFrame(context.Background(), nil, id, as)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// mustHold checks that a text and its frames are there and good.
func mustHold(t *testing.T, s Store, id snapshots.ID, text string, frames map[frame.Encoding][]byte) {
	t.Helper()
	if got, err := s.Get(context.Background(), id); err != nil || string(got) != text {
		t.Errorf("the text is %q, %v; want %q", got, err, text)
	}
	for as, want := range frames {
		if got, err := s.AppendFrame(context.Background(), nil, id, as); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the frame %s is %x, %v; want %x", as, got, err, want)
		}
	}
}

// stanzas is a text that is worth compressing.
var stanzas = strings.Repeat("Package: one\nVersion: 1\n\n", 400)

func testAppendText(t *testing.T, s *Subject) {
	ctx := t.Context()
	id, empty := put(t, s, stanzas), put(t, s, "")
	for _, dst := range [][]byte{nil, {}, []byte("before"), append(make([]byte, 0, 1<<16), "before"...)} {
		want := string(dst) + stanzas
		got, err := s.AppendText(ctx, dst, id)
		if err != nil || string(got) != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
		if got, err = s.AppendText(ctx, got, empty); err != nil || string(got) != want {
			t.Fatalf("an empty text makes %d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	if _, err := s.AppendText(ctx, nil, snapshots.ID{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of an unknown id: %v, want fs.ErrNotExist", err)
	}
}

// The caller may do with the bytes what it likes.
func testFrameOnce(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	for _, as := range frame.Encodings {
		first, err := s.AppendFrame(t.Context(), []byte("before"), id, as)
		if err != nil {
			t.Fatal(err)
		}
		made, found := bytes.CutPrefix(first, []byte("before"))
		if !found || !frame.Holds(made, as, []byte(stanzas)) {
			t.Fatalf("the frame %s does not hold its text", as)
		}
		want := bytes.Clone(made)
		clear(first)
		got, err := s.AppendFrame(t.Context(), []byte("before"), id, as)
		if err != nil || string(got) != "before"+string(want) {
			t.Errorf("the second time %s has %d bytes, %v; want %d", as, len(got), err, len(want)+6)
		}
		s.reopen()
		mustHold(t, s, id, stanzas, map[frame.Encoding][]byte{as: want})
	}
}

// foreign is a frame of text that no encoder of ours makes.
func foreign(t *testing.T, s Store, text string, as frame.Encoding) []byte {
	t.Helper()
	data, err := s.Encode([]byte(text), as)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := frame.Empty(as)
	if err != nil {
		t.Fatal(err)
	}
	return append(data, empty...)
}

// A later version of a compressor makes other bytes: published indices repeat
// those of before.
func testForeignFrame(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	frames := make(map[frame.Encoding][]byte)
	for _, as := range frame.Encodings {
		frames[as] = foreign(t, s, stanzas, as)
		if err := s.RestoreFrame(id, as, frames[as]); err != nil {
			t.Fatal(err)
		}
	}
	mustHold(t, s, id, stanzas, frames)
	s.reopen()
	mustHold(t, s, id, stanzas, frames)
	put(t, s, stanzas)
	if err := s.Restore([]byte(stanzas)); err != nil {
		t.Fatal(err)
	}
	mustHold(t, s, id, stanzas, frames)
}

func testNoFrame(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	s.Damage(id, "", []byte("evil"))
	s.reopen()
	for _, as := range frame.Encodings {
		if _, err := s.AppendFrame(t.Context(), nil, snapshots.ID{1}, as); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of an unknown id: %v, want fs.ErrNotExist", as, err)
		}
		if _, err := s.AppendFrame(t.Context(), nil, id, as); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s of a damaged text: %v", as, err)
		}
		if _, err := s.Stored(id, as); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", as, err)
		}
	}
}

// What was never synced may be there with other bytes. Whoever puts it again
// need not know.
func testTorn(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	frames := make(map[frame.Encoding][]byte)
	for _, as := range frame.Encodings {
		frames[as] = makeFrame(t, s, id, as)
	}
	for name, torn := range map[string][]byte{"none": nil, "empty": {}, "short": []byte(stanzas[:10]), "zeros": make([]byte, len(stanzas))} {
		s.Damage(id, "", torn)
		for as := range frames {
			s.Damage(id, as, torn)
		}
		s.reopen()
		put(t, s, stanzas)
		mustHold(t, s, id, stanzas, frames)
		if t.Failed() {
			t.Fatalf("after: %s", name)
		}
	}
}

func testStored(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	if _, err := s.Stored(id, frame.Gzip); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a frame that nobody asked for: %v, want fs.ErrNotExist", err)
	}
	want := map[frame.Encoding][]byte{"": []byte(stanzas)}
	for _, as := range frame.Encodings {
		want[as] = makeFrame(t, s, id, as)
	}
	for as, data := range want {
		if got, err := s.Stored(id, as); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q has %d bytes, %v; want %d", as, len(got), err, len(data))
		}
		s.Damage(id, as, []byte("evil"))
		if got, err := s.Stored(id, as); err != nil || string(got) != "evil" {
			t.Errorf("%q, damaged, is %q, %v", as, got, err)
		}
		s.Damage(id, as, nil)
		if _, err := s.Stored(id, as); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q, lost: %v, want fs.ErrNotExist", as, err)
		}
	}
}

// A process that has put a text, and made its frame, is told that they are
// damaged, or lost.
func testRestore(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	frames := make(map[frame.Encoding][]byte)
	for _, as := range frame.Encodings {
		frames[as] = makeFrame(t, s, id, as)
	}
	for _, there := range [][]byte{[]byte("evil"), nil} {
		s.Damage(id, "", there)
		for as := range frames {
			s.Damage(id, as, there)
		}
		if err := s.Restore([]byte(stanzas)); err != nil {
			t.Fatal(err)
		}
		for as, data := range frames {
			if err := s.RestoreFrame(id, as, data); err != nil {
				t.Fatal(err)
			}
		}
		mustHold(t, s, id, stanzas, frames)
	}
	s.reopen()
	mustHold(t, s, id, stanzas, frames)
	text := []byte("nobody put this before")
	if err := s.Restore(text); err != nil {
		t.Fatal(err)
	}
	copy(text, "NOBODY")
	mustHold(t, s, put(t, s, "nobody put this before"), "nobody put this before", nil)
}

func testEncode(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	for _, as := range frame.Encodings {
		data, err := s.Encode([]byte(stanzas), as)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stored(id, as); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the frame %s was kept: %v", as, err)
		}
		if made := makeFrame(t, s, id, as); !bytes.Equal(made, data) {
			t.Errorf("Encode gives other bytes for %s than AppendFrame", as)
		}
	}
}

func testNames(t *testing.T, s *Subject) {
	known := make(map[string]bool)
	for _, id := range []snapshots.ID{{}, {1}, put(t, s, "is there")} {
		for _, as := range []frame.Encoding{"", frame.Gzip, frame.Zstd} {
			name := s.Name(id, as)
			if name == "" || known[name] {
				t.Errorf("%q is the name of two", name)
			}
			known[name] = true
			if gotID, gotAs, ok := s.Parse(name); !ok || gotID != id || gotAs != as {
				t.Errorf("%q is %s, %q, %v; want %s, %q", name, gotID, gotAs, ok, id, as)
			}
			for _, other := range []string{name + "x", "x" + name, "x/" + name, name + "/x", "public/" + name, name[:len(name)-1]} {
				if id, as, ok := s.Parse(other); ok {
					t.Errorf("%q is taken for %s, %q", other, id, as)
				}
			}
		}
	}
	if _, _, ok := s.Parse(""); ok {
		t.Error("nothing is the name of something")
	}
}

// sizes returns what a store lists, by text.
func sizes(t *testing.T, s Store) map[snapshots.ID]int64 {
	t.Helper()
	found := make(map[snapshots.ID]int64)
	if err := s.List(func(id snapshots.ID, bytes int64) {
		if _, twice := found[id]; twice {
			t.Errorf("%s is listed twice", id)
		}
		found[id] = bytes
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// walk returns what a store walks over, by name.
func walk(t *testing.T, s Store) map[string]int64 {
	t.Helper()
	found := make(map[string]int64)
	if err := s.Walk(func(id snapshots.ID, as frame.Encoding, size int64) {
		if _, twice := found[s.Name(id, as)]; twice {
			t.Errorf("%s comes twice", s.Name(id, as))
		}
		found[s.Name(id, as)] = size
	}, func(name string) { t.Errorf("%s is there and is no blob", name) }); err != nil {
		t.Fatal(err)
	}
	return found
}

func testWalk(t *testing.T, s *Subject) {
	if len(walk(t, s)) > 0 || len(sizes(t, s)) > 0 {
		t.Error("an empty store holds something")
	}
	plain, framed, lost := put(t, s, "without frames"), put(t, s, stanzas), put(t, s, "will be lost")
	wantSizes := map[snapshots.ID]int64{plain: int64(len("without frames")), framed: int64(len(stanzas))}
	want := map[string]int64{s.Name(plain, ""): wantSizes[plain], s.Name(framed, ""): wantSizes[framed]}
	for _, as := range frame.Encodings {
		n := int64(len(makeFrame(t, s, framed, as)))
		want[s.Name(framed, as)] = n
		wantSizes[framed] += n
	}
	// A gc that was killed leaves a frame without its text.
	n := int64(len(makeFrame(t, s, lost, frame.Zstd)))
	s.Damage(lost, "", nil)
	want[s.Name(lost, frame.Zstd)], wantSizes[lost] = n, n
	for range 2 {
		if got := walk(t, s); !maps.Equal(got, want) {
			t.Errorf("there are %v; want %v", got, want)
		}
		if got := sizes(t, s); !maps.Equal(got, wantSizes) {
			t.Errorf("listed are %v; want %v", got, wantSizes)
		}
		s.reopen()
	}
}

// What was dropped is written again when it is put again: a store does not go
// by what it remembers.
func testDrop(t *testing.T, s *Subject) {
	ctx := t.Context()
	id, kept, half := put(t, s, stanzas), put(t, s, "kept"), put(t, s, "half")
	frames := make(map[frame.Encoding][]byte)
	for _, as := range frame.Encodings {
		frames[as] = makeFrame(t, s, id, as)
		makeFrame(t, s, half, as)
	}
	s.Damage(half, "", nil)
	for range 2 { // the second time they are gone
		for _, id := range []snapshots.ID{id, half} {
			if dropped, err := s.Drop(id); !dropped || err != nil {
				t.Fatalf("Drop: %v, %v", dropped, err)
			}
		}
	}
	if _, err := s.Get(ctx, id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of what was dropped: %v", err)
	}
	for as := range frames {
		if _, err := s.AppendFrame(ctx, nil, id, as); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the frame %s of what was dropped: %v", as, err)
		}
	}
	if found := walk(t, s); len(found) != 1 || len(sizes(t, s)) != 1 {
		t.Errorf("there are %v", found)
	}
	put(t, s, stanzas)
	mustHold(t, s, id, stanzas, frames)
	mustHold(t, s, kept, "kept", nil)
}

func testProtect(t *testing.T, s *Subject) {
	before, again := put(t, s, "before"), put(t, s, "again")
	release := s.Protect()
	put(t, s, "again") // is there, so nothing is written
	fresh := put(t, s, "fresh")
	for id, want := range map[snapshots.ID]bool{before: true, again: false, fresh: false} {
		if dropped, err := s.Drop(id); dropped != want || err != nil {
			t.Errorf("Drop: %v, %v, want %v", dropped, err, want)
		}
		if _, err := s.Get(t.Context(), id); (err != nil) != want {
			t.Errorf("Get after Drop: %v", err)
		}
	}
	release()
	put(t, s, "again")
	if dropped, err := s.Drop(again); !dropped || err != nil {
		t.Errorf("Drop after the end of the protection: %v, %v", dropped, err)
	}
	// A later protection knows nothing of the one before.
	defer s.Protect()()
	if dropped, err := s.Drop(fresh); !dropped || err != nil {
		t.Errorf("Drop of what an earlier protection kept: %v, %v", dropped, err)
	}
}

func testReopen(t *testing.T, s *Subject) {
	id := put(t, s, stanzas)
	frames := make(map[frame.Encoding][]byte)
	for _, as := range frame.Encodings {
		frames[as] = makeFrame(t, s, id, as)
	}
	gone := put(t, s, "gone")
	if _, err := s.Drop(gone); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	before := walk(t, s)
	s.reopen()
	if after := walk(t, s); !maps.Equal(before, after) {
		t.Errorf("there are %v; want %v", after, before)
	}
	mustHold(t, s, id, stanzas, frames)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// Publications, uploads, a repair, a check and a gc, all at once: whoever puts
// a text that a gc protects has it and its frames.
func testMany(t *testing.T, s *Subject) {
	ctx := context.Background()
	defer s.Protect()()
	texts := make([]string, 20)
	ids := make([]snapshots.ID, len(texts))
	frames := make([]map[frame.Encoding][]byte, len(texts))
	for i := range texts {
		texts[i] = fmt.Sprintf("Package: p%d\n\n", i) + stanzas
		frames[i] = make(map[frame.Encoding][]byte)
		for _, as := range frame.Encodings {
			data, err := s.Encode([]byte(texts[i]), as)
			if err != nil {
				t.Fatal(err)
			}
			frames[i][as] = data
		}
	}
	var writers, others sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for i, text := range texts {
				id, err := s.Put(ctx, []byte(text))
				if err != nil {
					t.Error(err)
					return
				}
				for as, want := range frames[i] {
					if got, err := s.AppendFrame(ctx, nil, id, as); err != nil || !bytes.Equal(got, want) {
						t.Errorf("frame %s of %d: %d bytes, %v; want %d", as, i, len(got), err, len(want))
					}
				}
				if got, err := s.AppendText(ctx, nil, id); err != nil || string(got) != text {
					t.Errorf("text of %d: %v", i, err)
				}
			}
		})
	}
	done := make(chan struct{})
	others.Go(func() { // a check beside a gc
		for {
			select {
			case <-done:
				return
			default:
			}
			err := s.Walk(func(id snapshots.ID, as frame.Encoding, _ int64) {
				if _, err := s.Stored(id, as); err != nil {
					t.Errorf("%s: %v", s.Name(id, as), err)
				}
			}, func(string) {})
			err = errors.Join(err, s.List(func(id snapshots.ID, _ int64) {
				if dropped, err := s.Drop(id); dropped || err != nil {
					t.Errorf("dropped %s: %v, %v", id, dropped, err)
				}
			}), s.Sync())
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	others.Go(func() { // a repair of what is good
		for _, text := range texts {
			_, err := s.Put(ctx, []byte(text)) // protects it
			if err := errors.Join(err, s.Restore([]byte(text))); err != nil {
				t.Error(err)
			}
		}
	})
	writers.Wait()
	close(done)
	others.Wait()
	for i, text := range texts {
		ids[i] = put(t, s, text)
		mustHold(t, s, ids[i], text, frames[i])
	}
	if found := walk(t, s); len(found) != len(texts)*3 {
		t.Errorf("there are %d blobs, want %d", len(found), len(texts)*3)
	}
}
