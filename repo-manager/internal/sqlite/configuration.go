package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
)

// typeAndJSON are the columns of a value that histories have, too.
func typeAndJSON(v *configuration.Value) (t, text any) {
	switch {
	case v == nil:
		return nil, nil
	case v.Type == configuration.Secret:
		return string(v.Type), nil
	}
	return string(v.Type), v.JSON
}

// EditConfig implements configuration.Store.
func (d *DB) EditConfig(ctx context.Context, e configuration.Edit, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		s := e.Scope
		newType, newText := typeAndJSON(e.New)
		var err error
		if e.New == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM config_values WHERE pipeline = ? AND kind = ? AND name = ? AND key = ?`, s.Pipeline, string(s.Kind), s.Name, e.Key)
		} else {
			_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO config_values (pipeline, kind, name, key, type, value, sealed, by, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
				s.Pipeline, string(s.Kind), s.Name, e.Key, newType, newText, e.New.Sealed, e.New.By, timeText(e.New.At))
		}
		if err != nil {
			return fmt.Errorf("cannot store %s of %s: %w", e.Key, s, err)
		}
		oldType, oldText := typeAndJSON(e.Old)
		if _, err := tx.ExecContext(ctx, `INSERT INTO config_history (pipeline, kind, name, key, old_type, old, new_type, new, by, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Pipeline, string(s.Kind), s.Name, e.Key, oldType, oldText, newType, newText, e.By, timeText(e.At)); err != nil {
			return fmt.Errorf("cannot store the history of %s of %s: %w", e.Key, s, err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// ConfigHistory implements configuration.Store.
func (d *DB) ConfigHistory(ctx context.Context, s configuration.Scope, key string, limit int) ([]configuration.Edit, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT old_type, old, new_type, new, by, at FROM config_history
		WHERE pipeline = ? AND kind = ? AND name = ? AND key = ? ORDER BY number DESC LIMIT ?`, s.Pipeline, string(s.Kind), s.Name, key, atMost(limit))
	return list(rows, err, func(r *sql.Rows, e *configuration.Edit) error {
		e.Scope, e.Key = s, key
		var oldType, old, newType, new sql.NullString
		if err := r.Scan(&oldType, &old, &newType, &new, &e.By, timeValue{&e.At}); err != nil {
			return err
		}
		if oldType.Valid {
			e.Old = &configuration.Value{Type: configuration.Type(oldType.String), JSON: old.String}
		}
		if newType.Valid {
			e.New = &configuration.Value{Type: configuration.Type(newType.String), JSON: new.String}
		}
		return nil
	})
}

// ConfigValues implements configuration.Store.
func (d *DB) ConfigValues(ctx context.Context) ([]configuration.Entry, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT pipeline, kind, name, key, type, value, sealed, by, at FROM config_values`)
	return list(rows, err, func(r *sql.Rows, e *configuration.Entry) error {
		var text sql.NullString
		err := r.Scan(&e.Scope.Pipeline, &e.Scope.Kind, &e.Scope.Name, &e.Key, &e.Type, &text, &e.Sealed, &e.By, timeValue{&e.At})
		e.JSON = text.String
		return err
	})
}

// PutConfigSchema implements configuration.Store.
func (d *DB) PutConfigSchema(ctx context.Context, s configuration.Schema, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		var err error
		if s.Fields == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM config_schemas WHERE pipeline = ? AND product = ?`, s.Pipeline, s.Product)
		} else {
			_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO config_schemas (pipeline, product, fields, by, at) VALUES (?, ?, ?, ?, ?)`,
				s.Pipeline, s.Product, jsonText(s.Fields), s.By, timeText(s.At))
		}
		if err != nil {
			return fmt.Errorf("cannot store the configuration schema of product %s: %w", s.Product, err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// ConfigSchemas implements configuration.Store.
func (d *DB) ConfigSchemas(ctx context.Context) ([]configuration.Schema, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT pipeline, product, fields, by, at FROM config_schemas`)
	return list(rows, err, func(r *sql.Rows, s *configuration.Schema) error {
		return r.Scan(&s.Pipeline, &s.Product, jsonValue[map[string]configuration.Field]{&s.Fields}, &s.By, timeValue{&s.At})
	})
}
