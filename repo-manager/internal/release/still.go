package release

import "context"

// Still calls f between two acts: while f runs, nothing is committed by the
// engine and nothing is published, so what the database says and what the tree
// shows belong together. All acts wait for f, which must be short.
func (e *Engine) Still(ctx context.Context, f func(context.Context) error) error {
	return e.do(&job{ctx: ctx, act: f})
}

// Record adds to the audit trail what was done to the server as a whole and
// not by the engine.
func (e *Engine) Record(ctx context.Context, a Actor, verb, object, detail string) error {
	return e.do(&job{ctx: ctx, act: func(ctx context.Context) error {
		act := Act{At: e.now(), By: a.Name, Via: a.Via, Verb: verb, Object: object, Detail: detail}
		if err := e.Store.Commit(ctx, Batch{Acts: []Act{act}}); err != nil {
			return because(err, "cannot record to %s %s", verb, object)
		}
		return nil
	}})
}
