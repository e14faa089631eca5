package deb_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
)

// ascending versions: each is lower than all that follow.
var ascending = []string{
	"0~~", "0~~a", "0~", "0~1", "0", "0a", "0+", "0.0", "0.0.0+1", "0.1", "1~~a", "1~rc1", "1~rc1+3.gabc", "1~rc2", "1", "1+0.gabc", "1+1.gabc", "1+1.gabc+dirty.20260101000000", "1+2.g0", "1+10.gfff",
	"1.0.1", "1.2.3", "1.2.3+12.gabcdef", "1.2.4~alpha", "1.2.4", "1.10", "2-0", "2-1", "2-1+b1", "2-1.1", "2.0", "999999999999999999999999999998", "999999999999999999999999999999", "1:0", "1:0-1", "2:0~", "10:0",
}

func TestCompareKnowsTheOrder(t *testing.T) {
	for i, a := range ascending {
		for j, b := range ascending {
			if got := sign(deb.Compare(a, b)); got != sign(i-j) {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, sign(i-j))
			}
		}
	}
	for _, equal := range [][2]string{{"1.0", "1.00"}, {"0:1", "1"}, {"1", "1-0"}, {"1-", "1"}, {"00:1", "0:1"}, {"1a", "1a0"}, {" 1 ", "1"}, {"", ""}} {
		if got := deb.Compare(equal[0], equal[1]); got != 0 {
			t.Errorf("Compare(%q, %q) = %d, want 0", equal[0], equal[1], got)
		}
	}
}

// TestCompareAgreesWithDpkg asks dpkg about pairs that differ in few places,
// where mistakes are.
func TestCompareAgreesWithDpkg(t *testing.T) {
	needs(t, "dpkg", "sh")
	random := rand.New(rand.NewPCG(1, 2))
	const alphabet = "0019aZ~~++..-"
	word := func(n int) string {
		b := []byte{"0123456789"[random.IntN(10)]}
		for range random.IntN(n) {
			b = append(b, alphabet[random.IntN(len(alphabet))])
		}
		return strings.TrimRight(string(b), "-")
	}
	var pairs [][2]string
	for i := range ascending {
		pairs = append(pairs, [2]string{ascending[i], ascending[random.IntN(len(ascending))]})
	}
	for range 500 {
		a := word(8)
		b := a
		if at := random.IntN(len(a)); random.IntN(3) > 0 {
			b = a[:at] + word(3)[1:] + a[at:]
		} else {
			b = word(8)
		}
		if b = strings.TrimRight(b, "-"); b == "" || b[0] < '0' || b[0] > '9' {
			continue
		}
		if random.IntN(8) == 0 {
			b = "0:" + b
		}
		pairs = append(pairs, [2]string{a, b})
	}
	var script bytes.Buffer
	for _, p := range pairs {
		fmt.Fprintf(&script, "if dpkg --compare-versions '%s' lt '%s'; then echo -1; elif dpkg --compare-versions '%s' eq '%s'; then echo 0; else echo 1; fi\n", p[0], p[1], p[0], p[1])
	}
	cmd := exec.Command("sh")
	cmd.Stdin = &script
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("dpkg: %v\n%s", err, stderr.String())
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("%d answers for %d pairs", len(answers), len(pairs))
	}
	for i, p := range pairs {
		if got := fmt.Sprint(sign(deb.Compare(p[0], p[1]))); got != answers[i] {
			t.Errorf("Compare(%q, %q) = %s, dpkg says %s", p[0], p[1], got, answers[i])
		}
	}
}

// TestCompareIsAnOrder holds for any text, valid or not.
func TestCompareIsAnOrder(t *testing.T) {
	text := rapid.StringMatching(`[0-9a-c~+.:\- ]{0,8}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := text.Draw(t, "a"), text.Draw(t, "b"), text.Draw(t, "c")
		if deb.Compare(a, a) != 0 {
			t.Fatalf("%q differs from itself", a)
		}
		if sign(deb.Compare(a, b)) != -sign(deb.Compare(b, a)) {
			t.Fatalf("%q and %q: not antisymmetric", a, b)
		}
		if deb.Compare(a, b) <= 0 && deb.Compare(b, c) <= 0 && deb.Compare(a, c) > 0 {
			t.Fatalf("%q ≤ %q ≤ %q, but the first is above the last", a, b, c)
		}
	})
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]deb.Version{
		"1":             {Upstream: "1"},
		"1:2.0-3":       {Epoch: 1, Upstream: "2.0", Revision: "3"},
		"0:1":           {Upstream: "1"},
		"1-2-3":         {Upstream: "1-2", Revision: "3"},
		"1:2:3-4":       {Epoch: 1, Upstream: "2:3", Revision: "4"},
		"1.0~rc1+g.A-1": {Upstream: "1.0~rc1+g.A", Revision: "1"},
	} {
		got, err := deb.ParseVersion(text)
		if err != nil || got != want {
			t.Errorf("ParseVersion(%q) = %+v, %v, want %+v", text, got, err, want)
		}
		if deb.Compare(got.String(), text) != 0 {
			t.Errorf("%q became %q, which is another version", text, got)
		}
	}
	for _, bad := range []string{"", "a", "1:", ":1", "x:1", "-1:1", "1-", "-1", "1_0", "1 0", "1\n", "1/2", "ü", "99999999999:1", "2147483648:1", "1:a", "1-a_b", "~1", "1-1:2"} {
		if v, err := deb.ParseVersion(bad); err == nil {
			t.Errorf("ParseVersion(%q) = %+v, want an error", bad, v)
		}
	}
}

func TestSatisfies(t *testing.T) {
	for _, test := range []struct {
		version, op, wanted string
		want                bool
	}{
		{"1", "", "", true}, {"1", "=", "1.0", false}, {"1.0", "=", "1.00", true}, {"1", "<<", "2", true}, {"2", "<<", "2", false}, {"2", "<=", "2", true}, {"3", "<=", "2", false},
		{"2", ">=", "2", true}, {"1", ">=", "2", false}, {"3", ">>", "2", true}, {"2", ">>", "2", false}, {"2", "!=", "3", false}, {"1:1", ">>", "9", true},
	} {
		if got := deb.Satisfies(test.version, test.op, test.wanted); got != test.want {
			t.Errorf("Satisfies(%q, %q, %q) = %t", test.version, test.op, test.wanted, got)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("1:1.0-1", "1.0~")
	f.Add("", "~")
	f.Add("1a0", "1a")
	f.Fuzz(func(t *testing.T, a, b string) {
		if sign(deb.Compare(a, b)) != -sign(deb.Compare(b, a)) {
			t.Fatalf("%q and %q: not antisymmetric", a, b)
		}
		if v, err := deb.ParseVersion(a); err == nil && deb.Compare(v.String(), a) != 0 {
			t.Fatalf("%q became %q", a, v)
		}
	})
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
