package snapshots

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// texts returns the chunk texts of every index of a state.
func texts(t *testing.T, c Chunks, s State) map[Key][][]byte {
	t.Helper()
	all := make(map[Key][][]byte)
	for _, key := range s.Keys() {
		all[key] = [][]byte{}
		for _, ref := range s.Index(key).Chunks {
			all[key] = append(all[key], must[[]byte](t)(c.Get(context.Background(), ref.ID)))
		}
	}
	return all
}

func TestAStateIsAssembledFromItsChunks(t *testing.T) {
	store := &counting{}
	s := largeState(t, store, 3000) // arm64 is empty
	puts := store.puts
	got := must[State](t)(Assemble(t.Context(), texts(t, store, s)))
	if got.ID() != s.ID() || string(got.Text()) != string(s.Text()) {
		t.Errorf("assembled %s, want %s", got.ID(), s.ID())
	}
	if store.puts != puts {
		t.Error("Assemble stored something")
	}
}

func TestOtherChunksAreAnotherState(t *testing.T) {
	store := &counting{}
	s := largeState(t, store, 3000)
	rows := map[string]func(map[Key][][]byte){
		"one is missing":   func(all map[Key][][]byte) { all[amd64] = all[amd64][1:] },
		"an index is none": func(all map[Key][][]byte) { delete(all, Key{"apps", "arm64"}) },
		"in another order": func(all map[Key][][]byte) { slices.Reverse(all[amd64]) },
	}
	for name, change := range rows {
		t.Run(name, func(t *testing.T) {
			all := texts(t, store, s)
			change(all)
			if got, err := Assemble(t.Context(), all); err == nil && got.ID() == s.ID() {
				t.Error("it has the same id")
			}
		})
	}
	all := texts(t, store, s)
	all[amd64][0] = append([]byte("x"), all[amd64][0]...)
	if _, err := Assemble(t.Context(), all); err == nil || !strings.Contains(err.Error(), "chunk 1 is wrong") {
		t.Errorf("error is %v", err)
	}
}
