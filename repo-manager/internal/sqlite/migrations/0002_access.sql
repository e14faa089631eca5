-- Who may act. Secrets are kept as the SHA-256 of their text only.

CREATE TABLE users (
	name    TEXT PRIMARY KEY,
	roles   TEXT NOT NULL,                  -- JSON array
	created TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	user    TEXT NOT NULL REFERENCES users,
	label   TEXT NOT NULL,
	roles   TEXT NOT NULL,                  -- JSON array
	created TEXT NOT NULL,
	secret  BLOB NOT NULL UNIQUE
) STRICT;

CREATE TABLE links (
	secret  BLOB PRIMARY KEY,
	user    TEXT NOT NULL REFERENCES users,
	expires TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
	secret  BLOB PRIMARY KEY,
	user    TEXT NOT NULL REFERENCES users,
	expires TEXT NOT NULL
) STRICT, WITHOUT ROWID;
