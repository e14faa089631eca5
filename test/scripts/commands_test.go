package scripts

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"aptfleet/internal/sign"
	"aptfleet/internal/tlspin"
)

// buildDeb makes a package with dpkg's own tool. Its one file differs with
// the version, so two versions never share their bytes. NAME.fields has more
// control fields, NAME.changelog its Debian changelog.
func buildDeb(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: deb NAME VERSION [ARCHITECTURE]")
	}
	name, version, architecture := args[0], args[1], "amd64"
	if len(args) == 3 {
		architecture = args[2]
	}
	fields := ""
	if raw, err := os.ReadFile(ts.MkAbs(name + ".fields")); err == nil {
		fields = string(raw)
	}
	dir, err := os.MkdirTemp(ts.MkAbs("."), "deb-")
	ts.Check(err)
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, []byte(text), 0o644))
	}
	write("DEBIAN/control", fmt.Sprintf(
		"Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Test <test@aptfleet.example>\nDescription: a package of a story\n%s",
		name, version, architecture, fields))
	write("usr/share/doc/"+name+"/version", version+"\n")
	if raw, err := os.ReadFile(ts.MkAbs(name + ".changelog")); err == nil {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err := z.Write(raw)
		ts.Check(errors.Join(err, z.Close()))
		write("usr/share/doc/"+name+"/changelog.gz", packed.String())
	}
	file := fmt.Sprintf("%s_%s_%s.deb", name, version, architecture)
	ts.Check(ts.Exec("dpkg-deb", "--root-owner-group", "-Zgzip", "-b", dir, file))
	ts.Check(os.RemoveAll(dir))
}

// damage flips the bits of a file's last byte.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage PATTERN")
	}
	found, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%d files match %s: %v", len(found), args[0], found)
	}
	file, err := os.OpenFile(found[0], os.O_RDWR, 0)
	ts.Check(err)
	defer file.Close()
	info, err := file.Stat()
	ts.Check(err)
	last := make([]byte, 1)
	_, err = file.ReadAt(last, info.Size()-1)
	ts.Check(err)
	last[0] ^= 0xff
	_, err = file.WriteAt(last, info.Size()-1)
	ts.Check(err)
}

// cut shortens a file.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cut FILE BYTES")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// keyring writes a certificate that nothing is signed with.
func keyring(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keyring FILE")
	}
	key, err := sign.Generate("Somebody else", "else@aptfleet.example", time.Now())
	ts.Check(err)
	certificate, err := key.Certificate()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), certificate, 0o644))
}

// headers collects repeated -header flags.
type headers []string

func (h *headers) String() string     { return strings.Join(*h, "; ") }
func (h *headers) Set(s string) error { *h = append(*h, s); return nil }

// ask sends one HTTP request.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	var more headers
	flags := flag.NewFlagSet("http", flag.ContinueOnError)
	token := flags.String("token", "", "")
	basic := flags.String("basic", "", "")
	file := flags.String("file", "", "")
	text := flags.String("body", "", "")
	ca := flags.String("ca", "", "")
	flags.Var(&more, "header", "")
	if err := flags.Parse(args); err != nil || neg || flags.NArg() != 2 {
		ts.Fatalf("usage: http [-ca FILE] [-token T | -basic NAME:PASSWORD] [-header 'N: V']... [-file F | -body TEXT] METHOD URL")
	}
	var body io.Reader = strings.NewReader(*text)
	if *file != "" {
		opened, err := os.Open(ts.MkAbs(*file))
		ts.Check(err)
		defer opened.Close()
		body = opened
	}
	req, err := http.NewRequest(flags.Arg(0), flags.Arg(1), body)
	ts.Check(err)
	if *token != "" {
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	if name, password, ok := strings.Cut(*basic, ":"); ok {
		req.SetBasicAuth(name, password)
	}
	for _, header := range more {
		name, value, _ := strings.Cut(header, ": ")
		if strings.EqualFold(name, "Host") {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	client := &http.Client{
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if *ca != "" {
		transport, err := tlspin.Transport([]byte(ts.ReadFile(*ca)), nil)
		ts.Check(err)
		defer transport.CloseIdleConnections()
		client.Transport = transport
	}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d\n%s", resp.StatusCode, answer)
}

// exits runs a program and compares its exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("cannot run %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// secret keeps one line of output in a variable.
func secret(ts *testscript.TestScript, neg bool, args []string) {
	line := strings.TrimSuffix(ts.ReadFile("stdout"), "\n")
	if neg || len(args) != 1 || line == "" || strings.Contains(line, "\n") {
		ts.Fatalf("usage: secret NAME, after a command that printed one line; it printed %q", line)
	}
	ts.Setenv(args[0], line)
}

// soon keeps a time that comes after the next commands in a variable.
func soon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: soon NAME")
	}
	ts.Setenv(args[0], time.Now().Add(3*time.Second).UTC().Format(time.RFC3339Nano))
}

// past waits until a time that soon kept is over.
func past(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: past NAME, after soon NAME")
	}
	at, err := time.Parse(time.RFC3339Nano, ts.Getenv(args[0]))
	ts.Check(err)
	time.Sleep(time.Until(at) + 10*time.Millisecond)
}

