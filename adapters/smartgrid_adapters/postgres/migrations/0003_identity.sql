-- Credentials and sessions: what signing in needs, written in the transaction of the identity events.
-- Names are found by a keyed hash; a clear name or address stands in no row.

SET LOCAL ROLE smartgrid_owner;

CREATE TABLE credentials (
    user_id         text COLLATE "C" PRIMARY KEY,
    name_key        bytea NOT NULL,
    phc             text NOT NULL,
    role            text NOT NULL CHECK (role IN ('viewer', 'analyst', 'operator', 'admin')),
    is_active       boolean NOT NULL DEFAULT true,
    session_version int NOT NULL DEFAULT 1,       -- raised when all sessions of the account end
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT username_taken UNIQUE (name_key)
);

-- One row at most: of any number of parallel attempts exactly one becomes the first admin.
CREATE TABLE first_admin (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    user_id text COLLATE "C" NOT NULL
);

CREATE TABLE bootstrap_code (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    code_hash  bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    wrong      int NOT NULL DEFAULT 0
);

CREATE TABLE user_sessions (
    session_id   text COLLATE "C" PRIMARY KEY,
    user_id      text COLLATE "C" NOT NULL REFERENCES credentials,
    started_at   timestamptz NOT NULL,
    idle_until   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    ended_reason text
);
CREATE INDEX ON user_sessions (user_id, started_at);

-- A family of refresh tokens is a session; each use of one makes the next. Only hashes are kept.
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id text COLLATE "C" NOT NULL REFERENCES user_sessions ON DELETE CASCADE,
    number     int NOT NULL,
    issued_at  timestamptz NOT NULL,
    spent_at   timestamptz,
    UNIQUE (session_id, number)
);

GRANT SELECT ON user_sessions TO smartgrid_reader;
