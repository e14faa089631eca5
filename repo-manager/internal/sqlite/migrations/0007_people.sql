-- Users can be disabled, tokens expire, and sessions can be told apart.

ALTER TABLE users ADD COLUMN disabled TEXT;     -- since when; NULL: it may act

ALTER TABLE tokens ADD COLUMN expires TEXT;     -- NULL: never
ALTER TABLE tokens ADD COLUMN used    TEXT;     -- last use, written now and then

CREATE TABLE sessions_with_ids (
	id      INTEGER PRIMARY KEY AUTOINCREMENT,
	secret  BLOB NOT NULL UNIQUE,
	user    TEXT NOT NULL REFERENCES users,
	created TEXT,                           -- NULL: before this was recorded
	expires TEXT NOT NULL,
	seen    TEXT,                           -- written now and then
	address TEXT NOT NULL,
	browser TEXT NOT NULL
) STRICT;
INSERT INTO sessions_with_ids (secret, user, expires, address, browser) SELECT secret, user, expires, '', '' FROM sessions;
DROP TABLE sessions;
ALTER TABLE sessions_with_ids RENAME TO sessions;
