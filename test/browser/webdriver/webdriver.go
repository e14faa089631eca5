// Package webdriver drives Debian's chromium through its chromium-driver, in
// the protocol of the W3C (WebDriver, https://www.w3.org/TR/webdriver2/) and,
// where that has no words for it, through the driver's CDP endpoint. It holds
// what the browser tests use and nothing else.
//
// Elements are named by CSS selectors and looked up anew for every command, so
// a page that replaces its parts meanwhile does not fail a test: a command on
// a stale element is repeated.
package webdriver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Driver is a running chromium-driver.
type Driver struct {
	url string
	cmd *exec.Cmd
}

var startedOn = regexp.MustCompile(`started successfully on port (\d+)`)

// Start runs chromium-driver on a free port. Stop ends it.
func Start(ctx context.Context) (*Driver, error) {
	path, err := exec.LookPath("chromedriver")
	if err != nil {
		return nil, fmt.Errorf("cannot find chromedriver: %w (make test installs chromium and chromium-driver)", err)
	}
	cmd := exec.CommandContext(ctx, path, "--port=0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start chromedriver: %w", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := startedOn.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, out) // what else it says must not block it
			return &Driver{url: "http://127.0.0.1:" + m[1], cmd: cmd}, nil
		}
	}
	return nil, errors.Join(errors.New("cannot start chromedriver: it ended without naming its port"), cmd.Wait())
}

// Stop ends the driver and with it any browser left open.
func (d *Driver) Stop() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	var killed *exec.ExitError
	if err := d.cmd.Wait(); !errors.As(err, &killed) {
		return err
	}
	return nil
}

// Options say what kind of browser a test wants.
type Options struct {
	Width, Height int    // of the viewport, in CSS pixels
	NoScript      bool   // pages may not run script
	Dark          bool   // prefers-color-scheme: dark
	Profile       string // an empty directory for its profile
}

// Browser is one window of a fresh chromium.
type Browser struct {
	session string // URL of the session
}

// Open starts a browser.
func (d *Driver) Open(ctx context.Context, o Options) (*Browser, error) {
	scripts := 1
	if o.NoScript {
		scripts = 2
	}
	capabilities := map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName":             "chrome",
		"goog:loggingPrefs":       map[string]string{"browser": "ALL"},
		"unhandledPromptBehavior": "accept",
		"goog:chromeOptions": map[string]any{
			"args": []string{
				"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
				"--disable-background-networking", "--disable-component-update", "--disable-sync",
				"--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + o.Profile,
			},
			"prefs": map[string]any{"profile.managed_default_content_settings.javascript": scripts},
		},
	}}}
	var opened struct {
		SessionID string `json:"sessionId"`
	}
	if err := call(ctx, http.MethodPost, d.url+"/session", capabilities, &opened); err != nil {
		return nil, fmt.Errorf("cannot open a browser: %w", err)
	}
	b := &Browser{session: d.url + "/session/" + opened.SessionID}
	scheme := "light"
	if o.Dark {
		scheme = "dark"
	}
	return b, errors.Join(
		b.CDP(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{"width": o.Width, "height": o.Height, "deviceScaleFactor": 1, "mobile": false}, nil),
		b.CDP(ctx, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil),
	)
}

// Close ends the browser.
func (b *Browser) Close(ctx context.Context) error {
	return call(ctx, http.MethodDelete, b.session, nil, nil)
}

// Go loads a page and waits until it is complete.
func (b *Browser) Go(ctx context.Context, url string) error {
	return call(ctx, http.MethodPost, b.session+"/url", map[string]string{"url": url}, nil)
}

// URL is the address of the page.
func (b *Browser) URL(ctx context.Context) (url string, err error) {
	return url, call(ctx, http.MethodGet, b.session+"/url", nil, &url)
}

// Click clicks the first element that matches.
func (b *Browser) Click(ctx context.Context, css string) error {
	return b.on(ctx, css, http.MethodPost, "/click", map[string]any{}, nil)
}

// Type types into the first element that matches.
func (b *Browser) Type(ctx context.Context, css, text string) error {
	return b.on(ctx, css, http.MethodPost, "/value", map[string]string{"text": text}, nil)
}

// Text is what a person sees of the first element that matches.
func (b *Browser) Text(ctx context.Context, css string) (text string, err error) {
	return text, b.on(ctx, css, http.MethodGet, "/text", nil, &text)
}

