package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/lossydisk"
	"aptfleet/test/order"
)

// ext4Disk is a data directory on an ext4 of its own: unlike tmpfs it takes
// room for directories, too, and finds out late what it needs.
func ext4Disk(t *testing.T, megabytes int64) string {
	t.Helper()
	dir := filepath.Dir(newData(t))
	fs := lossydisk.Ext4
	fs.Size = megabytes << 20
	device, err := lossydisk.Attach(t.Context(), lossydisk.NewDisk(fs.Size), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := device.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := device.Format(t.Context(), fs); err != nil {
		t.Fatal(err)
	}
	mountPoint := filepath.Join(dir, "m")
	if err := os.Mkdir(mountPoint, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := device.Mount(fs, mountPoint); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(mountPoint, "data")
}

// fillBut leaves a number of kilobytes free and returns what gives the rest back.
func fillBut(t *testing.T, dir string, kilobytes int64) (release func()) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var size int64
	for step := int64(4 << 20); step >= 1<<10; {
		var at unix.Statfs_t
		if err := unix.Fstatfs(int(file.Fd()), &at); err != nil {
			t.Fatal(err)
		}
		if int64(at.Bavail)*at.Bsize < step+kilobytes<<10 {
			step /= 2
			continue
		}
		switch err := unix.Fallocate(int(file.Fd()), 0, size, step); {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case err != nil:
			t.Fatal(err)
		default:
			size += step
		}
	}
	return func() {
		if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
			t.Fatal(err)
		}
	}
}

// act is what needs room. It calls fill when the disk is to become full.
type act func(ctx context.Context, s *server, pipeline string, n int, fill func()) error

// roomy is something that needs room.
type roomy struct {
	name    string
	prepare act // while there is room
	act     act // again if it was refused
	needs   int // kilobytes that are certainly enough
	// states is what act changes, if somebody sees that.
	states func(ctx context.Context, s *server, pipeline string) (string, error)
}

// acts are those of a server.
var acts = []roomy{
	{"upload", nothing, uploadSlowly, 800, stageState("dev")},
	{"remove", uploadNth, removeNth, 200, stageState("dev")},
	{"promote", uploadNth, promoteDev, 200, stageState("canary")},
	{"undo", promoteTwice, undoCanary, 200, stageState("canary")},
	{"snapshot create", nothing, nameDev, 200, func(ctx context.Context, s *server, pipeline string) (string, error) {
		all, err := s.API.Snapshots(ctx, pipeline)
		return fmt.Sprint(len(all)), err
	}},
	{"user create", nothing, createNth, 100, func(ctx context.Context, s *server, _ string) (string, error) {
		all, err := s.API.Users(ctx)
		return fmt.Sprint(len(all)), err
	}},
	{"gc", uploadNth, command("gc"), 100, nil},
	{"backup", uploadNth, command("backup", "BACKUP"), 1600, nil},
}

func nothing(context.Context, *server, string, int, func()) error { return nil }

func uploadNth(ctx context.Context, s *server, pipeline string, n int, fill func()) error {
	fill()
	return s.add(ctx, pipeline, n, 40_000, func(body []byte) io.Reader { return bytes.NewReader(body) })
}

// add uploads the nth package, of size bytes and a little more.
func (s *server) add(ctx context.Context, pipeline string, n, size int, send func(body []byte) io.Reader) error {
	name := fmt.Sprintf("app%d", n)
	body := makeDeb(s.t, name, "1.0", "amd64", size)
	_, err := s.API.Upload(ctx, pipeline, "apps", client.File{Name: name + ".deb", Body: send(body), Size: int64(len(body))})
	return err
}

