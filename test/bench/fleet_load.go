package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"aptfleet/internal/protocol"
)

// roundOf prepares a check-in of each of n devices, sends all of them as fast as
// they are answered, and notes what that took. Everything that can be done
// before or after is, and the client is as small as it can be: it takes its
// time from the server.
func (b *fleetBench) roundOf(ctx context.Context, op string, n, status int, report []byte, change func(i int, in *protocol.CheckIn)) error {
	requests := make([][]byte, n)
	var prepare errgroup.Group
	const parts = 8
	for part := range parts {
		prepare.Go(func() (err error) {
			for i := part; i < n && err == nil; i += parts {
				requests[i], err = b.checkIn(b.fleet[i], func(in *protocol.CheckIn) { change(i, in) }, report)
			}
			return err
		})
	}
	if err := prepare.Wait(); err != nil {
		return err
	}
	before, err := b.look()
	if err != nil {
		return err
	}
	took := make([]time.Duration, n)
	begin := time.Now()
	if err := b.fire(ctx, requests, status, took); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	wall := time.Since(begin)
	after, err := b.look()
	if err != nil {
		return err
	}
	slices.Sort(took)
	at := func(q float64) float64 { return took[min(n-1, int(q*float64(n)))].Seconds() }
	cpu := after.cpu - before.cpu
	b.rows = append(b.rows, fleetRow{
		Op: op, Devices: b.devices, CheckIns: n, Wall: wall.Seconds(), Rate: float64(n) / wall.Seconds(),
		P50: at(0.5), P99: at(0.99), Max: took[n-1].Seconds(), CPU: cpu.Seconds(), Each: cpu.Seconds() / float64(n) * 1e6,
		Own: (after.own - before.own).Seconds(), Written: after.written - before.written, Database: after.database != before.database,
		Peak: float64(after.peak) / 1e6,
	})
	last := b.rows[len(b.rows)-1]
	fmt.Fprintf(b.out, "%s: %d in %s, %.0f a second; the server took %.1f s of CPU, the generator %.1f s\n", op, n, seconds(last.Wall), last.Rate, last.CPU, last.Own)
	return nil
}

// standing is what is compared before and after a round.
type standing struct {
	cpu, own time.Duration
	written  int64
	peak     int64
	database [sha256.Size]byte // of its file and its log
}

func (b *fleetBench) look() (s standing, err error) {
	if s.cpu, err = cpuOf(b.server.PID()); err != nil {
		return s, err
	}
	if s.own, err = cpuOf(os.Getpid()); err != nil {
		return s, err
	}
	if s.written, err = writtenBy(b.server.PID()); err != nil {
		return s, err
	}
	if s.peak, err = peakOf(b.server.PID()); err != nil {
		return s, err
	}
	sum := sha256.New()
	for _, name := range []string{"repo-manager.db", "repo-manager.db-wal"} {
		file, err := os.Open(filepath.Join(b.server.Data, name))
		if err != nil {
			return s, err
		}
		_, err = io.Copy(sum, file)
		if err := errors.Join(err, file.Close()); err != nil {
			return s, err
		}
	}
	s.database = [sha256.Size]byte(sum.Sum(nil))
	return s, nil
}

// fire sends each request over one of the connections and waits for its
// answer, which must have the status.
func (b *fleetBench) fire(ctx context.Context, requests [][]byte, status int, took []time.Duration) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range b.connections {
		g.Go(func() error {
			conn, err := connect(ctx, b.server.Public)
			if err != nil {
				return err
			}
			defer conn.Close()
			in := bufio.NewReaderSize(conn, 4096)
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(requests) {
					return nil
				}
				begin := time.Now()
				if _, err := conn.Write(requests[i]); err != nil {
					return err
				}
				got, _, err := readAnswer(in, false)
				if err != nil {
					return err
				}
				took[i] = time.Since(begin)
				if got != status {
					return fmt.Errorf("check-in %d was answered with %d, want %d", i, got, status)
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

func connect(ctx context.Context, server string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", strings.TrimPrefix(server, "http://"))
}

// askOnce sends one request and returns the body of its answer.
func askOnce(ctx context.Context, server string, request []byte) ([]byte, error) {
	conn, err := connect(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	status, body, err := readAnswer(bufio.NewReader(conn), true)
	if err == nil && status != 200 {
		err = fmt.Errorf("a check-in was answered with %d: %s", status, body)
	}
	return body, err
}

// readAnswer reads an answer of the server, whose bodies have a length.
func readAnswer(in *bufio.Reader, keep bool) (status int, body []byte, err error) {
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		switch {
		case first:
			if len(line) < 12 {
				return 0, nil, fmt.Errorf("cannot read the answer %q", line)
			}
			if status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, nil, err
			}
		case len(line) <= 2:
			if keep {
				body = make([]byte, length)
				_, err = io.ReadFull(in, body)
			} else {
				_, err = in.Discard(length)
			}
			return status, body, err
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len("Content-Length: "):]))); err != nil {
				return 0, nil, err
			}
		}
	}
}
