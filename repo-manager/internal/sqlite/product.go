package sqlite

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"aptfleet/internal/bom"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// definition is what of a product is stored as JSON.
type definition struct {
	Architecture string              `json:"architecture"`
	Packages     []string            `json:"packages"`
	Revisions    []string            `json:"revisions,omitempty"`
	Modules      map[string][]string `json:"modules,omitempty"`
	Recommends   bool                `json:"recommends,omitempty"`
}

func definitionOf(p product.Product) definition {
	return definition{p.Architecture, p.Packages, p.Revisions, p.Modules, p.Recommends}
}

// Products implements product.Store.
func (d *DB) Products(ctx context.Context) ([]product.Product, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT pipeline, name, definition, created FROM products ORDER BY pipeline, name`)
	return list(rows, err, func(r *sql.Rows, p *product.Product) error {
		var def definition
		if err := r.Scan(&p.Pipeline, &p.Name, jsonValue[definition]{&def}, timeValue{&p.Created}); err != nil {
			return err
		}
		p.Architecture, p.Packages, p.Revisions, p.Modules, p.Recommends = def.Architecture, def.Packages, def.Revisions, def.Modules, def.Recommends
		return nil
	})
}

// CreateProduct implements product.Store.
func (d *DB) CreateProduct(ctx context.Context, p product.Product, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO products (pipeline, name, definition, created) VALUES (?, ?, ?, ?)`,
			p.Pipeline, p.Name, jsonText(definitionOf(p)), timeText(p.Created))
		if isUnique(err) {
			return product.ErrExists
		}
		if err != nil {
			return fmt.Errorf("cannot store product %s: %w", p.Name, err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// SetProduct implements product.Store.
func (d *DB) SetProduct(ctx context.Context, p product.Product, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE products SET definition = ? WHERE pipeline = ? AND name = ?`, jsonText(definitionOf(p)), p.Pipeline, p.Name)
		if err != nil {
			return fmt.Errorf("cannot store product %s: %w", p.Name, err)
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("cannot store product %s: there is no such product", p.Name))
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// DeleteProduct implements product.Store.
func (d *DB) DeleteProduct(ctx context.Context, pipeline, name string, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		for _, statement := range []string{`DELETE FROM boms WHERE pipeline = ? AND product = ?`, `DELETE FROM products WHERE pipeline = ? AND name = ?`} {
			if _, err := tx.ExecContext(ctx, statement, pipeline, name); err != nil {
				return fmt.Errorf("cannot delete product %s: %w", name, err)
			}
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

// answerColumns are what scanAnswer reads.
const answerColumns = `pipeline, question, state, product, modules, sha256, size, verdict, made`

func scanAnswer(r interface{ Scan(...any) error }, a *product.Answer, more ...any) error {
	return r.Scan(append([]any{&a.Pipeline, hashValue{&a.Question}, idValue(&a.State), &a.Product, jsonValue[[]string]{&a.Modules},
		hashValue{&a.SHA256}, &a.Size, jsonValue[*product.Verdict]{&a.Verdict}, timeValue{&a.Made}}, more...)...)
}

// Answers implements product.Store.
func (d *DB) Answers(ctx context.Context) ([]product.Answer, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT `+answerColumns+` FROM boms ORDER BY number`)
	return list(rows, err, func(r *sql.Rows, a *product.Answer) error { return scanAnswer(r, a) })
}

// PutAnswer implements product.Store.
func (d *DB) PutAnswer(ctx context.Context, a product.Answer) error {
	var sum, text, details, verdict any
	if a.Verdict != nil {
		verdict = jsonText(a.Verdict)
	} else {
		sum = a.SHA256[:]
		packed, err := pack(a.Text)
		if err != nil {
			return err
		}
		text = packed
		if packed, err = pack([]byte(jsonText(a.Details))); err != nil {
			return err
		}
		details = packed
	}
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO boms (`+answerColumns+`, text, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			a.Pipeline, a.Question[:], a.State[:], a.Product, jsonText(a.Modules), sum, a.Size, verdict, timeText(a.Made), text, details); err != nil {
			return fmt.Errorf("cannot store the bill of materials of %s: %w", a.Product, err)
		}
		return nil
	})
}

// Answer implements product.Store.
func (d *DB) Answer(ctx context.Context, pipeline string, question [32]byte) (a product.Answer, ok bool, err error) {
	var text, details []byte
	row := d.read.QueryRowContext(ctx, `SELECT `+answerColumns+`, text, details FROM boms WHERE pipeline = ? AND question = ?`, pipeline, question[:])
	switch err := scanAnswer(row, &a, &text, &details); {
	case errors.Is(err, sql.ErrNoRows):
		return product.Answer{}, false, nil
	case err != nil:
		return product.Answer{}, false, err
	}
	if a.Verdict != nil {
		return a, true, nil
	}
	if a.Text, err = unpack(text, bom.MaxSize); err != nil {
		return product.Answer{}, false, fmt.Errorf("cannot read the bill of materials of %s: %w", a.Product, err)
	}
	plain, err := unpack(details, maxDetails)
	if err == nil {
		err = json.Unmarshal(plain, &a.Details)
	}
	if err != nil {
		return product.Answer{}, false, fmt.Errorf("cannot read the bill of materials of %s: %w", a.Product, err)
	}
	return a, true, nil
}

// DropAnswers implements product.Store.
func (d *DB) DropAnswers(ctx context.Context, pipeline string, states []snapshots.ID) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		for _, state := range states {
			if _, err := tx.ExecContext(ctx, `DELETE FROM boms WHERE pipeline = ? AND state = ?`, pipeline, state[:]); err != nil {
				return fmt.Errorf("cannot drop the bills of materials of state %s: %w", state, err)
			}
		}
		return nil
	})
}

// maxDetails bounds the details of a bill in bytes.
const maxDetails = 64 << 20

func pack(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(plain)
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}

func unpack(packed []byte, limit int64) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, limit+1))
	if err == nil && int64(len(plain)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return plain, err
}
