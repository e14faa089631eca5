package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/klauspost/compress/gzip"
)

// index is the file that every tool publishes, relative to its dists.
const index = component + "/binary-" + architecture + "/Packages.gz"

// get asks for a file, which the caller closes.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("cannot get %s: %s", url, resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

func getAll(ctx context.Context, url string) ([]byte, error) {
	body, err := get(ctx, url)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(body)
	return text, errors.Join(err, body.Close())
}

// named returns the SHA-256 of the index that the InRelease at dists names.
func named(ctx context.Context, dists string) (string, error) {
	text, err := getAll(ctx, dists+"/InRelease")
	if err != nil {
		return "", err
	}
	sum, ok := indexSum(string(text))
	if !ok {
		return "", fmt.Errorf("cannot use %s/InRelease: it does not list %s by SHA-256", dists, index)
	}
	return sum, nil
}

// indexSum finds the SHA-256 of the index in the text of a Release file.
func indexSum(text string) (sum string, ok bool) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 3 && words[2] == index && len(words[0]) == 64 {
			return words[0], true
		}
	}
	return "", false
}

// awaitChange asks for InRelease until it names another index than before.
func awaitChange(ctx context.Context, dists, before string, patience time.Duration) error {
	for begin := time.Now(); ; {
		now, err := named(ctx, dists)
		if err != nil {
			return err
		}
		if now != before {
			return nil
		}
		if time.Since(begin) > patience {
			return fmt.Errorf("the change is not in %s/InRelease %s after the tool said that it is done", dists, patience)
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// listed reads the index that dists offers, counts its packages and reports
// whether each of wanted, as "name version", is among them.
func listed(ctx context.Context, dists string, wanted map[string]bool) (count int, missing []string, err error) {
	body, err := get(ctx, dists+"/"+index)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	unpacked, err := gzip.NewReader(body)
	if err != nil {
		return 0, nil, err
	}
	found := make(map[string]bool)
	var name string
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "Package: "); ok {
			name = value
			count++
		}
		if value, ok := strings.CutPrefix(lines.Text(), "Version: "); ok && wanted[name+" "+value] {
			found[name+" "+value] = true
		}
	}
	for one := range wanted {
		if !found[one] {
			missing = append(missing, one)
		}
	}
	return count, missing, lines.Err()
}

// mustBeSigned has gpgv look at the InRelease of a stage.
func mustBeSigned(ctx context.Context, t tool, scratch string) error {
	text, err := getAll(ctx, t.dists(dev)+"/InRelease")
	if err != nil {
		return err
	}
	file := filepath.Join(scratch, "InRelease")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	keyring, err := binaryKeyring(t.certificate(), scratch)
	if err != nil {
		return err
	}
	if _, err := new(runner).run(ctx, scratch, "gpgv", "--quiet", "--keyring", keyring, file); err != nil {
		return fmt.Errorf("cannot verify what %s publishes: %w", t.name(), err)
	}
	return os.Remove(file)
}

// binaryKeyring returns a keyring as gpgv of every Debian release reads it.
func binaryKeyring(certificate, scratch string) (string, error) {
	text, err := os.ReadFile(certificate)
	if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN")) {
		return certificate, err
	}
	block, err := armor.Decode(bytes.NewReader(text))
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", certificate, err)
	}
	content, err := io.ReadAll(block.Body)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", certificate, err)
	}
	keyring := filepath.Join(scratch, "keyring.gpg")
	return keyring, os.WriteFile(keyring, content, 0o644)
}
