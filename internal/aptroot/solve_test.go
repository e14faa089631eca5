package aptroot

import (
	"fmt"
	"strings"
	"testing"
)

const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseURIs(t *testing.T) {
	text := strings.Join([]string{
		"Reading package lists...",
		"'http://127.0.0.1/p/pool/ab/" + hash + "/libb_1.0+dfsg-1_all.deb' libb_1%3a1.0+dfsg-1_all.deb 12 SHA256:" + strings.ToUpper(hash),
		"'http://127.0.0.1/p/pool/ab/" + hash + "/aa_2_amd64.deb' aa_2~rc1_amd64.deb 9999999999 SHA256:" + hash,
		"",
	}, "\n")
	got, err := ParseURIs(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{
		{Name: "aa", Version: "2~rc1", Architecture: "amd64", SHA256: hash, Size: 9999999999, File: "aa_2~rc1_amd64.deb"},
		{Name: "libb", Version: "1:1.0+dfsg-1", Architecture: "all", SHA256: hash, Size: 12, File: "libb_1%3a1.0+dfsg-1_all.deb"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || got[1] != want[1] {
		t.Errorf("got %+v", got)
	}
}

func TestParseURIsRefuses(t *testing.T) {
	for _, line := range []string{
		"'http://x/aa_1_amd64.deb' aa_1_amd64.deb 12",
		"'http://x/aa_1_amd64.deb' aa_1_amd64.deb 12 MD5Sum:abc",
		"'http://x/aa_1_amd64.deb' aa_1_amd64.deb 12 SHA256:abc",
		"'http://x/aa_1_amd64.deb' aa_1_amd64.deb -1 SHA256:" + hash,
		"'http://x/aa_1_amd64.deb' aa_1.deb 12 SHA256:" + hash,
		"'http://x/a_1_amd64.deb' ../aa_1_amd64.deb 12 SHA256:" + hash,
		"'http://x/a_1_amd64.deb' aa_%zz_amd64.deb 12 SHA256:" + hash,
		"'http://x/a_1_amd64.deb' aa_x%20y_amd64.deb 12 SHA256:" + hash,
		"'http://x/a_1_amd64.deb' -o_1_amd64.deb 12 SHA256:" + hash,
	} {
		if got, err := ParseURIs(strings.NewReader(line)); err == nil {
			t.Errorf("%s: read as %+v", line, got)
		}
	}
}

func FuzzParseURIs(f *testing.F) {
	f.Add("'http://x/aa_1_amd64.deb' aa_1_amd64.deb 12 SHA256:" + hash)
	f.Add("E: no")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseURIs(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range list {
			if strings.Contains(p.File, "/") || strings.HasPrefix(p.Argument(), "-") || strings.ContainsAny(p.Argument(), " \n") {
				t.Errorf("%+v would reach apt as %q", p, p.Argument())
			}
		}
	})
}

func TestComplaint(t *testing.T) {
	plain := fmt.Errorf("exit status 100")
	for text, want := range map[string]string{
		"":                                      "exit status 100",
		"W: a\nE: b\nE: c\nnoise\n":             "b; c",
		"W: only a warning\n":                   "only a warning",
		"E: 1\nE: 2\nE: 3\nE: 4\n":              "1; 2; 3",
		"E: \nE: Unable to locate package x\n ": "Unable to locate package x",
	} {
		if got := complaint(text, plain).Error(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
