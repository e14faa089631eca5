package client

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

// UploadAll sends many .debs, which are in memory one at a time, with one
// request: a tar archive of their names and contents. They share one state,
// and each is taken or refused by itself; it answers for each, in their order.
// Packages that it answers for without an error are durable and published. An
// error means that no answer came; what was added is then added all the same.
func (c *Client) UploadAll(ctx context.Context, pipeline, repository string, files iter.Seq2[string, []byte], allowOlder bool) ([]protocol.Uploaded, error) {
	query := url.Values{}
	if allowOlder {
		query.Set("allow-older", "1")
	}
	body, archive := io.Pipe()
	sent := make(chan int, 1)
	go func() {
		n, err := writeArchive(archive, files)
		archive.CloseWithError(err) // an error breaks the request off
		sent <- n
	}()
	var out []protocol.Uploaded
	_, err := c.call(ctx, request{
		method: http.MethodPost,
		path:   pipelinePath(pipeline, "repositories", repository, "uploads"),
		query:  query, body: body, size: -1,
	}, &out)
	body.Close() // if the answer came before all was sent
	if n := <-sent; err == nil && n != len(out) {
		return nil, fmt.Errorf("cannot use the answer of %s: it is about %d files, %d were sent", c.where, len(out), n)
	}
	for _, u := range out {
		if u.Upload == nil && u.Error == nil {
			return nil, fmt.Errorf("cannot use the answer of %s: it does not say what became of %s", c.where, u.File)
		}
	}
	return out, err
}

// Refusal returns why a file of UploadAll was not added, or nil if it was.
func Refusal(u protocol.Uploaded) error {
	if u.Error == nil {
		return nil
	}
	return errorOf(u.Status, *u.Error)
}

// writeArchive writes a tar archive and returns how many files it holds.
func writeArchive(w io.Writer, files iter.Seq2[string, []byte]) (n int, err error) {
	buffer := bufio.NewWriterSize(w, 256<<10)
	archive := tar.NewWriter(buffer)
	for name, content := range files {
		n++
		err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = archive.Write(content)
		}
		if err != nil {
			return n, fmt.Errorf("cannot send %s: %w", name, err)
		}
	}
	return n, errors.Join(archive.Close(), buffer.Flush())
}
