-- How long the past of a pipeline is kept, and what is kept longer.

ALTER TABLE pipelines ADD COLUMN keep_states INTEGER NOT NULL DEFAULT 100;
ALTER TABLE pipelines ADD COLUMN keep_days   INTEGER NOT NULL DEFAULT 30;
ALTER TABLE pipelines ADD COLUMN deleted     TEXT NOT NULL DEFAULT '';  -- highest id of a deleted snapshot: none is given twice

CREATE TABLE pins (
	pipeline TEXT NOT NULL,
	snapshot TEXT NOT NULL,
	by       TEXT NOT NULL,
	reason   TEXT NOT NULL,
	at       TEXT NOT NULL,
	PRIMARY KEY (pipeline, snapshot),
	FOREIGN KEY (pipeline, snapshot) REFERENCES snapshots
) STRICT, WITHOUT ROWID;

-- What a change found, apart from the list of changes, which stays short.
CREATE TABLE results (
	change INTEGER PRIMARY KEY,
	result TEXT NOT NULL                    -- JSON
) STRICT;

-- What was ever uploaded stays on record when its file goes: other bytes
-- under that name, version and architecture are refused for ever.
CREATE TABLE uploads_without_files (
	number       INTEGER PRIMARY KEY,
	pipeline     TEXT NOT NULL,
	component    TEXT NOT NULL,
	name         TEXT NOT NULL,
	version      TEXT NOT NULL,
	architecture TEXT NOT NULL,
	sha256       BLOB NOT NULL,
	size         INTEGER NOT NULL,
	state        BLOB NOT NULL,
	by           TEXT NOT NULL,
	via          TEXT NOT NULL,
	at           TEXT NOT NULL,
	FOREIGN KEY (pipeline, component) REFERENCES components
) STRICT;
INSERT INTO uploads_without_files SELECT number, pipeline, component, name, version, architecture, sha256, size, state, by, via, at FROM uploads;
DROP TABLE uploads;
ALTER TABLE uploads_without_files RENAME TO uploads;
CREATE INDEX uploads_by_identity ON uploads (pipeline, name, version, architecture, number);
