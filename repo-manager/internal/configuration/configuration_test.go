package configuration_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is a pipeline with devices, and a server that can be started again.
type world struct {
	t         testing.TB
	store     *storetest.Memory
	vault     []byte
	devices   map[string]configuration.Device
	products  []string
	telling   sync.Mutex
	announced []string
	*configuration.Service
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, store: new(storetest.Memory), vault: configuration.NewVaultFile(), devices: make(map[string]configuration.Device), products: []string{"gateway", "sensor"}}
	if err := w.store.Commit(t.Context(), release.Batch{Pipelines: []release.Pipeline{{Name: "demo", Created: noon}, {Name: "other", Created: noon}}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []configuration.Device{
		{Name: "gw-1", Product: "gateway", Stage: "production"}, {Name: "gw-2", Product: "gateway", Stage: "canary"},
		{Name: "s-1", Product: "sensor", Stage: "production"}, {Name: "bare"},
	} {
		d.Pipeline = "demo"
		w.devices[d.Name] = d
	}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	vault, err := configuration.ParseVault(w.vault)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service, err = configuration.Open(w.t.Context(), configuration.Config{
		Store: w.store, Vault: vault, Devices: w, Clock: func() time.Time { return noon },
		Pipeline: func(_ context.Context, name string) (release.Pipeline, error) {
			if name != "demo" && name != "other" {
				return release.Pipeline{}, &release.Error{Code: release.NotFound, Text: "no pipeline"}
			}
			return release.Pipeline{Name: name, Stages: []string{"dev", "canary", "production"}}, nil
		},
		Products: func(context.Context, string) ([]string, error) { return w.products, nil },
		Announce: func(kind, pipeline, subject string) {
			w.telling.Lock()
			defer w.telling.Unlock()
			w.announced = append(w.announced, kind+" "+pipeline+" "+subject)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// Find implements configuration.Devices.
func (w *world) Find(_ context.Context, name string) (configuration.Device, bool, error) {
	d, ok := w.devices[name]
	return d, ok, nil
}

// All implements configuration.Devices.
func (w *world) All(_ context.Context, pipeline string) (iter.Seq[configuration.Device], error) {
	return func(yield func(configuration.Device) bool) {
		for _, d := range w.devices {
			if d.Pipeline == pipeline && !yield(d) {
				return
			}
		}
	}, nil
}

func scope(text string) configuration.Scope {
	kind, name, _ := strings.Cut(text, ":")
	return configuration.Scope{Pipeline: "demo", Kind: configuration.Kind(kind), Name: name}
}

var otto = release.Actor{Name: "otto", Via: "socket"}

func (w *world) set(at, key string, value any, t configuration.Type) (configuration.Done, error) {
	return w.Set(w.t.Context(), otto, scope(at), configuration.Order{Key: key, Type: t, Value: value})
}

func (w *world) mustSet(at, key string, value any, t configuration.Type) configuration.Done {
	w.t.Helper()
	done, err := w.set(at, key, value, t)
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func (w *world) unset(at, key string) {
	w.t.Helper()
	if _, err := w.Unset(w.t.Context(), otto, scope(at), key, false); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) schema(product string, fields map[string]configuration.Field) (int, error) {
	return w.SetSchema(w.t.Context(), otto, configuration.Schema{Pipeline: "demo", Product: product, Fields: fields}, false)
}

// revision is that of a device; "" if there is none, for the reason that For has.
func (w *world) revision(device string) string {
	w.t.Helper()
	d := w.devices[device]
	r, err := w.Revision(d)
	if err != nil {
		if _, again := w.For(d); r != "" || again == nil || again.Error() != err.Error() {
			w.t.Errorf("%s: revision %q, %v, and the configuration %v", device, r, err, again)
		}
	}
	return r
}

// values is what a device is given, without secrets.
func (w *world) values(device string) string {
	w.t.Helper()
	key, err := seal.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	d := w.devices[device]
	d.Sealing = key.PublicKey().Bytes()
	c, err := w.For(d)
	if err != nil {
		return err.Error()
	}
	if got := w.revision(device); c.Revision != got || c.Revision == "" {
		w.t.Errorf("%s: revision %q, and the configuration has %q", device, got, c.Revision)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Secrets)) {
		secret, err := seal.Open(key, device, name, c.Secrets[name])
		if err != nil {
			w.t.Error(err)
		}
		c.Values[name] = "secret " + string(secret)
	}
	return fmt.Sprint(c.Values)
}

func TestTheNearestWins(t *testing.T) {
	w := newWorld(t)
	w.mustSet("product:gateway", "a", "product", "")
	w.mustSet("stage:production", "a", "stage", "")
	w.mustSet("device:gw-1", "a", "device", "")
	w.mustSet("product:gateway", "b", "7", configuration.Integer)
	w.mustSet("stage:production", "token", "s3cret", configuration.Secret)
	for device, want := range map[string]string{
		"gw-1": "map[a:device b:7 token:secret s3cret]",
		"gw-2": "map[a:product b:7]",
		"s-1":  "map[a:stage token:secret s3cret]",
		"bare": "map[]",
	} {
		if got := w.values(device); got != want {
			t.Errorf("%s: %s, want %s", device, got, want)
		}
	}
	w.unset("device:gw-1", "a")
	if got := w.values("gw-1"); got != "map[a:stage b:7 token:secret s3cret]" {
		t.Errorf("without its own value: %s", got)
	}
	before := w.values("gw-1")
	w.devices["gw-1"] = configuration.Device{Name: "gw-1", Pipeline: "demo", Product: "gateway", Stage: "canary"}
	if got := w.values("gw-1"); got != "map[a:product b:7]" {
		t.Errorf("in another stage: %s; before %s", got, before)
	}
	effective, err := w.Effective(t.Context(), "demo", "s-1")
	if err != nil || len(effective) != 2 || effective[0].Scope != scope("stage:production") || effective[1].Key != "token" {
		t.Errorf("%+v, %v", effective, err)
	}
	if got := strings.Join(w.announced[:2], ", "); got != "config demo product:gateway, config demo stage:production" {
		t.Errorf("announced: %s", got)
	}
}

// TestRevision changes with every value and with nothing else.
func TestRevision(t *testing.T) {
	w := newWorld(t)
	seen := make(map[string]string)
	step := func(what string, isNew bool) {
		t.Helper()
		r := w.revision("gw-1")
		if before, known := seen[r]; known == isNew || r == "" {
			t.Errorf("after %s the revision is %q, as after %q", what, r, before)
		}
		seen[r] = what
		w.start()
		if again := w.revision("gw-1"); again != r {
			t.Errorf("after %s and a restart the revision is %q, not %q", what, again, r)
		}
	}
	step("nothing", true)
	w.mustSet("product:gateway", "a", "1", "")
	step("a string", true)
	w.mustSet("product:gateway", "a", "1", configuration.Integer)
	step("a number in its place", true)
	w.mustSet("product:gateway", "a", "1.0", configuration.Integer)
	step("the same number", false)
	w.mustSet("stage:canary", "b", "1", "")
	w.mustSet("device:gw-2", "b", "1", "")
	step("values of others", false)
	w.mustSet("device:gw-1", "token", "x", configuration.Secret)
	step("a secret", true)
	w.mustSet("device:gw-1", "token", "y", configuration.Secret)
	step("another secret", true)
	// Whoever could see here that a secret is what it was could guess it.
	w.mustSet("device:gw-1", "token", "x", configuration.Secret)
	step("the first secret again", true)
	w.unset("device:gw-1", "token")
	step("no secret", false)

	one, two := w.devices["gw-1"], w.devices["gw-2"]
	two.Stage = one.Stage
	two.Name = "gw-3"
	a, _ := w.Revision(one)
	if b, err := w.Revision(two); a != b || err != nil {
		t.Error("devices with the same values have different revisions")
	}
}

// TestAnAssignmentIsTheSameForBothSides: numbers must not change when they are
// read from JSON and written again, or the two sides' Content would differ.
func TestAnAssignmentIsTheSameForBothSides(t *testing.T) {
	w := newWorld(t)
	for i, text := range []string{"9007199254740991", "-0", "1e21", "1e-7", "0.1", "100000", "-9007199254740991"} {
		w.mustSet("product:gateway", fmt.Sprintf("n%d", i), text, configuration.Number)
	}
	w.mustSet("product:gateway", "t", "<&>\u2028", "")
	c, err := w.For(w.devices["gw-1"])
	if err != nil {
		t.Fatal(err)
	}
	content := func(c *protocol.AssignedConfig) string { return protocol.Assignment{Config: c}.Content() }
	if back := roundTrip(t, c); content(back) != content(c) {
		t.Errorf("%v became %v", c.Values, back.Values)
	}
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		t    configuration.Type
		in   any
		want string // "": an error
	}{
		{configuration.String, "x", `"x"`},
		{configuration.String, "", `""`},
		{configuration.String, "a\n\tb", `"a\n\tb"`},
		{configuration.String, "a\rb", ""},
		{configuration.String, "a\x00b", ""},
		{configuration.String, "\xff", ""},
		{configuration.String, "\ufdd0", ""},
		{configuration.String, strings.Repeat("x", protocol.MaxConfigValue), `"` + strings.Repeat("x", protocol.MaxConfigValue) + `"`},
		{configuration.String, strings.Repeat("x", protocol.MaxConfigValue+1), ""},
		{configuration.String, 1.0, ""},
		{configuration.String, nil, ""},
		{configuration.String, []any{"x"}, ""},
		{configuration.Secret, "", ""},
		{configuration.Secret, 1.0, ""},
		{configuration.Boolean, "true", "true"},
		{configuration.Boolean, false, "false"},
		{configuration.Boolean, "yes", ""},
		{configuration.Boolean, []any{}, ""},
		{configuration.Integer, "30", "30"},
		{configuration.Integer, 30.0, "30"},
		{configuration.Integer, "3e1", "30"},
		{configuration.Integer, "-0", "0"},
		{configuration.Integer, "030", ""},
		{configuration.Integer, "1.5", ""},
		{configuration.Integer, "9007199254740991", "9007199254740991"},
		{configuration.Integer, "9007199254740993", ""},
		{configuration.Integer, " 1", ""},
		{configuration.Integer, true, ""},
		{configuration.Number, "0.1", "0.1"},
		{configuration.Number, "1e400", ""},
		{configuration.Number, "Inf", ""},
		{configuration.Number, "0x1p4", ""},
		{configuration.Number, "1_000", ""},
		{"text", "x", ""},
	} {
		got, err := configuration.Read(c.t, c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%.40v as %s: %.40q, %v; want %.40q", c.in, c.t, got, err, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	low, high := 1.0, 60.0
	if _, err := w.schema("gateway", map[string]configuration.Field{
		"interval": {Type: configuration.Integer, Min: &low, Max: &high},
		"mode":     {Type: configuration.Enum, Values: []string{"eco", "fast"}},
		"host":     {Type: configuration.String, Pattern: "[a-z]+"},
		"token":    {Type: configuration.Secret},
		"ratio":    {Type: configuration.Number},
	}); err != nil {
		t.Fatal(err)
	}
	w.mustSet("product:sensor", "log.level", "info", "")
	for _, c := range []struct {
		at, key string
		value   any
		t       configuration.Type
		code    release.Code
		text    string
	}{
		{"product:gateway", "intervall", "1", "", release.Refused, "no such key"},
		{"device:gw-1", "other", "1", "", release.Refused, "product gateway has no such key"},
		{"stage:production", "other", "1", "", "", ""}, // sensors have no schema
		{"device:s-1", "other", "1", "", "", ""},
		{"stage:production", "interval", "61", "", release.Refused, "product gateway: it is more than 60"},
		{"device:gw-1", "interval", "0", "", release.Refused, "it is less than 1"},
		{"device:gw-1", "interval", "x", "", release.Invalid, "it is no integer"},
		{"device:gw-1", "interval", "5", configuration.String, release.Refused, "it is of type string and must be integer"},
		{"device:gw-1", "ratio", "5", configuration.Integer, "", ""},
		{"device:gw-1", "mode", "slow", "", release.Refused, "it is none of [eco fast]"},
		{"device:gw-1", "mode", "eco", "", "", ""},
		{"device:gw-1", "host", "a b", "", release.Refused, "it does not match [a-z]+"},
		{"device:gw-1", "host", "a\n", "", release.Refused, "it does not match"},
		{"device:gw-1", "token", "canary", "", release.Refused, "it is a secret"},
		{"device:gw-1", "token", "canary", configuration.String, release.Refused, "it is of type string and must be secret"},
		{"device:s-1", "mode", "x", configuration.Enum, release.Invalid, "only a schema makes a key an enum"},
		{"device:gw-1", "A", "1", "", release.Invalid, "is no key"},
		{"device:gw-1", "a..b", "1", "", release.Invalid, "is no key"},
		{"device:gw-1", "ld.preload", "1", "", release.Invalid, "LD_PRELOAD"},
		{"device:s-1", "log_level", "1", "", release.Conflict, "log.level would be LOG_LEVEL"},
		{"device:nobody", "a", "1", "", release.NotFound, "none of that name"},
		{"stage:nowhere", "a", "1", "", release.NotFound, "none of that name"},
		{"product:nothing", "a", "1", "", release.NotFound, "none of that name"},
		{"user:otto", "a", "1", "", release.Invalid, "as a scope"},
		{"device:../x", "a", "1", "", release.Invalid, "as a scope"},
		{"device:s-1", "big", strings.Repeat("canary", 4000), "", release.Invalid, "more than 16384"},
	} {
		_, err := w.set(c.at, c.key, c.value, c.t)
		var e *release.Error
		if c.code == "" && err == nil {
			continue
		}
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Text, c.text) || strings.Contains(e.Text+e.Hint, "canary") {
			t.Errorf("%s %s: %v, want %s with %q", c.at, c.key, err, c.code, c.text)
		}
	}
	other := scope("device:gw-1")
	other.Pipeline = "other"
	if _, err := w.Set(t.Context(), otto, other, configuration.Order{Key: "a", Value: "1"}); release.CodeOf(err) != release.NotFound {
		t.Errorf("a device of another pipeline: %v", err)
	}
	if _, err := w.Unset(t.Context(), otto, scope("device:gw-2"), "a", false); release.CodeOf(err) != release.NotFound {
		t.Errorf("unset of nothing: %v", err)
	}
}

func TestSchemaChanges(t *testing.T) {
	w := newWorld(t)
	w.mustSet("product:gateway", "interval", "100", configuration.Integer)
	w.mustSet("device:gw-1", "old.key", "x", "")
	w.mustSet("device:s-1", "interval", "soon", configuration.String)
	w.mustSet("stage:production", "mode", "eco", "")
	w.mustSet("stage:canary", "of.sensors", "x", "")
	high := 50.0
	fields := map[string]configuration.Field{
		"interval": {Type: configuration.Integer, Max: &high},
		"mode":     {Type: configuration.Boolean},
		"url":      {Type: configuration.String, Required: true},
	}
	_, err := w.schema("gateway", fields)
	want := "interval of product:gateway: it is more than 50; mode of stage:production: it is of type string and must be boolean; old.key of device:gw-1: there would be no such key"
	if release.CodeOf(err) != release.Refused || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
	w.mustSet("product:gateway", "interval", "50", "")
	w.unset("device:gw-1", "old.key")
	w.mustSet("stage:production", "mode", "true", configuration.Boolean)
	if _, err := w.schema("gateway", fields); err != nil {
		t.Fatal(err)
	}
	if got := w.values("gw-1"); got != "cannot configure device gw-1: url is required and not set" || w.revision("gw-1") != "" {
		t.Errorf("without what is required: %s", got)
	}
	if done := w.mustSet("product:gateway", "url", "http://x", ""); done.Devices != 2 {
		t.Errorf("%d devices get what they required", done.Devices)
	}
	if got := w.values("gw-2"); got != "map[interval:50 url:http://x]" {
		t.Errorf("a stage's keys that the product does not have: %s", got)
	}
	fields["url"] = configuration.Field{Type: configuration.String, Default: `"http://y"`}
	w.unset("product:gateway", "url")
	if n, err := w.schema("gateway", fields); err != nil || n != 2 || w.values("gw-2") != "map[interval:50 url:http://y]" {
		t.Errorf("with a default: %d, %v, %s", n, err, w.values("gw-2"))
	}
	// A device that becomes another product's may have values that do not fit.
	d := w.devices["s-1"]
	d.Product = "gateway"
	w.devices["s-1"] = d
	if got := w.values("s-1"); got != "cannot configure device s-1: interval of device:s-1: it is of type string and must be integer" {
		t.Errorf("a device that moved: %s", got)
	}
	w.start()
	if got := w.values("gw-2"); got != "map[interval:50 url:http://y]" {
		t.Errorf("after a restart: %s", got)
	}
	if _, err := w.schema("gateway", nil); err != nil {
		t.Fatal(err)
	}
	if got := w.values("gw-2"); got != "map[interval:50 of.sensors:x]" {
		t.Errorf("without a schema: %s", got)
	}
	if s, err := w.Schema(t.Context(), "demo", "gateway"); err != nil || s.Fields != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestBadSchemas(t *testing.T) {
	w := newWorld(t)
	w.mustSet("product:sensor", "log.level", "info", "")
	one := 1.0
	for name, f := range map[string]map[string]configuration.Field{
		"no type":            {"a": {}},
		"unknown type":       {"a": {Type: "text"}},
		"enum of nothing":    {"a": {Type: configuration.Enum}},
		"values of a string": {"a": {Type: configuration.String, Values: []string{"x"}}},
		"pattern":            {"a": {Type: configuration.String, Pattern: "("}},
		"pattern of secret":  {"a": {Type: configuration.Secret, Pattern: "x"}},
		"min of a string":    {"a": {Type: configuration.String, Min: &one}},
		"default":            {"a": {Type: configuration.Integer, Default: "0", Min: &one}},
		"secret default":     {"a": {Type: configuration.Secret, Default: `"x"`}},
		"key":                {"A": {Type: configuration.String}},
		"two names":          {"a-b": {Type: configuration.String}, "a_b": {Type: configuration.String}},
		"a name of others":   {"log_level": {Type: configuration.String}},
	} {
		if _, err := w.schema("gateway", f); err == nil {
			t.Errorf("a schema with a bad %s was taken", name)
		}
	}
	if _, err := w.schema("nothing", map[string]configuration.Field{}); release.CodeOf(err) != release.NotFound {
		t.Errorf("a schema of no product: %v", err)
	}
}

// TestASchemaOfAnEarlierProgram that this one would refuse: the server starts,
// and says so where it matters.
func TestASchemaOfAnEarlierProgram(t *testing.T) {
	w := newWorld(t)
	old := configuration.Schema{Pipeline: "demo", Product: "gateway", Fields: map[string]configuration.Field{"ld.preload": {Type: configuration.String}}}
	if err := w.store.PutConfigSchema(t.Context(), old, release.Act{At: noon}); err != nil {
		t.Fatal(err)
	}
	w.start()
	if got := w.values("gw-1"); !strings.HasPrefix(got, "cannot configure device gw-1: the schema of product gateway must be set again: ld.preload cannot be a key") {
		t.Errorf("%s", got)
	}
	if got := w.values("s-1"); got != "map[]" {
		t.Errorf("another product's device: %s", got)
	}
	if _, err := w.schema("gateway", map[string]configuration.Field{}); err != nil || w.values("gw-1") != "map[]" {
		t.Errorf("with another: %v, %s", err, w.values("gw-1"))
	}
}

// TestManyAtOnce looks for races, and for revisions and values of two moments.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	var wait sync.WaitGroup
	done := make(chan struct{})
	for _, name := range []string{"gw-1", "gw-2", "s-1"} {
		d := w.devices[name]
		wait.Go(func() {
			seen := make(map[string]string)
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := w.Revision(d); err != nil {
					t.Error(err)
				}
				c, err := w.For(d)
				if err != nil {
					t.Error(err)
					return
				}
				if text := fmt.Sprint(c.Values); seen[c.Revision] != "" && seen[c.Revision] != text {
					t.Errorf("revision %s is %s and %s", c.Revision, seen[c.Revision], text)
				} else {
					seen[c.Revision] = text
				}
			}
		})
	}
	var setters sync.WaitGroup
	for i, at := range []string{"product:gateway", "stage:production", "device:gw-1", "device:gw-1"} {
		setters.Go(func() {
			for n := range 200 {
				if _, err := w.set(at, "a", fmt.Sprint(i, " ", n), ""); err != nil {
					t.Error(err)
				}
				if _, err := w.List(t.Context(), scope(at)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	setters.Wait()
	close(done)
	wait.Wait()
	if got := w.values("gw-2"); got != "map[a:0 199]" {
		t.Errorf("%s", got)
	}
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	full := strings.Repeat("x", protocol.MaxConfigValue-2)
	for i := range 15 {
		w.mustSet("product:gateway", fmt.Sprintf("k%d", i), full, "")
	}
	// Each scope is within the bounds; what the device would get is not.
	w.mustSet("device:gw-1", "own", full[:len(full)/2], "")
	_, err := w.set("device:gw-1", "own", full, "")
	if release.CodeOf(err) != release.Refused || !strings.Contains(err.Error(), "device gw-1: 16 keys with") {
		t.Errorf("too much: %v", err)
	}
	w.mustSet("device:gw-1", "own", "x", "")
	w.mustSet("stage:canary", "of.canary", full[:len(full)-500], "") // gw-2 has nothing of its own
	if _, err := w.set("product:gateway", "one.more", full, ""); err == nil {
		t.Error("devices got more than they can have")
	}

	w = newWorld(t)
	for i := range protocol.MaxConfigKeys {
		w.mustSet("device:bare", fmt.Sprintf("k%d", i), "x", "")
	}
	if _, err := w.set("device:bare", "one.more", "x", ""); release.CodeOf(err) != release.Refused {
		t.Errorf("1001 keys: %v", err)
	}
}

func TestWhatChanged(t *testing.T) {
	w := newWorld(t)
	done := w.mustSet("stage:production", "a", "1", "")
	if done.Devices != 2 || done.Old != nil || done.New.JSON != `"1"` || done.Unchanged {
		t.Errorf("%+v", done)
	}
	if done := w.mustSet("stage:production", "a", "1", ""); !done.Unchanged || done.Devices != 0 {
		t.Errorf("the same again: %+v", done)
	}
	w.mustSet("device:gw-1", "a", "2", "")
	if done := w.mustSet("stage:production", "a", "3", ""); done.Devices != 1 {
		t.Errorf("a device with a value of its own counts: %+v", done)
	}
	dry, err := w.Set(t.Context(), otto, scope("product:sensor"), configuration.Order{Key: "b", Value: "1", DryRun: true})
	if err != nil || dry.Devices != 1 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	if got := w.values("s-1"); got != "map[a:3]" {
		t.Errorf("after a dry run: %s", got)
	}
	w.store.FailNext(errors.New("disk"))
	if _, err := w.set("stage:production", "a", "4", ""); err == nil || w.values("s-1") != "map[a:3]" {
		t.Errorf("what was not stored counts: %v, %s", err, w.values("s-1"))
	}
	w.mustSet("stage:production", "token", "canary", configuration.Secret)
	w.mustSet("stage:production", "token", "canary", configuration.Secret)
	w.unset("stage:production", "token")
	history, err := w.History(t.Context(), scope("stage:production"), "token", 0)
	if err != nil || len(history) != 3 || history[0].New != nil || history[1].Old == nil || history[1].By != "otto" {
		t.Errorf("%+v, %v", history, err)
	}
	acts, err := w.store.Acts(t.Context(), "demo", 0)
	if err != nil || len(acts) != 6 || acts[2].Detail != "token: (not set) → (secret)" || acts[3].Detail != `a: "1" → "3"` || acts[3].Object != "stage production" || acts[3].By != "otto" {
		t.Errorf("%+v, %v", acts, err)
	}
	if text := fmt.Sprintf("%+v %+v", acts, history); strings.Contains(text, "canary") {
		t.Errorf("a secret is on record: %s", text)
	}
}

func TestLostKey(t *testing.T) {
	w := newWorld(t)
	w.mustSet("product:gateway", "token", "s3cret", configuration.Secret)
	w.mustSet("product:gateway", "a", "1", "")
	revision, old := w.revision("gw-1"), w.vault
	w.vault = configuration.NewVaultFile()
	w.start()
	if got := w.values("gw-1"); got != "cannot configure device gw-1: token of product:gateway cannot be read any more: it must be set again" || w.revision("gw-1") != "" {
		t.Errorf("with another key: %s", got)
	}
	if got := w.Unreadable(); len(got) != 1 || got[0] != "product:gateway token" {
		t.Errorf("unreadable: %v", got)
	}
	w.vault = append(w.vault, old...)
	w.start()
	if got := w.values("gw-1"); got != "map[a:1 token:secret s3cret]" || w.revision("gw-1") != revision {
		t.Errorf("with both keys: %s", got)
	}
	for _, bad := range []string{"", "# nothing\n", "00\n", strings.Repeat("g", 64)} {
		if _, err := configuration.ParseVault([]byte(bad)); err == nil {
			t.Errorf("%q is a key file", bad)
		}
	}
}

// TestAStolenRow: what was encrypted for one place does not open in another.
func TestAStolenRow(t *testing.T) {
	w := newWorld(t)
	w.mustSet("product:gateway", "token", "s3cret", configuration.Secret)
	values, err := w.store.ConfigValues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := values[0]
	if err := w.store.EditConfig(t.Context(), configuration.Edit{Scope: scope("device:s-1"), Key: "token", New: &e.Value, At: noon}, release.Act{At: noon}); err != nil {
		t.Fatal(err)
	}
	w.start()
	if got := w.values("s-1"); got != "cannot configure device s-1: token of device:s-1: it is damaged" {
		t.Errorf("%s", got)
	}
}

func TestScopes(t *testing.T) {
	w := newWorld(t)
	w.devices["canary"] = configuration.Device{Name: "canary", Pipeline: "demo"}
	w.mustSet("device:gw-1", "a", "1", "")
	w.mustSet("product:gateway", "a", "1", "")
	w.mustSet("product:gateway", "b", "1", "")
	for name, want := range map[string]string{
		"": "[product:gateway 2 device:gw-1 1]", "canary": "[stage:canary 0 device:canary 0]", "gw-1": "[device:gw-1 1]", "gateway": "[product:gateway 2]", "nobody": "[]", "../x": "[]",
	} {
		found, err := w.Scopes(t.Context(), "demo", name)
		var got []string
		for _, f := range found {
			got = append(got, fmt.Sprint(f.Scope, " ", f.Keys))
		}
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%q: %v, %v; want %s", name, got, err, want)
		}
	}
	// What is set for a device that is gone can still be seen and removed.
	delete(w.devices, "gw-1")
	if all, err := w.List(t.Context(), scope("device:gw-1")); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	w.unset("device:gw-1", "a")
	if _, err := w.List(t.Context(), scope("device:gw-1")); release.CodeOf(err) != release.NotFound {
		t.Errorf("%v", err)
	}
}
