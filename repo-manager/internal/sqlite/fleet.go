package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
)

// CommitFleet implements fleet.Store.
func (d *DB) CommitFleet(ctx context.Context, b fleet.Batch) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		for _, write := range []func(context.Context, *sql.Tx, fleet.Batch) error{
			putDevices, putContacts, putAssigned, putEvents, putRegistrations, putEnrolTokens, putRefusals, putOldKeys,
		} {
			if err := write(ctx, tx, b); err != nil {
				return err
			}
		}
		return insertActs(ctx, tx, b.Acts)
	})
}

// putEach is each for what an error calls by a name.
func putEach[T any](ctx context.Context, tx *sql.Tx, what, query string, rows []T, values func(T) []any) error {
	if err := each(ctx, tx, query, rows, values); err != nil {
		return fmt.Errorf("cannot store %s: %w", what, err)
	}
	return nil
}

// optionalJSON is NULL for nil.
func optionalJSON[T any](v *T) any {
	if v == nil {
		return nil
	}
	return jsonText(v)
}

func putDevices(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	return putEach(ctx, tx, "a device", `INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
		pipeline = excluded.pipeline, product = excluded.product, stage = excluded.stage, serial = excluded.serial, modules = excluded.modules,
		key = excluded.key, sealing = excluded.sealing, architecture = excluded.architecture, revision = excluded.revision, machine = excluded.machine,
		banned = excluded.banned, hold = excluded.hold, pin = excluded.pin, retired = excluded.retired, created = excluded.created, enrolled = excluded.enrolled`,
		b.Devices, func(d fleet.Device) []any {
			return []any{
				d.Name, d.Pipeline, d.Product, d.Stage, d.Serial, jsonText(d.Modules), []byte(d.Key), d.Sealing, d.Architecture, d.Revision,
				d.Machine, jsonText(d.Banned), optionalJSON(d.Hold), optionalJSON(d.Pin), optionalJSON(d.Retired), timeText(d.Created), timeText(d.Enrolled),
			}
		})
}

func putContacts(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	// The report is the larger part of the row and mostly comes along.
	return putEach(ctx, tx, "what a device said", `INSERT INTO contacts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (device) DO UPDATE SET
		session = ?2, sequence = ?3, boots = ?4, sighting = ?5, clone = ?6, seen = ?9, events = ?10,
		report = CASE WHEN ?11 THEN ?7 ELSE report END, report_hash = CASE WHEN ?11 THEN ?8 ELSE report_hash END`,
		b.Contacts, func(c fleet.ContactOf) []any {
			var text, hash any
			if len(c.Text) > 0 {
				text, hash = c.Text, c.ReportHash[:]
			}
			return []any{
				c.Device, int64(c.Session), int64(c.Sequence), fleet.BootsText(c.Boots), jsonText(c.Where), optionalJSON(c.Clone),
				text, hash, optionalTime(c.Seen), int64(c.Events), c.Text != nil,
			}
		})
}

func putAssigned(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	return putEach(ctx, tx, "an assignment", `INSERT INTO assignments VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (device) DO UPDATE SET
		counter = ?2, content = ?3, release = ?4, modules = ?5`, b.Assigned, func(a fleet.AssignedTo) []any {
		return []any{a.Device, int64(a.Counter), a.Content, optionalJSON(a.Release), jsonText(a.Modules)}
	})
}

func putEvents(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	return putEach(ctx, tx, "an event", `INSERT OR REPLACE INTO device_events VALUES (?, ?, ?, ?, ?)`, b.Events, func(e fleet.Event) []any {
		return []any{e.Device, int64(e.Number % fleet.MaxEvents), int64(e.Number), timeText(e.At), e.Text}
	})
}

func putRegistrations(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	if err := putEach(ctx, tx, "a registration", `INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, b.Registrations,
		func(r fleet.Registration) []any {
			return []any{r.Serial, r.Name, r.Pipeline, r.Product, r.Stage, jsonText(r.Modules), r.Revision, r.By, timeText(r.Created)}
		}); err != nil {
		return err
	}
	return putEach(ctx, tx, "a registration", `DELETE FROM registrations WHERE serial = ?`, b.Unregistered, func(serial string) []any { return []any{serial} })
}

func putEnrolTokens(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	if err := putEach(ctx, tx, "an enrolment token", `INSERT OR REPLACE INTO enrolment_tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, b.Tokens,
		func(t fleet.EnrolToken) []any {
			return []any{
				t.Hash[:], t.Pipeline, t.Product, t.Stage, jsonText(t.Modules), t.Serial, t.Label, t.Uses, t.Left, t.By, timeText(t.Created), timeText(t.Expires),
			}
		}); err != nil {
		return err
	}
	return putEach(ctx, tx, "an enrolment token", `DELETE FROM enrolment_tokens WHERE secret = ?`, b.Revoked, func(h fleet.Hash) []any { return []any{h[:]} })
}

func putRefusals(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	if err := putEach(ctx, tx, "a refusal", `INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?)`, b.Refusals, func(r fleet.Refusal) []any {
		return []any{r.Key, r.Serial, r.By, r.Reason, timeText(r.At)}
	}); err != nil {
		return err
	}
	return putEach(ctx, tx, "a refusal", `DELETE FROM refusals WHERE key = ?`, b.Pardoned, func(key string) []any { return []any{key} })
}

func putOldKeys(ctx context.Context, tx *sql.Tx, b fleet.Batch) error {
	return putEach(ctx, tx, "an old key", `INSERT OR REPLACE INTO old_keys VALUES (?, ?, ?, ?)`, b.OldKeys, func(k fleet.OldKey) []any {
		return []any{[]byte(k.Key), k.Device, k.Reason, timeText(k.At)}
	})
}

