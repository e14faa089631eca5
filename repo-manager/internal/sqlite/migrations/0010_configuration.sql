-- What devices are configured with.

CREATE TABLE config_values (
	pipeline TEXT NOT NULL REFERENCES pipelines,
	kind     TEXT NOT NULL,                 -- product, stage, device
	name     TEXT NOT NULL,
	key      TEXT NOT NULL,
	type     TEXT NOT NULL,                 -- string, integer, number, boolean, enum, secret
	value    TEXT,                          -- JSON scalar; NULL for a secret
	sealed   BLOB,                          -- of a secret: encrypted with keys/config.key
	by       TEXT NOT NULL,
	at       TEXT NOT NULL,
	PRIMARY KEY (pipeline, kind, name, key),
	CHECK ((type = 'secret') = (value IS NULL) AND (type = 'secret') = (sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE config_schemas (
	pipeline TEXT NOT NULL REFERENCES pipelines,
	product  TEXT NOT NULL,
	fields   TEXT NOT NULL,                 -- JSON object: what each key may be
	by       TEXT NOT NULL,
	at       TEXT NOT NULL,
	PRIMARY KEY (pipeline, product)
) STRICT, WITHOUT ROWID;

-- What a key was set to, and by whom. Of secrets only that they were set.
CREATE TABLE config_history (
	number   INTEGER PRIMARY KEY,
	pipeline TEXT NOT NULL REFERENCES pipelines,
	kind     TEXT NOT NULL,
	name     TEXT NOT NULL,
	key      TEXT NOT NULL,
	old_type TEXT,                          -- NULL: it was not set
	old      TEXT,                          -- NULL: it was not set, or a secret
	new_type TEXT,                          -- NULL: it is not set any more
	new      TEXT,
	by       TEXT NOT NULL,
	at       TEXT NOT NULL
) STRICT;

CREATE INDEX config_history_of ON config_history (pipeline, kind, name, key, number);
