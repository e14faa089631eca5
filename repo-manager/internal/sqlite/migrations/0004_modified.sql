-- When the signed files of a stage are said to be modified: HTTP compares that,
-- apt compares the Date in them. The two part where publications follow each
-- other faster than the clock's seconds.
ALTER TABLE stages ADD COLUMN modified TEXT;
UPDATE stages SET modified = date;
