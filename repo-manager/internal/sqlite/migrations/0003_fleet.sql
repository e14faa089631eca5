-- Devices and what each reported last.

CREATE TABLE devices (
	name     TEXT PRIMARY KEY,
	pipeline TEXT NOT NULL REFERENCES pipelines,
	created  TEXT NOT NULL,
	seen     TEXT,                          -- of the report below
	report   TEXT,                          -- JSON object
	secret   BLOB NOT NULL UNIQUE           -- SHA-256 of the device's token
) STRICT, WITHOUT ROWID;
