package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// What one command sends at a time. What arrives together becomes one state
// and is published together: small files go by the thousand in one request,
// and the next is on its way while some are being added. Large ones go by
// themselves.
const (
	bytesAtOnce = 256 << 20
	leastBytes  = 2 << 20 // what a file by itself counts at least

	smallFile     = 1 << 20 // bytes
	parcelFiles   = 2048
	parcelBytes   = 64 << 20
	parcelsAtOnce = 3
)

// parcel is what goes in one request: the places of files among those given.
type parcel struct {
	files []int
	bytes int64
}

// weight is what a parcel counts of bytesAtOnce.
func (p *parcel) weight() int64 {
	if len(p.files) > 1 {
		return bytesAtOnce / parcelsAtOnce
	}
	return min(max(p.bytes, leastBytes), bytesAtOnce)
}

// pack distributes files over parcels, and returns the bytes of all.
func pack(files []string) (parcels []*parcel, total int64) {
	var open *parcel // takes more small files
	for i, path := range files {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() > smallFile {
			alone := &parcel{files: []int{i}}
			if err == nil { // else uploadFile says why not
				alone.bytes = info.Size()
			}
			parcels = append(parcels, alone)
			total += alone.bytes
			continue
		}
		if open == nil || len(open.files) == parcelFiles || open.bytes+info.Size() > parcelBytes {
			open = new(parcel)
			parcels = append(parcels, open)
		}
		open.files = append(open.files, i)
		open.bytes += info.Size()
		total += info.Size()
	}
	return parcels, total
}

// shipment is an upload of many files under way.
type shipment struct {
	api                  *client.Client
	pipeline, repository string
	older                bool
	progress             *term.Progress
	files                []string
	wire                 sync.Mutex        // one parcel of small files is read and sent at a time
	done                 []protocol.Upload // by file, like failed
	failed               []error
}

// upload sends files, a few at a time, reports them in the order given, and
// returns how many were not there already. The error that it returns is that
// of the first file that failed; it tells the others by itself.
func (c *cli) upload(ctx context.Context, api *client.Client, pipeline, repository string, files []string, older bool) (added int, _ error) {
	parcels, total := pack(files)
	s := &shipment{
		api: api, pipeline: pipeline, repository: repository, older: older, progress: c.io.NewProgress("upload", total, "bytes"),
		files: files, done: make([]protocol.Upload, len(files)), failed: make([]error, len(files)),
	}
	room := semaphore.NewWeighted(bytesAtOnce)
	var sending sync.WaitGroup
	for n, p := range parcels {
		if err := room.Acquire(ctx, p.weight()); err != nil {
			err = fmt.Errorf("cannot upload %s and what follows: %w", files[p.files[0]], err)
			for _, p := range parcels[n:] {
				s.fail(p.files, err)
			}
			break
		}
		sending.Go(func() {
			defer room.Release(p.weight())
			if len(p.files) == 1 {
				s.sendOne(ctx, p.files[0])
			} else {
				s.sendAll(ctx, p.files)
			}
		})
	}
	sending.Wait()
	s.progress.Finish()

	taken := []protocol.Upload{}
	table := c.io.NewTable("package", "version", "architecture", "result", "state")
	for i, u := range s.done {
		if s.failed[i] != nil {
			continue
		}
		taken = append(taken, u)
		result := term.Styled{Text: "added", Style: term.Good}
		if u.Already {
			result = term.Styled{Text: "already there"}
		} else {
			added++
		}
		table.Row(u.Name, u.Version, u.Architecture, result, term.ID(u.State))
	}
	if c.io.JSON {
		if err := c.io.PrintJSON(taken); err != nil {
			return added, err
		}
	} else {
		table.Print("")
	}
	return added, c.worst(s.failed)
}

// sendOne streams a file.
func (s *shipment) sendOne(ctx context.Context, i int) {
	s.done[i], s.failed[i] = s.uploadFile(ctx, s.files[i])
}

func (s *shipment) uploadFile(ctx context.Context, path string) (protocol.Upload, error) {
	file, size, err := openPackage(path)
	if err != nil {
		return protocol.Upload{}, err
	}
	defer file.Close()
	return s.api.Upload(ctx, s.pipeline, s.repository, client.File{
		Name: filepath.Base(path), Body: s.progress.Reader(file), Size: size, AllowOlder: s.older,
	})
}

// openPackage opens a file that is to be sent, which must be a plain one, and
// returns its size in bytes.
func openPackage(path string) (*os.File, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the package: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return nil, 0, errors.Join(fmt.Errorf("cannot upload %s: it is no regular file", path), file.Close())
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("cannot read the package: %w", err), file.Close())
	}
	return file, info.Size(), nil
}

// sendAll sends small files in one request. One that cannot be read fails
// alone.
func (s *shipment) sendAll(ctx context.Context, files []int) {
	var sent []int
	s.wire.Lock()
	free := sync.OnceFunc(s.wire.Unlock)
	defer free()
	answers, err := s.api.UploadAll(ctx, s.pipeline, s.repository, func(yield func(string, []byte) bool) {
		defer free()
		content := make([]byte, 0, smallFile+1)
		for _, i := range files {
			var err error
			if content, err = readSmall(s.files[i], content[:0]); err != nil {
				s.failed[i] = fmt.Errorf("cannot read the package: %w", err)
				continue
			}
			sent = append(sent, i)
			s.progress.Add(int64(len(content)))
			if !yield(filepath.Base(s.files[i]), content) {
				return
			}
		}
	}, s.older)
	if err != nil {
		s.fail(files, err)
		return
	}
	for n, i := range sent {
		if s.failed[i] = client.Refusal(answers[n]); s.failed[i] == nil {
			s.done[i] = *answers[n].Upload
		}
	}
}

// readSmall appends a file to buffer. It makes three system calls for a small
// one; os.ReadFile makes ten, and there may be tens of thousands.
func readSmall(path string, buffer []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return buffer, &os.PathError{Op: "open", Path: path, Err: err}
	}
	for {
		room := cap(buffer) - len(buffer)
		n, err := unix.Read(fd, buffer[len(buffer):cap(buffer)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return buffer, errors.Join(&os.PathError{Op: "read", Path: path, Err: err}, unix.Close(fd))
		}
		if buffer = buffer[:len(buffer)+n]; n < room { // its end: packed files are regular ones
			return buffer, unix.Close(fd)
		}
		buffer = slices.Grow(buffer, len(buffer)) // it has grown since
	}
}

// fail notes what kept files from being sent, unless something else did.
func (s *shipment) fail(files []int, err error) {
	for _, i := range files {
		if s.failed[i] == nil {
			s.failed[i] = err
		}
	}
}
