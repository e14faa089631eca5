-- Whether reading a pipeline needs credentials.

ALTER TABLE pipelines ADD COLUMN private INTEGER NOT NULL DEFAULT 0;
