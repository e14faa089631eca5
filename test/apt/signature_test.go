package apt

import (
	"strings"
	"testing"
)

// apt of Debian 12 verifies with gpgv, that of Debian 13 with sqv. Both are
// asked directly too, so that a signature one of them merely tolerates shows.
func TestSignaturesAreGoodForGpgvAndSqv(t *testing.T) {
	judges := map[string][][]string{
		"bookworm": {
			{"gpgv", "--keyring", keyring, "--output", "/text", "/InRelease"},
			{"gpgv", "--keyring", keyring, "/Release.gpg", "/Release"},
		},
		"trixie": {
			{"sqv", "--keyring", keyring, "--output", "/text", "--cleartext", "/InRelease"},
			{"sqv", "--keyring", keyring, "--signature-file", "/Release.gpg", "/Release"},
		},
	}
	s := newServer(t)
	s.upload("demo-app", "1.0")
	snapshot := s.snapshot()
	s.promote(snapshot, "canary")
	onEach(t, func(t *testing.T, suite string) {
		for _, base := range []string{"demo/dev", "demo/canary", "demo/snapshots/" + snapshot} {
			m := newMachine(t, suite, s, base)
			for _, name := range []string{"InRelease", "Release", "Release.gpg"} {
				m.write("/"+name, s.download(base+"/dists/trixie/"+name))
			}
			for _, judge := range judges[suite] {
				m.must(judge...)
			}
			// Whether the last newline belongs to the text is a matter of taste.
			if text, release := m.must("cat", "/text"), m.must("cat", "/Release"); strings.TrimSuffix(text, "\n") != strings.TrimSuffix(release, "\n") {
				t.Errorf("%s: what InRelease signs is not Release:\n%s\n---\n%s", base, text, release)
			}
			// The same judges refuse a text that was changed.
			m.must("sed", "-i", "s/^Codename: .*/Codename: other/", "/InRelease", "/Release")
			for _, judge := range judges[suite] {
				if out, code := m.run(t.Context(), judge...); code == 0 {
					t.Errorf("%s: %v takes a changed text:\n%s", base, judge, out)
				}
			}
		}
	})
}
