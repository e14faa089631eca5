-- What kinds of device install, and the exact packages that is in each state.

CREATE TABLE products (
	pipeline   TEXT NOT NULL REFERENCES pipelines,
	name       TEXT NOT NULL,
	definition TEXT NOT NULL,               -- JSON object
	created    TEXT NOT NULL,
	PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;

-- Bills of materials, and verdicts that there is none.
CREATE TABLE boms (
	number   INTEGER PRIMARY KEY,
	pipeline TEXT NOT NULL,
	question BLOB NOT NULL,                 -- SHA-256 of the bill without its packages
	state    BLOB NOT NULL,
	product  TEXT NOT NULL,
	modules  TEXT NOT NULL,                 -- JSON array
	sha256   BLOB,                          -- of the text; NULL: a verdict
	size     INTEGER NOT NULL,              -- of the text
	verdict  TEXT,                          -- JSON object; NULL: a bill
	made     TEXT NOT NULL,
	text     BLOB,                          -- gzip
	details  BLOB,                          -- gzip of a JSON array, in the order of the text
	UNIQUE (pipeline, question),
	FOREIGN KEY (pipeline, product) REFERENCES products
) STRICT;
CREATE INDEX boms_by_state ON boms (pipeline, state);
CREATE INDEX boms_by_product ON boms (pipeline, product);
