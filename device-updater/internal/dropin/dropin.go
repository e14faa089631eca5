// Package dropin reads directories into which the packages of a release put
// files that describe the device: NAME.yaml, each one YAML document.
package dropin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxFile bounds a file, in bytes.
const MaxFile = 64 << 10

// Each gives the text of each file in dir to read, in the order of their names,
// until read returns an error, which is returned with the name. No directory is
// no files.
func Each(dir string, read func(name string, text []byte) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	for _, path := range paths {
		name := filepath.Base(path)
		text, err := load(path)
		if err == nil {
			err = read(name, text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func load(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("it has more than %d bytes", MaxFile)
	}
	return text, err
}

// Decode reads the text of a file. An unknown key and a second document are
// errors, of one line each.
func Decode(text []byte, to any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(to); err != nil {
		return errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one document")
	}
	return nil
}
