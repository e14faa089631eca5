package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// TestSecretsAreNowhere sets a secret in every way that there is and looks for
// it wherever a server leaves something: in its data directory while it runs and
// after, in its log, its answers, its backups.
func TestSecretsAreNowhere(t *testing.T) {
	const secret, open = "canary-Tweety-4711", "budgie-in-the-open"
	data, kept, bare := filepath.Join(shortDir(t), "data"), filepath.Join(shortDir(t), "kept"), filepath.Join(shortDir(t), "bare")
	r := serve(t, local(data))
	api := r.api()
	withProduct(t, r)
	d := enrolled(t, r, "bench")

	var answers bytes.Buffer
	ask := func(method, path, body string) int {
		t.Helper()
		dial := &http.Transport{DisableKeepAlives: true, Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", r.listeners.addresses.Socket) }}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
		must(t, err)
		req.Header.Set("Accept", "application/json")
		resp, err := dial.RoundTrip(req)
		must(t, err)
		defer resp.Body.Close()
		_, err = io.Copy(&answers, resp.Body)
		must(t, err)
		return resp.StatusCode
	}
	in := func(format string) string { return fmt.Sprintf(format, secret) }
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "config/device/bench/name", `{"value":"` + open + `"}`, 200},
		{"PUT", "config/device/bench/token", in(`{"type":"secret","value":%q}`), 200},
		{"PUT", "config/device/bench/token", in(`{"type":"secret","value":%q}`), 200},
		{"PUT", "config/stage/canary/token", in(`{"type":"secret","value":%q}`), 200},
		{"PUT", "config/product/gateway/token", in(`{"type":"secret","value":%q}`), 200},
		{"PUT", "config/stage/canary/token", in(`{"type":"secret","value":%q,"dry_run":true}`), 200},
		{"DELETE", "config/stage/canary/token", "", 200},
		{"PUT", "config/device/bench/name", in(`{"type":"secret","value":%q}`), 200}, // which was in the open
		{"PUT", "config/device/bench/token", in(`{"value":%q}`), 422},                // on a command line
		{"PUT", "config/device/bench/token", in(`{"type":"secret","value":"%s\u0000"}`), 400},
		{"PUT", "config/device/bench/token", `{"type":"secret","value":"` + strings.Repeat(secret, 1000) + `"}`, 400},
		{"PUT", "config/device/bench/token", in(`{"type":"secret","value":{%q:1}}`), 400},
		{"PUT", "config/device/bench/token", in(`{"type":"secret","value":%q`), 400},
		{"PUT", "config/device/bench/token", in(`{"type":"integer","value":%q}`), 400},
		{"PUT", "config/device/nobody/token", in(`{"type":"secret","value":%q}`), 404},
		{"PUT", "config-schemas/gateway", in(`{"keys":{"token":{"type":"secret","default":%q}}}`), 400},
		{"PUT", "config-schemas/gateway", in(`{"keys":{"token":{"type":"integer","default":%q}}}`), 400},
		{"GET", "config", "", 200},
		{"GET", "config/device/bench", "", 200},
		{"GET", "config/device/bench?effective=1", "", 200},
		{"GET", "config/device/bench/token", "", 200},
		{"GET", "config/device/bench/token/history", "", 200},
		{"GET", "config/device/bench/name/history", "", 200},
	} {
		if got := ask(c.method, "/api/v1/pipelines/demo/"+c.path, c.body); got != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.status)
		}
	}

	// It reaches the device that it is for all the same, and only in that form.
	given := func(r *running) *protocol.AssignedConfig {
		t.Helper()
		if _, err := d.CheckIn(t.Context(), r.public()); err != nil {
			t.Fatal(err)
		}
		secrets, err := d.Secrets()
		must(t, err)
		if secrets["token"] != secret || secrets["name"] != secret || len(secrets) != 2 {
			t.Errorf("the device is given %q", secrets)
		}
		return d.Accepted.Config
	}
	config := given(r)
	told, err := json.Marshal(d.Accepted)
	must(t, err)
	answers.Write(told)
	d.Report.Config = config.Revision
	given(r)
	for _, path := range []string{"/api/v1/devices/bench", "/api/v1/devices", "/api/v1/acts"} {
		if got := ask("GET", path, ""); got != 200 {
			t.Errorf("GET %s: %d", path, got)
		}
	}

	r.backUp(kept)
	change, err := api.CreateBackup(t.Context(), protocol.NewBackup{Dir: bare, WithoutKeys: true})
	must(t, err)
	_, err = api.Wait(t.Context(), change.ID, nil)
	must(t, err)
	log := filepath.Join(data, databaseFile+"-wal")
	if info, err := os.Stat(log); err != nil || info.Size() == 0 {
		t.Errorf("there is no log of the database to look at: %v", err)
	}
	seen := count(t, data, open)
	look := func(when string) {
		t.Helper()
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")[:20]} {
			for where, n := range map[string]int{
				data: count(t, data, form), kept: count(t, kept, form), bare: count(t, bare, form), "the answers": strings.Count(answers.String(), form),
				"the log": strings.Count(r.logs.String(), form), "what it said": strings.Count(r.said.String(), form),
			} {
				if n > 0 {
					t.Errorf("%s: the secret is in %s, as %q", when, where, form)
				}
			}
		}
	}
	look("while it runs")
	if seen == 0 || !strings.Contains(answers.String(), open) || !strings.Contains(r.logs.String(), "config/device/bench/token") {
		t.Error("what is no secret was not found either: the search is blind")
	}
	must(t, r.stop())
	look("after it stopped")

	// A backup without keys has none of ours; one with keys has it, for its owner alone.
	if n := count(t, bare, "configuration are encrypted with the first key"); n != 0 {
		t.Error("the configuration key is in a backup without keys")
	}
	if n := count(t, kept, "configuration are encrypted with the first key"); n != 1 {
		t.Errorf("the configuration key is %d times in a backup with keys", n)
	}
	if info, err := os.Stat(filepath.Join(data, "keys", "config.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration key: %v, %v", info.Mode(), err)
	}
	restored := restoreTo(t, kept, local(filepath.Join(shortDir(t), "data")))
	if again := given(restored); again.Revision != config.Revision {
		t.Errorf("after a restore the device is given revision %s, not %s", again.Revision, config.Revision)
	}
}

// count says in how many files below a directory a text is.
func count(t *testing.T, dir, text string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			n++
		}
		return err
	}))
	return n
}

func TestConfigurationKey(t *testing.T) {
	data := t.TempDir()
	must(t, os.Mkdir(filepath.Join(data, "keys"), 0o700))
	path := filepath.Join(data, "keys", "config.key")
	_, err := openVault(data)
	must(t, err)
	made, err := os.ReadFile(path)
	must(t, err)
	_, err = openVault(data)
	must(t, err)
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(made, again) {
		t.Errorf("the key was made anew: %v", err)
	}
	// A damaged file is not replaced: it may be mended.
	must(t, os.WriteFile(path, []byte("not a key\n"), 0o600))
	if _, err := openVault(data); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "not a key") {
		t.Errorf("%v", err)
	}
}
