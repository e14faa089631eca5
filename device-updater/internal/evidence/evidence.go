// Package evidence takes excerpts of logs that say why a release failed: what a
// unit wrote into the journal, what a check or an installation printed, what
// the kernel left of a boot that ended in a panic. It never takes environments,
// command lines or files of configuration; what a program writes into its log
// is taken as it is.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"aptfleet/internal/protocol"
)

// maxLines is how many lines an excerpt has at most: the last ones.
const maxLines = 50

// patience is how long a program has that is asked for a log.
const patience = 5 * time.Second

// Take makes an excerpt of a text: its last lines, made printable. Nothing is
// made of a text without any; names of sources are for people.
func Take(from, text string) []protocol.Excerpt {
	if text = printable(lastLines(text, maxLines)); text == "" {
		return nil
	}
	return Bound([]protocol.Excerpt{{From: from, Text: text}})
}

// Bound keeps the texts of all excerpts within protocol.MaxEvidence, each by its
// share: what one does not need, the others have. Of a text the end stays.
func Bound(all []protocol.Excerpt) []protocol.Excerpt {
	all = slices.Clone(all)
	// The shortest first: it leaves the most for the others.
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(all[a].Text) - len(all[b].Text) })
	left := protocol.MaxEvidence
	for done, i := range order {
		share := left / (len(order) - done)
		if text := all[i].Text; len(text) > share {
			text = strings.ToValidUTF8(text[len(text)-share:], "")
			// Half a line says less than none, unless it is all there is.
			if _, rest, ok := strings.Cut(text, "\n"); ok {
				text = rest
			}
			all[i].Text = text
		}
		left -= len(all[i].Text)
	}
	return slices.DeleteFunc(all, func(e protocol.Excerpt) bool { return e.Text == "" })
}

// File takes the end of a file; nothing of one that cannot be read.
func File(from, path string) []protocol.Excerpt {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	const most = 4 * protocol.MaxEvidence
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return nil
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil && len(text) == 0 {
		return nil
	}
	return Take(from, string(text))
}

// Unit takes what a unit wrote into the journal in this boot.
func Unit(ctx context.Context, unit string) []protocol.Excerpt {
	text, err := journal(ctx, "--boot", "--unit="+unit)
	if err != nil {
		return nil
	}
	return Take("the journal of "+unit, text)
}

// Jobs takes what the service manager is still waiting for.
func Jobs(ctx context.Context) []protocol.Excerpt {
	text, err := run(ctx, "systemctl", "--no-pager", "--no-legend", "list-jobs")
	if err != nil {
		return nil
	}
	return Take("what was still being started", text)
}

// errNoBoot says that the journal has nothing of a boot before this one.
var errNoBoot = errors.New("the journal has no boot before this one")

// Boot takes the end of the journal of the boot before this one, if that is
// another one than notThis, which must be known.
func Boot(ctx context.Context, notThis string) ([]protocol.Excerpt, error) {
	id, err := run(ctx, "journalctl", "--no-pager", "--quiet", "--boot=-1", "--lines=1", "--output=json", "--output-fields=_BOOT_ID")
	if err != nil {
		return nil, errNoBoot
	}
	plain := strings.ReplaceAll(notThis, "-", "")
	if plain == "" || strings.TrimSpace(id) == "" || strings.Contains(id, `"`+plain+`"`) {
		return nil, errNoBoot
	}
	text, err := journal(ctx, "--boot=-1")
	if err != nil {
		return nil, err
	}
	return Take("the journal of its last boot", text), nil
}

func journal(ctx context.Context, which ...string) (string, error) {
	return run(ctx, "journalctl", append([]string{"--no-pager", "--quiet", "--no-hostname", "--output=short-iso", fmt.Sprintf("--lines=%d", maxLines)}, which...)...)
}

// run returns what a program prints, at most so much as can be of use.
func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	cmd.WaitDelay = time.Second
	out := &Tail{Most: 4 * protocol.MaxEvidence}
	cmd.Stdout = out
	err := cmd.Run()
	return out.String(), err
}

// Kernel takes what the kernel left behind when it died after since: pstore
// keeps that across a reset (systemd-pstore.service(8)).
func Kernel(root string, since time.Time) []protocol.Excerpt {
	var newest string
	var at time.Time
	for _, dir := range []string{"sys/fs/pstore", "var/lib/systemd/pstore"} {
		// What cannot be read is no evidence.
		_ = filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(d.Name(), "dmesg") {
				return nil
			}
			if info, err := d.Info(); err == nil && info.ModTime().After(since) && info.ModTime().After(at) {
				newest, at = path, info.ModTime()
			}
			return nil
		})
	}
	if newest == "" {
		return nil
	}
	return File("the kernel's last words", newest)
}

// Tail is a writer that keeps the last Most bytes. It never fails.
type Tail struct {
	Most int
	text []byte
}

func (t *Tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - t.Most; over > t.Most {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

// String returns what was kept.
func (t *Tail) String() string { return string(t.text[max(0, len(t.text)-t.Most):]) }

func lastLines(text string, most int) string {
	text = strings.TrimRight(text, "\n \t")
	at := len(text)
	for range most {
		i := strings.LastIndexByte(text[:at], '\n')
		if i < 0 {
			return text
		}
		at = i
	}
	return text[at+1:]
}

// printable takes out what could act on a terminal or a page. Journals have
// colours, and lines that were written over (\r).
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?")))
}

// Hide replaces the secrets of a configuration, should a program have written
// one into its log. Secrets of less than six characters are not looked for.
func Hide(all []protocol.Excerpt, secrets []string) []protocol.Excerpt {
	all = slices.Clone(all)
	// The longest first: one may be a part of another.
	secrets = slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return len(b) - len(a) })
	for i := range all {
		for _, s := range secrets {
			if len(s) >= 6 {
				all[i].Text = strings.ReplaceAll(all[i].Text, s, "[secret]")
			}
		}
	}
	return all
}
