package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const deb822 = `# made by the installer
Types: deb deb-src
# an older mirror
URIs: http://mirror.example/debian
Suites: bookworm-updates bookworm
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`

func TestMirrorIsFoundInAptsSources(t *testing.T) {
	const keyring = "usr/share/keyrings/debian-archive-keyring.gpg"
	for _, c := range []struct {
		name, url, keyring string
		files              map[string]string
		err                string
	}{
		{name: "deb822", files: map[string]string{"sources.list.d/debian.sources": deb822},
			url: "http://mirror.example/debian", keyring: keyring},
		{name: "one line with options", files: map[string]string{"sources.list": "# deb http://no.example/debian trixie main\n" +
			"deb-src http://no.example/debian trixie main\ndeb http://no.example/debian trixie/updates main\n" +
			"deb [arch=amd64 signed-by=/etc/apt/keyrings/ours.asc] https://mirror.example/debian/ trixie main # ours\n"},
			url: "https://mirror.example/debian", keyring: "etc/apt/keyrings/ours.asc"},
		{name: "other archives go after debian's", files: map[string]string{
			"sources.list.d/a.list":         "deb http://other.example/php bookworm main\n",
			"sources.list.d/debian.sources": deb822},
			url: "http://mirror.example/debian", keyring: keyring},
		{name: "the keyring of one release gives way to that of all", files: map[string]string{
			"sources.list": "deb [signed-by=/usr/share/keyrings/debian-archive-trixie-stable.gpg] http://mirror.example/debian trixie main\n"},
			url: "http://mirror.example/debian", keyring: keyring},
		{name: "mirror list", files: map[string]string{
			"sources.list.d/debian.sources": strings.ReplaceAll(deb822, "http://mirror.example/debian\n", "mirror+file:///etc/apt/mirrors/debian.list\n"),
			"mirrors/debian.list":           "# ours\nhttps://cloud.example/debian\tpriority:1\n"},
			url: "https://cloud.example/debian", keyring: keyring},
		{name: "disabled", files: map[string]string{"sources.list.d/debian.sources": "Enabled: no\n" + deb822[strings.Index(deb822, "Types"):]},
			err: "no enabled http source"},
		{name: "only other media", files: map[string]string{"sources.list": "deb cdrom:[Debian] bookworm main\ndeb file:/srv/debian bookworm main\n"},
			err: "no enabled http source"},
		{name: "nothing", err: "among 0 sources"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(root, keyring), "")
			for name, text := range c.files {
				write(t, filepath.Join(root, "etc/apt", name), text)
			}
			url, gotKeyring, err := mirrorBelow(root)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if url != c.url || gotKeyring != filepath.Join(root, c.keyring) {
				t.Errorf("got %s with %s, want %s with %s", url, gotKeyring, c.url, c.keyring)
			}
		})
	}
}

func TestSecurityIsFoundInAptsSources(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/share/keyrings/debian-archive-keyring.gpg"), "")
	if _, _, err := securityBelow(root); err == nil || !strings.Contains(err.Error(), "security archive") {
		t.Errorf("without a source: %v", err)
	}
	write(t, filepath.Join(root, "etc/apt/sources.list.d/debian.sources"), deb822)
	url, keyring, err := securityBelow(root)
	if err != nil || url != "http://mirror.example/debian-security" || filepath.Base(keyring) != "debian-archive-keyring.gpg" {
		t.Errorf("got %s with %s, %v", url, keyring, err)
	}
}

func TestMirrorWithoutKeyringSaysWhatToInstall(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "etc/apt/sources.list"), "deb http://mirror.example/debian trixie main\n")
	if _, _, err := mirrorBelow(root); err == nil || !strings.Contains(err.Error(), "install debian-archive-keyring") {
		t.Fatalf("error %v, want one that says what to install", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
