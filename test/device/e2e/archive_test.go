package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/device"
)

const (
	pipeline     = "demo"
	distribution = "trixie"
	stageCount   = 60 // every device of a test follows a stage of its own
	keyringPath  = "/usr/share/keyrings/aptfleet-archive-keyring.pgp"
)

var components = []string{"apps", "debian"}

// archive is the server with everything the tests ship, and the device they
// start from.
type archive struct {
	dir      string // as prepare left it
	server   *server
	releases map[string]protocol.Snapshot
	base     *device.Machine // has release "1"; off
	stages   atomic.Int32    // handed out
}

func program(dir, name string) string { return filepath.Join(dir, "bin", name) }

// openArchive starts the server, ships every release and installs the device
// that the tests clone.
func openArchive(ctx context.Context, dir string) (_ *archive, err error) {
	a := &archive{dir: dir, releases: map[string]protocol.Snapshot{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.server, err = startServer(ctx, program(dir, "repo-manager"), filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	done := times.start("ship 12 releases")
	if err := a.ship(ctx); err != nil {
		return nil, err
	}
	done()
	return a, a.install(ctx)
}

// ship uploads the releases one after the other and takes a snapshot of each.
func (a *archive) ship(ctx context.Context) error {
	out := filepath.Join(a.dir, "packages")
	updater, err := buildPackage(ctx, program(a.dir, "builder"), filepath.Join(module, "device-updater", "aptfleet.yaml"), "1.0", filepath.Join(out, "device-updater"))
	if err != nil {
		return err
	}
	for _, deb := range []string{updater, filepath.Join(a.dir, "data/public/archive-keyring.deb")} {
		if err := a.upload(ctx, deb); err != nil {
			return err
		}
	}
	for _, r := range releases() {
		// Uploads that come together are published together.
		var group errgroup.Group
		for _, s := range r.packages {
			group.Go(func() error {
				deb, err := s.build(ctx, program(a.dir, "builder"), out)
				if err != nil {
					return err
				}
				return a.upload(ctx, deb)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		snapshot, err := a.server.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: r.name})
		if err != nil {
			return err
		}
		a.releases[r.name] = snapshot
	}
	return nil
}

func (a *archive) upload(ctx context.Context, deb string) error {
	file, err := os.Open(deb)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = a.server.Upload(ctx, pipeline, components[0], client.File{Name: filepath.Base(deb), Body: file, Size: info.Size(), AllowOlder: true})
	return err
}

// install makes the device that has release "1".
func (a *archive) install(ctx context.Context) (err error) {
	one := a.releases["1"]
	done := times.start("root file system from the pipeline (0 s if cached)")
	tar, err := device.Root{
		Base:         a.server.url + "/" + pipeline + "/snapshots/" + one.ID,
		State:        one.State,
		Distribution: distribution, Components: components, Packages: []string{"demo-device"},
		Keyring: filepath.Join(a.dir, "data/public/archive-keyring.asc"),
	}.Tar(ctx)
	if err != nil {
		return err
	}
	done()
	done = times.start("install a device")
	a.base, err = device.Create(ctx, device.Config{Dir: filepath.Join(a.dir, "devices", "base"), Name: "device", Loader: program(a.dir, "loader")})
	if err != nil {
		return err
	}
	if err := a.base.Install(ctx, device.Setup{
		Tar: tar, MachineID: "5ea1ed5ea1ed5ea1ed5ea1ed5ea1ed00",
		Updater: program(a.dir, "device-updater"), State: one.State, Snapshot: one.ID,
	}); err != nil {
		return err
	}
	done()
	return nil
}

func (a *archive) close() error {
	var err error
	if a.base != nil {
		err = a.base.Close()
	}
	if a.server != nil {
		err = errors.Join(err, a.server.stop())
	}
	return err
}

// server is a running repo-manager and a client on its socket.
type server struct {
	*client.Client
	url  string // public listener
	data string
	cmd  *exec.Cmd
}

// startServer runs repo-manager on loopback and waits until it listens. Its
// log is DATA/../repo-manager.log.
func startServer(ctx context.Context, program, data string) (*server, error) {
	log, err := os.Create(data + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	config := data + ".yaml"
	if err := os.WriteFile(config, []byte("listen: 127.0.0.1:0\nlisten_admin: 127.0.0.1:0\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "serve", "--data", data, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start repo-manager: %w", err)
	}
	s := &server{data: data, cmd: cmd}
	if err := s.await(ctx); err != nil {
		text, _ := os.ReadFile(data + ".log") // an empty log is shown as such
		return nil, errors.Join(fmt.Errorf("cannot start repo-manager: %w; its log:\n%s", err, text), s.stop())
	}
	return s, nil
}

// await reads where the server listens, for at most 20 seconds.
func (s *server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var addresses struct{ Public, Socket string }
	for {
		b, err := os.ReadFile(filepath.Join(s.data, "run/addresses.json"))
		if err == nil {
			err = json.Unmarshal(b, &addresses)
		}
		if err == nil && addresses.Public != "" {
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.url = addresses.Public
	var err error
	if s.Client, err = client.New(client.Options{Socket: addresses.Socket}); err != nil {
		return err
	}
	_, err = s.System(ctx)
	return err
}

// stop ends the server in an orderly way.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("cannot stop repo-manager: %w", err)
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("repo-manager did not end well: %w", err)
	}
	return nil
}
