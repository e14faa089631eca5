package uplink

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// was is a path over a wire and a router.
func was() Path {
	return Path{
		Server: netip.MustParseAddrPort("10.88.0.1:443"), Interface: "eth0", Hardware: "02:00:00:00:00:01", Wires: []string{"eth0"},
		NextHop: netip.MustParseAddr("10.77.0.1"), Spoke: true, Source: netip.MustParseAddr("10.77.0.2"),
	}
}

// now is what is found where nothing has changed but that the server is silent.
func now() Facts {
	way := was()
	return Facts{
		Wires: []Wire{{Name: "eth0", There: true, On: true, Carrier: true}}, Known: true, Before: Answers, Now: &way, Knock: Knock{Tried: true, Left: true},
	}
}

// cases has facts for each rule, and for what is near to it.
var cases = []struct {
	name, rule string
	change     func(before *Path, f *Facts)
}{
	{"503", "status", func(_ *Path, f *Facts) { f.Answer = "503 Service Unavailable" }},
	{"certificate of an unknown authority", "distrust", func(_ *Path, f *Facts) { f.Distrust = "unknown authority" }},
	{"cable pulled", "no-carrier", func(_ *Path, f *Facts) {
		f.Wires[0].Carrier, f.Now, f.Before, f.Knock = false, nil, Unknown, Knock{}
	}},
	{"one of two cables pulled", "silence", func(_ *Path, f *Facts) {
		f.Wires = append(f.Wires, Wire{Name: "eth1", There: true, On: true})
	}},
	{"both cables pulled", "no-carrier", func(_ *Path, f *Facts) {
		f.Wires = []Wire{{Name: "eth0", There: true, On: true}, {Name: "eth1", There: true, On: true}}
	}},
	{"one pulled, one gone", "wire-off", func(_ *Path, f *Facts) {
		f.Wires = []Wire{{Name: "eth0", There: true, On: true}, {Name: "eth1"}}
		f.Now, f.Before, f.Knock = nil, Unknown, Knock{}
	}},
	{"name is not resolved, server answers", "name", func(_ *Path, f *Facts) { f.Unnamed, f.Knock.Connected = "no such host", true }},
	{"name is not resolved, server refuses", "name", func(_ *Path, f *Facts) { f.Unnamed, f.Knock.Refused = "no such host", true }},
	{"name is not resolved, nothing answers", "silence", func(_ *Path, f *Facts) { f.Unnamed = "no such host" }},
	{"connected", "mute", func(_ *Path, f *Facts) { f.Knock.Connected, f.Knock.Answered = true, true }},
	{"input filtered", "dropped-in", func(_ *Path, f *Facts) { f.Knock.Answered = true }},
	{"server is restarted", "refused", func(_ *Path, f *Facts) { f.Knock.Refused = true }},
	{"the router's line is dead", "unreachable", func(_ *Path, f *Facts) { f.Knock.Unreachable = true }},
	{"server's machine is off", "silence", func(*Path, *Facts) {}},
	{"another address by DHCP", "silence", func(before *Path, f *Facts) {
		before.Given, f.Now.Given, f.Now.Source = true, true, netip.MustParseAddr("10.77.0.3")
	}},
	{"another address of its own", "other-way", func(_ *Path, f *Facts) { f.Now.Source = netip.MustParseAddr("10.77.0.3") }},
	{"DHCP gave way to another address of its own", "other-way", func(before *Path, f *Facts) {
		before.Given, f.Now.Source = true, netip.MustParseAddr("10.77.0.3")
	}},
	{"another router", "other-way", func(_ *Path, f *Facts) { f.Now.NextHop = netip.MustParseAddr("10.77.0.254") }},
	{"another interface", "other-way", func(_ *Path, f *Facts) { f.Now.Interface = "wlan0" }},
	{"another hardware address", "other-way", func(_ *Path, f *Facts) { f.Known = false }},
	{"baseline of an older updater", "other-way", func(before *Path, f *Facts) { *before, f.Wires, f.Known = Path{}, nil, false }},
	{"output filtered", "dropped-out", func(_ *Path, f *Facts) { f.NowHop, f.Knock.Left = Answers, false }},
	{"router off", "router-silent", func(_ *Path, f *Facts) { f.Before, f.NowHop, f.Knock.Left = Silent, Silent, false }},
	{"router off, no address by DHCP", "router-silent", func(_ *Path, f *Facts) { f.Before, f.Now, f.Knock = Silent, nil, Knock{} }},
	{"router off, another one answers", "dropped-out", func(_ *Path, f *Facts) {
		f.Before, f.NowHop, f.Knock.Left = Silent, Answers, false
		f.Now.NextHop = netip.MustParseAddr("10.77.0.254")
	}},
	{"a router that never answered such questions", "unknown", func(before *Path, f *Facts) {
		before.Spoke, f.Before, f.NowHop, f.Knock.Left = false, Silent, Silent, false
	}},
	{"silent router, another hardware address", "unknown", func(_ *Path, f *Facts) {
		f.Known, f.Before, f.NowHop, f.Knock.Left = false, Silent, Silent, false
	}},
	{"no address", "no-route", func(_ *Path, f *Facts) { f.Now, f.Knock = nil, Knock{} }},
	{"switched off", "wire-off", func(_ *Path, f *Facts) { f.Wires[0].On, f.Now, f.Before, f.Knock = false, nil, Unknown, Knock{} }},
	{"card gone", "wire-off", func(_ *Path, f *Facts) {
		f.Wires[0], f.Now, f.Before, f.Known, f.Knock = Wire{Name: "eth0"}, nil, Unknown, false, Knock{}
	}},
	{"modem does not dial", "unknown", func(before *Path, f *Facts) {
		before.Wires, before.NextHop, f.Wires, f.Known, f.Before, f.Now, f.Knock = nil, netip.Addr{}, nil, false, Unknown, nil, Knock{}
	}},
	{"no packet sockets", "unknown", func(_ *Path, f *Facts) { f.Before, f.Knock = Unknown, Knock{} }},
}