// uploadSlowly has the disk fill up while the package arrives: the server does
// not even begin to write one down while there is little room. It keeps the first
// 64 KiB of each to itself.
func uploadSlowly(ctx context.Context, s *server, pipeline string, n int, fill func()) error {
	return s.add(ctx, pipeline, n, 400_000, func(body []byte) io.Reader {
		half := len(body) / 2
		return io.MultiReader(bytes.NewReader(body[:half]), readerFunc(func([]byte) (int, error) {
			err := await("the upload has begun", func() bool {
				entries := s.incoming()
				if len(entries) == 0 {
					return false
				}
				info, err := os.Stat(filepath.Join(s.Data, "incoming", entries[0].Name()))
				return err == nil && info.Size() > 0
			})
			if err != nil {
				return 0, err
			}
			fill()
			return 0, io.EOF
		}), bytes.NewReader(body[half:]))
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func removeNth(ctx context.Context, s *server, pipeline string, n int, fill func()) error {
	fill()
	_, err := s.API.Remove(ctx, pipeline, "apps", fmt.Sprintf("app%d", n), "")
	return err
}

func promoteDev(ctx context.Context, s *server, pipeline string, _ int, fill func()) error {
	fill()
	_, err := s.API.Promote(ctx, pipeline, "canary", protocol.Promote{Snapshot: "dev", Reason: "test"})
	return err
}

func promoteTwice(ctx context.Context, s *server, pipeline string, n int, fill func()) error {
	return errors.Join(promoteDev(ctx, s, pipeline, n, fill), uploadNth(ctx, s, pipeline, n, fill), promoteDev(ctx, s, pipeline, n, fill))
}

func undoCanary(ctx context.Context, s *server, pipeline string, _ int, fill func()) error {
	fill()
	_, err := s.API.Undo(ctx, pipeline, "canary", protocol.Promote{Reason: "test"})
	return err
}

func nameDev(ctx context.Context, s *server, pipeline string, _ int, fill func()) error {
	fill()
	_, err := s.API.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: "test"})
	return err
}

func createNth(ctx context.Context, s *server, pipeline string, n int, fill func()) error {
	fill()
	_, err := s.API.CreateUser(ctx, fmt.Sprintf("user-%s-%d", pipeline, n), []string{"viewer"})
	return err
}

// command does a thing with the command line. BACKUP is a directory on the
// server's disk.
func command(args ...string) act {
	return func(ctx context.Context, s *server, _ string, _ int, fill func()) error {
		fill()
		args := slices.Clone(args)
		for i, arg := range args {
			if arg == "BACKUP" {
				args[i] = filepath.Join(filepath.Dir(s.Data), "backup")
			}
		}
		cmd := exec.CommandContext(ctx, program, append(args, "--json")...)
		cmd.Env = append(os.Environ(), "APTFLEET_DATA="+s.Data)
		var problem bytes.Buffer
		cmd.Stderr = &problem
		err := cmd.Run()
		var body protocol.ErrorBody
		if err != nil && json.Unmarshal(problem.Bytes(), &body) == nil {
			return &client.Error{Code: body.Error.Code, Text: body.Error.Text}
		}
		return errors.Join(err)
	}
}

func stageState(stage string) func(context.Context, *server, string) (string, error) {
	return func(ctx context.Context, s *server, pipeline string) (string, error) {
		at, err := s.API.Stage(ctx, pipeline, stage)
		return at.State, err
	}
}

// TestFullDiskAtEveryStep does everything that needs room with a little more
// of it each time, so that the disk is full at one step after the other. What
// is refused says why and has changed nothing; what is recorded and not
// visible yet says that; the stages stay what apt accepts; and once there is
// room everything goes on.
func TestFullDiskAtEveryStep(t *testing.T) {
	t.Parallel()
	steps := 16
	if order.Long() {
		steps = 70
	}
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ext4Disk(t, int64(24+steps)), "", "reserve: 1") // all of them leave something there
			outcomes := make(map[string]int)
			for n := range steps {
				outcomes[s.withLittleRoom(a, n, int64(n*a.needs/(steps-1)))]++
				if t.Failed() {
					t.FailNow()
				}
			}
			t.Logf("%s: %v", a.name, outcomes)
			if outcomes["done"] == 0 || len(outcomes) < 2 {
				t.Errorf("the disk was never full, or always: %v", outcomes)
			}
			s.stop()
			s = start(t, s.Data, "")
			s.mustBeClean()
			s.stop()
		})
	}
}

// withLittleRoom does an act for the nth time while so many kilobytes are
// free, and again with room, and returns how it ended: "done", or the code of
// the answer.
func (s *server) withLittleRoom(a roomy, n int, kilobytes int64) (outcome string) {
	s.t.Helper()
	ctx := s.t.Context()
	always := func() {}
	// Each pipeline serves twice: the second time it has all its stages.
	pipeline := fmt.Sprintf("p%d", n/2)
	if n%2 == 0 {
		s.pipeline(pipeline)
	}
	if err := a.prepare(ctx, s, pipeline, n, always); err != nil {
		s.t.Fatalf("with room: %v", err)
	}
	look := func() string {
		s.t.Helper()
		if a.states == nil {
			return ""
		}
		state, err := a.states(ctx, s, pipeline)
		if err != nil {
			s.t.Fatalf("with %d kB: nothing can be read any more: %v", kilobytes, err)
		}
		return state
	}
	before := look()
	release := always
	failed := a.act(ctx, s, pipeline, n, func() { release = fillBut(s.t, filepath.Dir(s.Data), kilobytes) })
	changed := before != look()
	s.offered(pipeline, "dev")
	outcome = "done"
	if failed != nil {
		var answer *client.Error
		if !errors.As(failed, &answer) || !strings.Contains(answer.Text, "no space left") {
			s.t.Fatalf("with %d kB: %v; want an answer that says why\n%s", kilobytes, failed, s.Log())
		}
		outcome = answer.Code
	}
	if a.states != nil && changed != (outcome == "done" || outcome == "unpublished") {
		s.t.Errorf("with %d kB: the answer was %s; that something changed is %v", kilobytes, outcome, changed)
	}
	release()
	switch outcome {
	case "done":
	default:
		failed = a.act(ctx, s, pipeline, n, always)
	case "unpublished": // whoever repeats an upload has it published now
		failed = errors.Join(uploadNth(ctx, s, pipeline, 0, always), uploadNth(ctx, s, pipeline, 0, always))
	}
	if failed != nil {
		s.t.Fatalf("with room again after %d kB: %v\n%s", kilobytes, failed, s.Log())
	}
	s.mustBeClean()
	return outcome
}
