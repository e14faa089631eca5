package release

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// A batch puts files into the pool before it is committed. So that a process
// killed in between leaves nothing behind, each file is announced before it
// comes by a line "<sha256> <name>" in the file Config.Intents, which disappears
// with the commit. It is not synced: after a power cut a file may stay in the
// pool that nothing refers to, which harms nobody.

// announce notes, with one write, that files are about to enter the pool. An
// announced file that never enters it does no harm.
func (d *draft) announce(ctx context.Context, files []File) error {
	if len(files) == 0 {
		return nil
	}
	if !d.announced {
		if err := d.e.takeBack(ctx); err != nil { // what a batch before could not
			return err
		}
	}
	d.announced = true
	var lines []byte
	for _, f := range files {
		lines = fmt.Appendf(lines, "%x %s\n", f.SHA256, f.Name)
	}
	file, err := os.OpenFile(d.e.Intents, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(lines)
	return errors.Join(err, file.Close())
}

// clearIntents ends the announcements: what they named is committed or taken
// back.
func (e *Engine) clearIntents() error {
	if err := os.Remove(e.Intents); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// takeBack removes from the pool what an interrupted batch put there and no
// commit knows.
func (e *Engine) takeBack(ctx context.Context) error {
	file, err := os.Open(e.Intents)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		digits, name, ok := strings.Cut(lines.Text(), " ")
		raw, err := hex.DecodeString(digits)
		if !ok || err != nil || len(raw) != 32 {
			continue // the process died while it wrote this line: the file had not come yet
		}
		sum := [32]byte(raw)
		known, err := e.Store.HasFile(ctx, sum)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if err := e.Pool.Remove(sum, name); err != nil {
			return err
		}
		e.Log.Info("took back a file of an interrupted batch", "file", name)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return os.Remove(e.Intents)
}
