package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"

	"aptfleet/internal/atomicfile"
)

// floor is what nobody who publishes index files can avoid, as long as all of
// their bytes are hashed and written: a bare loop over the same bytes.
type floor struct {
	Bytes   int64   `json:"bytes_hashed"` // of Packages, Packages.gz and Packages.zst
	Written int64   `json:"bytes_written"`
	Hash    float64 `json:"hash_ms"`
	Write   float64 `json:"write_ms"`
	Sync    float64 `json:"syncfs_ms"` // one, after the writes
}

// measureFloor hashes the files that a base serves in binary, a directory with
// Packages.gz and Packages.zst, and the text of both, and writes copies below
// scratch, which is on the same file system.
func measureFloor(binary, scratch string, runs int) (floor, error) {
	fail := func(err error) (floor, error) { return floor{}, fmt.Errorf("cannot measure the floor: %w", err) }
	var contents [][]byte
	for _, suffix := range []string{".gz", ".zst"} {
		content, err := os.ReadFile(filepath.Join(binary, "Packages"+suffix))
		if err != nil {
			return fail(err)
		}
		contents = append(contents, content)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(contents[0]))
	if err != nil {
		return fail(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		return fail(err)
	}
	var hash, write, sync []cost
	var f floor
	for range runs {
		// What was dirty before is not of these bytes.
		if err := atomicfile.SyncFS(scratch); err != nil {
			return fail(err)
		}
		begin := time.Now()
		sha256.Sum256(text)
		for _, content := range contents {
			sha256.Sum256(content)
		}
		hashed := time.Now()
		for i, content := range contents {
			if err := os.WriteFile(filepath.Join(scratch, fmt.Sprint("floor", i)), content, 0o644); err != nil {
				return fail(err)
			}
		}
		written := time.Now()
		if err := atomicfile.SyncFS(scratch); err != nil {
			return fail(err)
		}
		hash, write = append(hash, cost{wall: hashed.Sub(begin)}), append(write, cost{wall: written.Sub(hashed)})
		sync = append(sync, cost{wall: time.Since(written)})
		for i := range contents {
			err = errors.Join(err, os.Remove(filepath.Join(scratch, fmt.Sprint("floor", i))))
		}
		if err != nil {
			return fail(err)
		}
	}
	f.Hash, f.Write, f.Sync = medianMS(hash), medianMS(write), medianMS(sync)
	f.Written = int64(len(contents[0]) + len(contents[1]))
	f.Bytes = f.Written + int64(len(text))
	return f, nil
}

// medianMS is the median time of several runs in milliseconds.
func medianMS(runs []cost) float64 {
	return quantile(sorted(runs, func(c cost) float64 { return c.wall.Seconds() * 1000 }), 0.5)
}