// Role and Label are what the first element that matches is to assistive
// technology, as the browser computes it.
func (b *Browser) Role(ctx context.Context, css string) (role string, err error) {
	return role, b.on(ctx, css, http.MethodGet, "/computedrole", nil, &role)
}

// Label is the accessible name; see Role.
func (b *Browser) Label(ctx context.Context, css string) (label string, err error) {
	return label, b.on(ctx, css, http.MethodGet, "/computedlabel", nil, &label)
}

// Script runs the body of a function in the page and returns its result.
func (b *Browser) Script(ctx context.Context, body string, result any, args ...any) error {
	return call(ctx, http.MethodPost, b.session+"/execute/sync", map[string]any{"script": body, "args": append([]any{}, args...)}, result)
}

// Cookie is one cookie of the page's site.
type Cookie struct {
	Name     string `json:"name"`
	Value    string `json:"value"`
	HTTPOnly bool   `json:"httpOnly"`
	SameSite string `json:"sameSite"`
}

// Cookies lists the cookies of the page's site.
func (b *Browser) Cookies(ctx context.Context) (list []Cookie, err error) {
	return list, call(ctx, http.MethodGet, b.session+"/cookie", nil, &list)
}

// Console returns and forgets what the console said at level WARNING or
// SEVERE: failed loads, violations of the content security policy, errors.
func (b *Browser) Console(ctx context.Context) ([]string, error) {
	var entries []struct{ Level, Message string }
	if err := call(ctx, http.MethodPost, b.session+"/se/log", map[string]string{"type": "browser"}, &entries); err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range entries {
		if e.Level == "WARNING" || e.Level == "SEVERE" {
			lines = append(lines, e.Message)
		}
	}
	return lines, nil
}

// Screenshot is the whole page, beyond the viewport, as PNG.
func (b *Browser) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct{ Data string }
	if err := b.CDP(ctx, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}

// SaveScreenshot writes the whole page to a file.
func (b *Browser) SaveScreenshot(ctx context.Context, path string) error {
	png, err := b.Screenshot(ctx)
	if err != nil {
		return err
	}
	return os.WriteFile(path, png, 0o644)
}

// CDP sends a command of the Chrome DevTools Protocol.
func (b *Browser) CDP(ctx context.Context, command string, params, result any) error {
	return call(ctx, http.MethodPost, b.session+"/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, result)
}

// Patience is how long Wait waits.
const Patience = 20 * time.Second

// Wait repeats check until it is true; after Patience, or when ctx is done, it
// says what the last check saw.
func Wait(ctx context.Context, check func() (bool, string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for {
		ok, seen, err := check()
		if err == nil && ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last seen: %s %v", ctx.Err(), seen, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// WaitText waits until the first element that matches contains want.
func (b *Browser) WaitText(ctx context.Context, css, want string) error {
	return Wait(ctx, func() (bool, string, error) {
		text, err := b.Text(ctx, css)
		return strings.Contains(text, want), css + ": " + text, err
	})
}

// The key of an element reference, fixed by the specification.
const elementKey = "element-6066-11e4-a52e-4f735466cecf"

// on finds an element and sends it a command; both again if the page replaced
// the element in between.
func (b *Browser) on(ctx context.Context, css, method, command string, body, result any) error {
	for {
		var found map[string]string
		err := call(ctx, http.MethodPost, b.session+"/element", map[string]string{"using": "css selector", "value": css}, &found)
		if err == nil {
			err = call(ctx, method, b.session+"/element/"+found[elementKey]+command, body, result)
		}
		var e *Error
		if errors.As(err, &e) && e.Code == "stale element reference" && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot %s %q: %w", strings.TrimPrefix(command, "/"), css, err)
		}
		return nil
	}
}

// Error is what the driver answers when a command fails.
type Error struct {
	Code    string `json:"error"` // of the specification, e.g. "no such element"
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// call sends one command; every answer is {"value": …}.
func call(ctx context.Context, method, url string, body, result any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var envelope struct{ Value json.RawMessage }
	if err := json.NewDecoder(answer.Body).Decode(&envelope); err != nil {
		return fmt.Errorf("cannot read the driver's answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		failure := &Error{}
		if err := json.Unmarshal(envelope.Value, failure); err != nil {
			return fmt.Errorf("cannot read the driver's error: %w", err)
		}
		return failure
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(envelope.Value, result)
}
