package rig

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Leftovers lists the temporary files in a data directory whose server does
// nothing at the moment: there should be none.
func Leftovers(data string) ([]string, error) {
	var left []string
	for _, dir := range []string{"incoming", "blobs/.tmp", "public/.tmp", "mirrors"} {
		entries, err := os.ReadDir(filepath.Join(data, dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			left = append(left, filepath.Join(dir, e.Name()))
		}
	}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".tmp") && !d.IsDir() || path == filepath.Join(data, "intents") {
			left = append(left, strings.TrimPrefix(path, data+"/"))
		}
		return nil
	})
	return left, err
}
