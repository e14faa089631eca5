package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"aptfleet/internal/term"
)

// worldFormat counts changes of what a run leaves behind that a later one
// cannot go on from. Directories of before this was written have no world.json.
const worldFormat = 2

// world is world.json: what the directory was made as.
type world struct {
	Format int  `json:"format"`
	Device bool `json:"device"` // the pipeline holds what a device installs
}

// settle refuses a directory that this program cannot go on from, before
// anything in it is touched, and marks a new one.
func (d *demo) settle() error {
	path := filepath.Join(d.dir, "world.json")
	now := world{Format: worldFormat, Device: d.device}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Join(d.dir, "server")); err == nil {
			return d.foreign("another version of Aptfleet made it")
		}
		if text, err = json.Marshal(now); err == nil {
			err = os.WriteFile(path, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("cannot prepare %s: %w", d.dir, err)
		}
		return nil
	}
	var was world
	if err == nil {
		err = json.Unmarshal(text, &was)
	}
	switch {
	case err != nil:
		return d.foreign(fmt.Sprintf("cannot read %s: %v", path, err))
	case was.Format != worldFormat:
		return d.foreign("another version of Aptfleet made it")
	case d.device && !was.Device:
		return d.foreign("it was made with DEVICE=none and holds nothing that a device could install")
	}
	return nil
}

func (d *demo) foreign(why string) error {
	return term.WithHint(fmt.Errorf("cannot go on from %s: %s", d.dir, why),
		"FRESH=1 make run starts over and keeps downloads; what was uploaded there is lost")
}
