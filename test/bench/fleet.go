package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	_ "github.com/mattn/go-sqlite3" // devices are put into the server's database before it starts

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// fleetBench measures a server with many devices.
type fleetBench struct {
	devices     int
	connections int
	work        string // directory for everything that is made
	results     string // directory for the result
	profile     string // directory for a CPU profile of the server, or ""
	out         io.Writer

	server *rig.Server
	fleet  []member
	rows   []fleetRow
}

// member is a device that checks in as fast as it can.
type member struct {
	name string
	key  ed25519.PrivateKey
}

// fleetRow is what a round of check-ins took.
type fleetRow struct {
	Op       string  `json:"op"`
	Devices  int     `json:"devices"`
	CheckIns int     `json:"check_ins"`
	Wall     float64 `json:"wall_s"`
	Rate     float64 `json:"per_s"`
	P50      float64 `json:"p50_s"`
	P99      float64 `json:"p99_s"`
	Max      float64 `json:"max_s"`
	CPU      float64 `json:"server_cpu_s"`
	Each     float64 `json:"server_cpu_each_us"`
	Own      float64 `json:"generator_cpu_s"` // shares the processors with the server
	Written  int64   `json:"bytes_written"`   // by the server, as the kernel counts them
	Database bool    `json:"database_changed"`
	Peak     float64 `json:"peak_mb"` // of the server so far; MB are 10^6 bytes
}

// run prints the rounds and writes fleet.json.
func (b *fleetBench) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(b.work, "af-fleet-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tags := ""
	if b.profile != "" {
		tags = "pprof"
	}
	if err := rig.Build(ctx, dir, tags, "repo-manager"); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	fmt.Fprintf(b.out, "%d CPUs, %d devices, %d connections; server and generator share the CPUs\n", runtime.NumCPU(), b.devices, b.connections)
	if err := b.enrolAll(ctx, dir, data); err != nil {
		return err
	}
	begin := time.Now()
	if err := b.start(ctx, dir, data); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop()) }()
	fmt.Fprintf(b.out, "a server that knows them starts in %s\n\n", seconds(time.Since(begin).Seconds()))
	if err := b.rounds(ctx); err != nil {
		return err
	}
	if b.profile != "" {
		if err := newProfiler(data+".pprof").saveHeap(ctx, filepath.Join(b.profile, "fleet-heap.pprof")); err != nil {
			return err
		}
	}
	fmt.Fprintln(b.out)
	b.table()
	return writeJSON(filepath.Join(b.results, "fleet.json"), b.rows)
}

