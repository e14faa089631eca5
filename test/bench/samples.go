package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// The parts of a publication, in the order in which they are shown.
const (
	partHash     = "hash"
	partWrite    = "write and rename"
	partSync     = "fsync"
	partSign     = "sign"
	partDatabase = "database"
	partCompress = "compress"
	partRead     = "read and look up"
	partChunks   = "parse chunks"
	partOther    = "other"
	partOutside  = "command and HTTP"
)

var parts = []string{partHash, partWrite, partSync, partSign, partDatabase, partCompress, partRead, partChunks, partOther, partOutside}

// profiler asks a server that was built with -tags pprof what it is doing.
type profiler struct{ http *http.Client }

func newProfiler(socket string) profiler {
	return profiler{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

func (p profiler) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/debug/pprof/"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot get a profile: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("cannot get a profile: %s", resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// save writes a CPU profile of the next seconds to a file.
func (p profiler) save(ctx context.Context, seconds int, path string) error {
	return p.saveAs(ctx, fmt.Sprintf("profile?seconds=%d", seconds), path)
}

// saveHeap writes to a file what is in memory, after a collection.
func (p profiler) saveHeap(ctx context.Context, path string) error {
	return p.saveAs(ctx, "heap?gc=1", path)
}

func (p profiler) saveAs(ctx context.Context, profile, path string) error {
	body, err := p.get(ctx, profile)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	_, err = io.Copy(file, body)
	return errors.Join(err, body.Close(), file.Close())
}

// samples counts what a server was doing at the moments at which it was
// looked at. One moment counts 1, in equal shares for all that was done then.
type samples struct {
	total float64
	parts map[string]float64
}

// watch looks at the server again and again until stop is closed. It measures
// time as it passes, so that waiting for a disk counts; a CPU profile has only
// what computes.
func (p profiler) watch(ctx context.Context, stop <-chan struct{}, into *samples) error {
	const pause = time.Millisecond
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(pause):
		}
		body, err := p.get(ctx, "goroutine?debug=2")
		if err != nil {
			return err
		}
		dump, err := io.ReadAll(body)
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
		into.add(string(dump))
	}
}

// add counts one dump of all goroutines.
func (s *samples) add(dump string) {
	if s.parts == nil {
		s.parts = make(map[string]float64)
	}
	var busy []string
	for stack := range strings.SplitSeq(dump, "\n\n") {
		if part, ok := partOf(stack); ok {
			busy = append(busy, part)
		}
	}
	if len(busy) == 0 {
		busy = []string{partOutside}
	}
	s.total++
	for _, part := range busy {
		s.parts[part] += 1 / float64(len(busy))
	}
}

// marks are pieces of function names that tell what a stack is about. The first
// part of which one occurs anywhere in the stack wins, so what encloses other
// work comes first: a database syncs and a signature hashes too.
var marks = []struct {
	part  string
	names []string
}{
	{partSign, []string{"aptfleet/internal/sign.", "go-crypto/"}},
	{partDatabase, []string{"go-sqlite3.", "database/sql."}},
	{partSync, []string{".Syncfs(", ".Fsync(", ".Fdatasync(", "os.(*File).Sync("}},
	{partCompress, []string{"compress/"}},
	{partHash, []string{"crypto/"}},
	{partRead, []string{"os.ReadFile(", "os.(*File).Read", "os.Open(", "os.Lstat(", "os.Stat(", "os.ReadDir(", "fs.Glob("}},
	{partWrite, []string{"os.(*File).", "os.WriteFile(", "os.Rename(", "os.Link(", "os.Mkdir", "os.Remove", "os.Chtimes(", "os.Chmod(", "os.OpenFile(", "os.CreateTemp(", "os.Symlink(", "unix.Copy"}},
	{partChunks, []string{"aptfleet/snapshots.", "aptfleet/internal/deb."}},
}

// partOf tells what a goroutine is doing for the archive; ok is false if it
// waits for another one or belongs to somebody else.
func partOf(stack string) (part string, ok bool) {
	header, frames, _ := strings.Cut(strings.TrimSpace(stack), "\n")
	_, state, _ := strings.Cut(header, "[")
	state, _, _ = strings.Cut(strings.TrimSuffix(state, "]:"), ",")
	if state != "running" && state != "runnable" && state != "syscall" {
		return "", false
	}
	if !strings.Contains(frames, "aptfleet/repo-manager/internal/") && !strings.Contains(frames, "aptfleet/snapshots.") {
		return "", false
	}
	for _, m := range marks {
		for _, name := range m.names {
			if strings.Contains(frames, name) {
				return m.part, true
			}
		}
	}
	return partOther, true
}
