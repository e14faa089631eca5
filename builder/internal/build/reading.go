package build

import (
	"context"
	"io"

	"aptfleet/internal/debwriter"
)

// watch makes the reading of entries end with ctx and tells progress, which
// may be nil, how far it is.
func watch(ctx context.Context, entries []debwriter.Entry, progress func(done, total int64)) {
	r := &reading{ctx: ctx, progress: progress}
	for i := range entries {
		open := entries[i].Open
		if open == nil {
			continue
		}
		r.total += entries[i].Size
		entries[i].Open = func() (io.ReadCloser, error) {
			content, err := open()
			if err != nil {
				return nil, err
			}
			return watchedFile{r, content}, nil
		}
	}
}

// reading is one pass over all contents, file after file.
type reading struct {
	ctx         context.Context
	done, total int64 // bytes
	progress    func(done, total int64)
}

type watchedFile struct {
	*reading
	io.ReadCloser
}

func (f watchedFile) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := f.ReadCloser.Read(p)
	f.done += int64(n)
	if f.progress != nil {
		f.progress(f.done, f.total)
	}
	return n, err
}
