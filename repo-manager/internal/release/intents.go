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

// intents is the open file, of one batch.
type intents struct {
	path string
	file *os.File
}

// announce notes, with one write, that files are about to enter the pool. An
// announced file that never enters it does no harm.
func (i *intents) announce(files []wanted) error {
	file, err := os.OpenFile(i.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	i.file = file
	var lines []byte
	for _, f := range files {
		lines = fmt.Appendf(lines, "%x %s\n", f.SHA256, f.Name)
	}
	_, err = i.file.Write(lines)
	return err
}

// clear ends the announcements: what they named is committed or taken back.
func (i *intents) clear() error {
	if i.file == nil {
		return nil
	}
	err := errors.Join(i.file.Close(), os.Remove(i.path))
	i.file = nil
	return err
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
