-- A mirror follows several suites, each with its own URL, components and
-- keyring; so far it followed one.

UPDATE components SET mirror = json_object(
	'Suites', json_array(json_object(
		'URL', mirror ->> 'URL',
		'Suite', mirror ->> 'Suite',
		'Components', json(mirror -> 'Components'),
		'Priority', 0,
		'Keyring', mirror ->> 'Keyring')),
	'Packages', json(mirror -> 'Packages'),
	'Filter', '',
	'FilterDeps', json('false'),
	'All', json('false'),
	'Recommends', json(mirror -> 'Recommends'))
WHERE kind = 'mirror' AND json_type(mirror, '$.Suites') IS NULL;