func (b *fleetBench) start(ctx context.Context, dir, data string) (err error) {
	config := rig.Config{Program: filepath.Join(dir, "repo-manager"), Data: data}
	if b.profile != "" {
		// A server before it may have left its socket.
		if err := os.Remove(data + ".pprof"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		config.Env = []string{"APTFLEET_PPROF=" + data + ".pprof"}
	}
	b.server, err = rig.Start(ctx, config)
	return err
}

// enrolAll has a server make its data directory, and puts the devices into its
// database: one after the other they would take an hour.
func (b *fleetBench) enrolAll(ctx context.Context, dir, data string) error {
	if err := b.start(ctx, dir, data); err != nil {
		return err
	}
	if err := errors.Join(b.release(ctx), b.server.Stop()); err != nil {
		return err
	}
	b.fleet = make([]member, b.devices)
	for i := range b.fleet {
		seed := sha256.Sum256(fmt.Append(nil, "device ", i))
		b.fleet[i] = member{name: fmt.Sprintf("device-%06d", i), key: ed25519.NewKeyFromSeed(seed[:])}
	}
	return b.insert(ctx, filepath.Join(data, "repo-manager.db"))
}

// release makes what the devices are to run: a product with a module and a bill
// of materials that is computed, and their configuration.
func (b *fleetBench) release(ctx context.Context) error {
	const product, repository = "gateway", "apps"
	api := b.server.API
	if _, err := api.CreatePipeline(ctx, protocol.Pipeline{Name: pipeline, Distribution: distribution, Architectures: []string{architecture}, Stages: []string{dev, canary}}); err != nil {
		return err
	}
	if _, err := api.CreateRepository(ctx, pipeline, repository, 1); err != nil {
		return err
	}
	for _, p := range [][]string{{"app", "Depends: lib"}, {"lib"}, {"modem"}} {
		content, err := rig.Package(p[0], "1.0", architecture, nil, p[1:]...)
		if err != nil {
			return err
		}
		if _, err := api.Upload(ctx, pipeline, repository, client.File{Name: p[0], Body: bytes.NewReader(content), Size: int64(len(content))}); err != nil {
			return err
		}
	}
	if _, err := api.CreateProduct(ctx, pipeline, protocol.Product{
		Name: product, Architecture: architecture, Packages: []string{"app"}, Revisions: []string{"r1", "r2"}, Modules: map[string][]string{"lte": {"modem"}},
	}); err != nil {
		return err
	}
	if _, err := api.BOM(ctx, pipeline, product, []string{"lte"}, dev); err != nil {
		return err
	}
	for key, value := range map[string]protocol.SetConfig{
		"interval": {Type: "integer", Value: 60}, "cloud.url": {Value: "https://cloud.example.com/v1"}, "log.level": {Value: "info"},
	} {
		if _, err := api.SetConfig(ctx, pipeline, protocol.ConfigScope{Kind: "product", Name: product}, key, value); err != nil {
			return err
		}
	}
	return nil
}

func (b *fleetBench) insert(ctx context.Context, path string) (err error) {
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	const now = "2026-11-20T10:00:00.000000Z"
	for i, m := range b.fleet {
		public := []byte(m.key.Public().(ed25519.PublicKey))
		sealing := sha256.Sum256(public)
		_, err := tx.ExecContext(ctx, `INSERT INTO devices (name, pipeline, product, stage, serial, modules, key, sealing, architecture, revision, machine, banned, created, enrolled)
			VALUES (?, ?, 'gateway', ?, ?, '["lte"]', ?, ?, ?, '', ?, '[]', ?, ?)`,
			m.name, pipeline, dev, fmt.Sprintf("SN-%06d", i), public, sealing[:], architecture, m.machine(), now, now)
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (m member) machine() string {
	sum := sha256.Sum256([]byte(m.name))
	return hex.EncodeToString(sum[:16])
}

// rounds are what all devices do, one after the other.
func (b *fleetBench) rounds(ctx context.Context) error {
	report := sampleReport("IDLE")
	// Each begins with its report and gets an assignment.
	if err := b.round(ctx, "first-contact", b.devices, 200, func(in *protocol.CheckIn) { in.Sequence, in.Report = 1, report }, report); err != nil {
		return err
	}
	told, err := b.assignment(ctx, report)
	if err != nil {
		return err
	}
	has := func(i int, in *protocol.CheckIn) {
		own := told
		own.Device, own.Key = b.fleet[i].name, protocol.KeyID(b.fleet[i].key.Public().(ed25519.PublicKey))
		in.Counter, in.Assignment, in.Expires = told.Counter, own.Content(), told.Expires
	}
	for n := range 2 {
		profiled := b.profiled(ctx, n == 1)
		err := b.roundOf(ctx, "unchanged", b.devices, 204, report, func(i int, in *protocol.CheckIn) {
			in.Sequence = uint64(3 + n)
			has(i, in)
		})
		if err := errors.Join(err, <-profiled); err != nil {
			return err
		}
	}
	changed := sampleReport("DOWNLOAD")
	return b.roundOf(ctx, "changed-state", b.devices, 204, changed, func(i int, in *protocol.CheckIn) {
		in.Sequence, in.Report = 5, changed
		has(i, in)
	})
}

// profiled saves a CPU profile of the server in the background, if one is
// wanted.
func (b *fleetBench) profiled(ctx context.Context, wanted bool) <-chan error {
	done := make(chan error, 1)
	if b.profile == "" || !wanted {
		done <- nil
		return done
	}
	const seconds = 8
	go func() {
		done <- newProfiler(b.server.Data+".pprof").save(ctx, seconds, filepath.Join(b.profile, "check-ins.pprof"))
	}()
	return done
}

func (b *fleetBench) round(ctx context.Context, op string, n, status int, change func(*protocol.CheckIn), report []byte) error {
	return b.roundOf(ctx, op, n, status, report, func(_ int, in *protocol.CheckIn) { change(in) })
}

// sampleReport is what a device with two deployments says.
func sampleReport(phase string) []byte {
	deployment := func(id int, role string) protocol.Deployment {
		state := sha256.Sum256(fmt.Append(nil, id))
		return protocol.Deployment{ID: id, State: hex.EncodeToString(state[:]), Snapshot: "20261120T101500Z", Role: role, Version: "1.0"}
	}
	text, err := json.Marshal(protocol.Report{
		Follow: dev, Phase: phase, Health: &protocol.Health{OK: true}, FreeBytes: 3 << 30, Revision: "r2", Updater: "1.0", Config: "3f2a",
		Deployments: []protocol.Deployment{deployment(2, "booted"), deployment(1, "rollback")},
	})
	if err != nil {
		panic(err)
	}
	return text
}

// checkIn is the request of a device as it goes over the wire.
func (b *fleetBench) checkIn(m member, change func(*protocol.CheckIn), report []byte) ([]byte, error) {
	in := protocol.CheckIn{
		Version: protocol.DeviceProtocol, Session: 1, Boot: "5e0b3c2d-0000-4000-8000-000000000000", Machine: m.machine(),
		Time: time.Now().UTC(), ReportHash: protocol.ReportHash(report),
	}
	change(&in)
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(protocol.Sign(m.key, protocol.ForCheckIn, text))
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "POST /device/v1/check-ins HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		strings.TrimPrefix(b.server.Public, "http://"), len(body), body), nil
}

// assignment asks as the first device for what it was told: what the others
// were told differs from it by their names and keys.
func (b *fleetBench) assignment(ctx context.Context, report []byte) (told protocol.Assignment, err error) {
	request, err := b.checkIn(b.fleet[0], func(in *protocol.CheckIn) { in.Sequence = 2 }, report)
	if err != nil {
		return told, err
	}
	body, err := askOnce(ctx, b.server.Public, request)
	if err != nil {
		return told, err
	}
	var answer protocol.CheckedIn
	if err := json.Unmarshal(body, &answer); err != nil {
		return told, err
	}
	if answer.Assignment == nil {
		return told, fmt.Errorf("a device without an assignment was told %s", body)
	}
	if err := json.Unmarshal(answer.Assignment.Payload, &told); err != nil {
		return told, err
	}
	if told.Release == nil || told.Release.BOM == "" || told.Config == nil || told.Wait != "" {
		return told, fmt.Errorf("a device was not told what to run: %s", answer.Assignment.Payload)
	}
	return told, nil
}

func (b *fleetBench) table() {
	fmt.Fprintf(b.out, "%-14s %9s %9s %9s %9s %9s %11s %12s %9s %s\n", "round", "check-ins", "per s", "p50", "p99", "max", "CPU each", "MB written", "peak MB", "database")
	for _, r := range b.rows {
		database := "untouched"
		if r.Database {
			database = "written"
		}
		fmt.Fprintf(b.out, "%-14s %9d %9.0f %9s %9s %9s %8.0f µs %12.1f %9.0f %s\n", r.Op, r.CheckIns, r.Rate, seconds(r.P50), seconds(r.P99), seconds(r.Max),
			r.Each, float64(r.Written)/1e6, r.Peak, database)
	}
}
