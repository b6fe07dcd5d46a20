-- Data keys of subjects, wrapped by a master key that PostgreSQL never sees. A schema of its own, so that it can be
-- left out of long-lived backups; a row without a key is a subject whose key was destroyed.
CREATE SCHEMA smartgrid_keys;

CREATE TABLE smartgrid_keys.data_keys (
    subject text COLLATE "C" PRIMARY KEY,
    wrapped bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);

GRANT USAGE ON SCHEMA smartgrid_keys TO smartgrid_app;
GRANT SELECT, INSERT ON smartgrid_keys.data_keys TO smartgrid_app;
