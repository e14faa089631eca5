package attack

import (
	"strings"
	"testing"
	"time"
)

func environment(words string) *Environment {
	set := map[string]string{}
	for word := range strings.FieldsSeq(words) {
		name, value, _ := strings.Cut(word, "=")
		set[name] = value
	}
	return &Environment{get: func(name string) string { return set[name] }}
}

func TestOrder(t *testing.T) {
	for words, want := range map[string]struct {
		n    int
		tags string
		Order
	}{
		"SEED=7":                                {500, "faults", Order{7, time.Hour, ""}},
		"N=3 SEED=7 TIME=40m BREAK=flush":       {3, "faults", Order{7, 40 * time.Minute, Flush}},
		"N=0 SEED=0 TIME=2s BREAK=rename-order": {0, "faults break_rename_order", Order{0, 2 * time.Second, "rename-order"}},
	} {
		env := environment(words)
		if n, o := env.Number("N", 500, 0), env.Order(time.Hour, Flush, "rename-order"); env.err != nil || n != want.n || o != want.Order || o.tags() != want.tags {
			t.Errorf("%s: %d, %+v, %s, %v", words, n, o, o.tags(), env.err)
		}
	}
	now := uint64(time.Now().Unix())
	if o := environment("").Order(time.Hour); o.Seed < now {
		t.Errorf("without a seed it is %d", o.Seed)
	}
}

// TestWrongOrders: each is refused, with all that is wrong.
func TestWrongOrders(t *testing.T) {
	env := environment("N=0 CUTS=many SEED=-1 TIME=40 BREAK=all")
	env.Number("N", 1000, 1)
	env.Number("CUTS", 1, 0)
	env.Order(time.Hour, "fsync", "rename-order")
	want := "cannot use N=0: it is a number from 1\ncannot use CUTS=many: it is a number from 0\ncannot use SEED=-1: it is a number\n" +
		"cannot use TIME=40: it is a duration such as 40m\ncannot use BREAK=all: it is one of fsync, rename-order"
	if env.err == nil || env.err.Error() != want {
		t.Errorf("%v", env.err)
	}
}
