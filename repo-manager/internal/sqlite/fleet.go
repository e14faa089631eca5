package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// PutDevice implements fleet.Store.
func (d *DB) PutDevice(ctx context.Context, device fleet.Device, token fleet.Hash, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO devices (name, pipeline, created, secret) VALUES (?, ?, ?, ?)`,
			device.Name, device.Pipeline, timeText(device.Created), token[:])
		if isUnique(err) {
			return fleet.ErrExists
		}
		if err != nil {
			return fmt.Errorf("cannot store device %s: %w", device.Name, err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// Devices implements fleet.Store.
func (d *DB) Devices(ctx context.Context) ([]fleet.Stored, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT name, pipeline, created, seen, report, secret FROM devices ORDER BY name`)
	return list(rows, err, func(r *sql.Rows, s *fleet.Stored) error {
		return r.Scan(&s.Name, &s.Pipeline, timeValue{&s.Created}, timeValue{&s.Seen}, jsonValue[*protocol.Report]{&s.Report}, hashValue{&s.Token})
	})
}

// PutReport implements fleet.Store.
func (d *DB) PutReport(ctx context.Context, name string, report protocol.Report, seen time.Time) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE devices SET report = ?, seen = ? WHERE name = ?`, jsonText(report), timeText(seen), name)
		if err != nil {
			return fmt.Errorf("cannot store the report of device %s: %w", name, err)
		}
		n, err := result.RowsAffected()
		if err == nil && n != 1 {
			return fmt.Errorf("cannot store the report of device %s: there is no such device", name)
		}
		return err
	})
}