// TestJudge plays every rule of the table in the documentation, and no other.
func TestJudge(t *testing.T) {
	verdicts := documented(t)
	seen := map[string]bool{"answers": true} // where it answers nothing is judged
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before, facts := was(), now()
			c.change(&before, &facts)
			got := Judge(before, facts)
			if got.Rule != c.rule || got.What == "" {
				t.Errorf("%+v, want %s", got, c.rule)
			}
			if want, ok := verdicts[c.rule]; !ok || want != map[bool]string{true: "warning", false: "back"}[got.Outside] {
				t.Errorf("outside is %v, and the documentation says %q", got.Outside, want)
			}
			seen[c.rule] = true
		})
	}
	for rule := range verdicts {
		if !seen[rule] {
			t.Errorf("no case for the rule %s of the documentation", rule)
		}
	}
}

// TestWhatIsHereStaysHere: evidence of a local cut outweighs silence: whatever
// else is found, an answer that came in and was dropped goes back.
func TestWhatIsHereStaysHere(t *testing.T) {
	for _, hop := range []Hop{Unknown, Silent, Answers} {
		f := now()
		f.Before, f.NowHop, f.Knock.Answered = hop, hop, true
		if got := Judge(was(), f); got.Outside {
			t.Errorf("%+v", got)
		}
	}
}

// documented reads the table of docs/device-health.md: verdicts by rule.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/device-health.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## The server during a trial\n")
	if !ok {
		t.Fatal("the documentation has no section about the server during a trial")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	verdicts := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|.*\\| (\\w+) \\|$").FindAllStringSubmatch(section, -1) {
		if !slices.Contains([]string{"good", "warning", "back"}, m[2]) || verdicts[m[1]] != "" {
			t.Errorf("the documentation has a row %q", m[0])
		}
		verdicts[m[1]] = m[2]
	}
	if len(verdicts) < 10 {
		t.Fatalf("the documentation has %d rules", len(verdicts))
	}
	return verdicts
}
