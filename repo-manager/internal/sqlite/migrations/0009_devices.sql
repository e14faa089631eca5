-- Devices are known by a key of their own, which signs what they say. Those
-- that had a token have to enrol anew.

DROP TABLE devices;

CREATE TABLE devices (
	name         TEXT PRIMARY KEY,
	pipeline     TEXT NOT NULL REFERENCES pipelines,
	product      TEXT NOT NULL,
	stage        TEXT NOT NULL,
	serial       TEXT NOT NULL,
	modules      TEXT NOT NULL,             -- JSON array
	key          BLOB NOT NULL UNIQUE,      -- Ed25519, 32 bytes
	sealing      BLOB NOT NULL,             -- X25519, 32 bytes
	architecture TEXT NOT NULL,
	revision     TEXT NOT NULL,             -- of the hardware, if an operator said it
	machine      TEXT NOT NULL,
	banned       TEXT NOT NULL,             -- JSON array of machines
	hold         TEXT,                      -- JSON object, as the next two
	pin          TEXT,
	retired      TEXT,
	created      TEXT NOT NULL,
	enrolled     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What check-ins change, apart from what operators do.
CREATE TABLE contacts (
	device      TEXT PRIMARY KEY REFERENCES devices,
	session     INTEGER NOT NULL,
	sequence    INTEGER NOT NULL,
	boots       BLOB NOT NULL,              -- 8 bytes each, the newest last
	sighting    TEXT NOT NULL,              -- JSON object
	clone       TEXT,                       -- JSON object
	report      BLOB,                       -- JSON, as it was sent
	report_hash BLOB,
	seen        TEXT,
	events      INTEGER NOT NULL            -- how many there ever were
) STRICT, WITHOUT ROWID;

CREATE TABLE assignments (
	device  TEXT PRIMARY KEY REFERENCES devices,
	counter INTEGER NOT NULL,
	content TEXT NOT NULL,
	release TEXT,                           -- JSON object
	modules TEXT NOT NULL                   -- JSON array
) STRICT, WITHOUT ROWID;

-- A ring for each device: slot is number modulo its length.
CREATE TABLE device_events (
	device TEXT NOT NULL REFERENCES devices,
	slot   INTEGER NOT NULL,
	number INTEGER NOT NULL,
	at     TEXT NOT NULL,
	text   TEXT NOT NULL,
	PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE registrations (
	serial   TEXT PRIMARY KEY,
	name     TEXT NOT NULL,
	pipeline TEXT NOT NULL REFERENCES pipelines,
	product  TEXT NOT NULL,
	stage    TEXT NOT NULL,
	modules  TEXT NOT NULL,                 -- JSON array
	revision TEXT NOT NULL,
	by       TEXT NOT NULL,
	created  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolment_tokens (
	secret   BLOB PRIMARY KEY,              -- SHA-256 of it
	pipeline TEXT NOT NULL REFERENCES pipelines,
	product  TEXT NOT NULL,
	stage    TEXT NOT NULL,
	modules  TEXT NOT NULL,                 -- JSON array
	serial   TEXT NOT NULL,
	label    TEXT NOT NULL,
	uses     INTEGER NOT NULL,
	remain   INTEGER NOT NULL,
	by       TEXT NOT NULL,
	created  TEXT NOT NULL,
	expires  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys that an operator does not want.
CREATE TABLE refusals (
	key    TEXT PRIMARY KEY,                -- its id
	serial TEXT NOT NULL,
	by     TEXT NOT NULL,
	reason TEXT NOT NULL,
	at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys of devices that have another one now.
CREATE TABLE old_keys (
	key    BLOB PRIMARY KEY,
	device TEXT NOT NULL REFERENCES devices,
	reason TEXT NOT NULL,
	at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