// Fleet implements fleet.Store.
func (d *DB) Fleet(ctx context.Context) (s fleet.Stored, err error) {
	if s.Devices, err = d.devices(ctx); err != nil {
		return s, err
	}
	rows, err := d.read.QueryContext(ctx, `SELECT serial, name, pipeline, product, stage, modules, revision, by, created FROM registrations ORDER BY serial`)
	s.Registrations, err = list(rows, err, func(r *sql.Rows, v *fleet.Registration) error {
		return r.Scan(&v.Serial, &v.Name, &v.Pipeline, &v.Product, &v.Stage, jsonValue[[]string]{&v.Modules}, &v.Revision, &v.By, timeValue{&v.Created})
	})
	if err != nil {
		return s, err
	}
	rows, err = d.read.QueryContext(ctx, `SELECT secret, pipeline, product, stage, modules, serial, label, uses, remain, by, created, expires FROM enrolment_tokens ORDER BY secret`)
	s.Tokens, err = list(rows, err, func(r *sql.Rows, t *fleet.EnrolToken) error {
		return r.Scan(hashValue{&t.Hash}, &t.Pipeline, &t.Product, &t.Stage, jsonValue[[]string]{&t.Modules}, &t.Serial, &t.Label, &t.Uses, &t.Left,
			&t.By, timeValue{&t.Created}, timeValue{&t.Expires})
	})
	if err != nil {
		return s, err
	}
	rows, err = d.read.QueryContext(ctx, `SELECT key, serial, by, reason, at FROM refusals ORDER BY key`)
	s.Refusals, err = list(rows, err, func(r *sql.Rows, v *fleet.Refusal) error {
		return r.Scan(&v.Key, &v.Serial, &v.By, &v.Reason, timeValue{&v.At})
	})
	if err != nil {
		return s, err
	}
	rows, err = d.read.QueryContext(ctx, `SELECT key, device, reason, at FROM old_keys ORDER BY key`)
	s.OldKeys, err = list(rows, err, func(r *sql.Rows, k *fleet.OldKey) error {
		return r.Scan((*[]byte)(&k.Key), &k.Device, &k.Reason, timeValue{&k.At})
	})
	return s, err
}

// devices reads all devices. What many have alike is held once.
func (d *DB) devices(ctx context.Context) ([]fleet.Device, error) {
	releases := make(map[string]*protocol.AssignedRelease)
	words := make(map[string]string)
	word := func(s *string) {
		if known, ok := words[*s]; ok {
			*s = known
			return
		}
		words[*s] = *s
	}
	rows, err := d.read.QueryContext(ctx, `SELECT name, pipeline, product, stage, serial, d.modules, key, sealing, architecture, revision, machine, banned,
		hold, pin, retired, created, enrolled,
		coalesce(session, 0), coalesce(sequence, 0), boots, sighting, clone, report, report_hash, seen, coalesce(events, 0),
		coalesce(counter, 0), coalesce(content, ''), release, a.modules
		FROM devices d LEFT JOIN contacts c ON c.device = d.name LEFT JOIN assignments a ON a.device = d.name ORDER BY name`)
	return list(rows, err, func(r *sql.Rows, d *fleet.Device) error {
		var report, boots []byte
		var release sql.NullString
		err := r.Scan(&d.Name, &d.Pipeline, &d.Product, &d.Stage, &d.Serial, jsonValue[[]string]{&d.Modules}, (*[]byte)(&d.Key), &d.Sealing, &d.Architecture,
			&d.Revision, &d.Machine, jsonValue[[]string]{&d.Banned},
			jsonValue[*protocol.Hold]{&d.Hold}, jsonValue[*fleet.Pin]{&d.Pin}, jsonValue[*protocol.Retired]{&d.Retired}, timeValue{&d.Created}, timeValue{&d.Enrolled},
			&d.Session, &d.Sequence, &boots, jsonValue[protocol.Sighting]{&d.Where}, jsonValue[*protocol.Clone]{&d.Clone},
			&report, hashValue{&d.ReportHash}, timeValue{&d.Seen}, &d.Events,
			&d.Counter, &d.Content, &release, jsonValue[[]string]{&d.Assigned.Modules})
		if err != nil {
			return err
		}
		for _, s := range []*string{&d.Pipeline, &d.Product, &d.Stage, &d.Architecture, &d.Revision} {
			word(s)
		}
		if d.Where.Machine == d.Machine {
			d.Where.Machine = d.Machine
		}
		d.Boots = fleet.BootsFrom(boots)
		if report != nil {
			if d.Report, err = fleet.ParseReport(report); err != nil {
				return fmt.Errorf("cannot read the report of device %s: %w", d.Name, err)
			}
		}
		if release.Valid {
			if releases[release.String] == nil {
				var one protocol.AssignedRelease
				if err := json.Unmarshal([]byte(release.String), &one); err != nil {
					return fmt.Errorf("cannot read the assignment of device %s: %w", d.Name, err)
				}
				releases[release.String] = &one
			}
			d.Release = releases[release.String]
		}
		return nil
	})
}

// Events implements fleet.Store.
func (d *DB) Events(ctx context.Context, device string) ([]fleet.Event, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT device, number, at, text FROM device_events WHERE device = ? ORDER BY number DESC`, device)
	return list(rows, err, func(r *sql.Rows, e *fleet.Event) error {
		return r.Scan(&e.Device, &e.Number, timeValue{&e.At}, &e.Text)
	})
}

// HasDevices tells whether there is any device, retired ones too.
func (d *DB) HasDevices(ctx context.Context) (bool, error) {
	return d.exists(ctx, `SELECT 1 FROM devices LIMIT 1`)
}