// terminal runs a command on a terminal of its own, by script(1).
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminal COMMAND")
	}
	ts.Check(ts.Exec("script", "--quiet", "--return", "--command", args[0], "/dev/null"))
	fmt.Fprint(ts.Stdout(), strings.ReplaceAll(ts.ReadFile("stdout"), "\r\n", "\n"))
}

// What differs from run to run, and the word that a golden file has for it.
var words = []struct {
	what *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`), "TIME"},
	{regexp.MustCompile(`^\d{8}T\d{6}Z$`), "SNAPSHOT"},
	{regexp.MustCompile(`^[0-9a-f]{64}$`), "HASH"},
	{regexp.MustCompile(`^[0-9A-F]{40}$`), "FINGERPRINT"},
	{regexp.MustCompile(`^[0-9a-f]{32}$`), "KEY"},
	{regexp.MustCompile(`^[0-9a-f]{12}$`), "ID"},
	{regexp.MustCompile(`^[A-Z2-7]{26}$`), "RANDOM"},
	{regexp.MustCompile(`^aft1_[A-Z2-7]{26}$`), "TOKEN"},
	{regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`), "SECRET"},
	{regexp.MustCompile(`^\d{4}\.\d+\.\d+\.\d+$`), "VERSION"},
	{regexp.MustCompile(`(?s)^-----BEGIN PGP PUBLIC KEY BLOCK-----\n.*-----END PGP PUBLIC KEY BLOCK-----\n$`), "CERTIFICATE"},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "http://HOST"},
	{regexp.MustCompile(`token=[A-Za-z0-9_-]{43}$`), "token=SECRET"},
	{regexp.MustCompile(`[0-9a-f]{64}`), "HASH"},
}

// counted are the names of numbers that depend on compression and time.
// Those of "usage" are all such.
var counted = map[string]bool{"size": true, "bytes": true, "files": true, "objects": true, "download": true}

// shape prints the JSON of stdout with the words for what differs.
func shape(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: shape, after a command that printed JSON")
	}
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	dec.UseNumber()
	var v any
	ts.Check(dec.Decode(&v))
	if _, err := dec.Token(); err != io.EOF {
		ts.Fatalf("more than one JSON value was printed")
	}
	me, err := user.Current()
	ts.Check(err)
	enc := json.NewEncoder(ts.Stdout())
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	ts.Check(enc.Encode(normal(v, "", me.Username)))
}

func normal(v any, name, me string) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if name == "usage" {
				v[key] = normal(value, "bytes", me)
				continue
			}
			v[key] = normal(value, key, me)
		}
	case []any:
		for i, value := range v {
			v[i] = normal(value, name, me)
		}
	case json.Number:
		if counted[name] {
			return "NUMBER"
		}
	case string:
		switch {
		case name == "by" && v == me:
			return "ME"
		case name == "program":
			return "VERSION"
		}
		for _, w := range words {
			v = w.what.ReplaceAllString(v, w.word)
		}
		return v
	}
	return v
}
