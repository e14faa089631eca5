-- Pipelines, their components, snapshots and stages, and how they came to be.
-- Times are UTC texts of fixed width, so that they sort; ids of content are
-- the 32 bytes of a SHA-256.

CREATE TABLE pipelines (
	name          TEXT PRIMARY KEY,
	distribution  TEXT NOT NULL,
	architectures TEXT NOT NULL,            -- JSON array
	stages        TEXT NOT NULL,            -- JSON array, in order of promotion
	created       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE components (
	pipeline TEXT NOT NULL REFERENCES pipelines,
	name     TEXT NOT NULL,
	kind     TEXT NOT NULL CHECK (kind IN ('repository', 'mirror')),
	keep     INTEGER NOT NULL,
	mirror   TEXT,                          -- JSON object, of a mirror only
	created  TEXT NOT NULL,
	PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots (
	pipeline TEXT NOT NULL REFERENCES pipelines,
	id       TEXT NOT NULL,
	state    BLOB NOT NULL,
	labels   TEXT NOT NULL,                 -- JSON array
	note     TEXT NOT NULL,
	by       TEXT NOT NULL,
	created  TEXT NOT NULL,
	packages INTEGER NOT NULL,
	PRIMARY KEY (pipeline, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE moves (
	pipeline      TEXT NOT NULL REFERENCES pipelines,
	seq           INTEGER NOT NULL,
	stage         TEXT NOT NULL,
	kind          TEXT NOT NULL CHECK (kind IN ('publish', 'promote', 'undo')),
	from_state    BLOB,
	from_snapshot TEXT NOT NULL,
	to_state      BLOB NOT NULL,
	to_snapshot   TEXT NOT NULL,
	by            TEXT NOT NULL,
	reason        TEXT NOT NULL,
	at            TEXT NOT NULL,
	over          INTEGER NOT NULL,         -- seq of the move an undo goes back to, or 0
	PRIMARY KEY (pipeline, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX moves_by_stage ON moves (pipeline, stage, seq);

CREATE TABLE stages (
	pipeline    TEXT NOT NULL REFERENCES pipelines,
	name        TEXT NOT NULL,
	position    INTEGER NOT NULL,
	state       BLOB,                       -- NULL while it offers nothing
	snapshot    TEXT NOT NULL,
	since       TEXT,
	by          TEXT NOT NULL,
	reason      TEXT NOT NULL,
	packages    INTEGER NOT NULL,
	standing    INTEGER NOT NULL,           -- seq of the move that put the offer there, or 0
	date        TEXT,                       -- of the newest InRelease
	valid_until TEXT,
	archive     TEXT NOT NULL,
	PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;

-- Trees of fixed content: text and signatures are kept, so that a rebuilt
-- tree is the same byte for byte.
CREATE TABLE bases (
	number    INTEGER PRIMARY KEY,
	pipeline  TEXT NOT NULL REFERENCES pipelines,
	dir       TEXT NOT NULL,
	state     BLOB NOT NULL,
	text      BLOB NOT NULL,
	inrelease BLOB NOT NULL,
	signature BLOB NOT NULL,
	UNIQUE (pipeline, dir)
) STRICT;

CREATE TABLE files (
	sha256 BLOB PRIMARY KEY,
	name   TEXT NOT NULL,
	size   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
	number       INTEGER PRIMARY KEY,
	pipeline     TEXT NOT NULL,
	component    TEXT NOT NULL,
	name         TEXT NOT NULL,
	version      TEXT NOT NULL,
	architecture TEXT NOT NULL,
	sha256       BLOB NOT NULL REFERENCES files,
	size         INTEGER NOT NULL,
	state        BLOB NOT NULL,
	by           TEXT NOT NULL,
	via          TEXT NOT NULL,
	at           TEXT NOT NULL,
	FOREIGN KEY (pipeline, component) REFERENCES components
) STRICT;
CREATE INDEX uploads_by_identity ON uploads (pipeline, name, version, architecture, number);

CREATE TABLE acts (
	number   INTEGER PRIMARY KEY,
	at       TEXT NOT NULL,
	by       TEXT NOT NULL,
	via      TEXT NOT NULL,
	verb     TEXT NOT NULL,
	pipeline TEXT NOT NULL,
	object   TEXT NOT NULL,
	detail   TEXT NOT NULL
) STRICT;
CREATE INDEX acts_by_pipeline ON acts (pipeline, number);

CREATE TABLE changes (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	kind     TEXT NOT NULL,
	summary  TEXT NOT NULL,
	pipeline TEXT NOT NULL,
	subject  TEXT NOT NULL,
	status   TEXT NOT NULL CHECK (status IN ('doing', 'done', 'failed', 'aborted')),
	by       TEXT NOT NULL,
	reason   TEXT NOT NULL,
	created  TEXT NOT NULL,
	finished TEXT,                          -- NULL while doing
	done     INTEGER NOT NULL,
	total    INTEGER NOT NULL,
	unit     TEXT NOT NULL,
	log      TEXT NOT NULL,                 -- JSON array
	error    TEXT NOT NULL
) STRICT;
