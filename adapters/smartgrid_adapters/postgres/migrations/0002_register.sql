-- The reading register: which readings exist. Written in the transaction of the event, so it decides uniqueness
-- before the event exists, and it serves raw readings at once. Also the keys and files of ingestion.

SET LOCAL ROLE smartgrid_owner;

CREATE TABLE series (
    series_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text COLLATE "C" NOT NULL CHECK (subject IN ('sensor', 'meter')),
    subject_id text COLLATE "C" NOT NULL,
    measurand text COLLATE "C" NOT NULL,           -- the sensor_type, or the register of a meter
    phase text COLLATE "C" NOT NULL DEFAULT '-',
    UNIQUE (subject, subject_id, measurand, phase)
);
GRANT SELECT ON series TO smartgrid_reader;

-- Values are in the canonical unit. Every column is fixed in width and never null: rows go in by binary COPY.
CREATE TABLE reading_register (
    series_id int NOT NULL,
    measured_at timestamptz NOT NULL,
    seq bigint NOT NULL,                           -- -1 = absent
    revision smallint NOT NULL,                    -- 0 = as first recorded; corrections count up
    mantissa bigint NOT NULL,
    exponent smallint NOT NULL,
    quality smallint NOT NULL,
    event_id uuid NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (series_id, measured_at, seq, revision)
) PARTITION BY RANGE (measured_at);
CREATE INDEX reading_register_event ON reading_register (event_id);
CREATE TABLE reading_register_rest PARTITION OF reading_register DEFAULT;
GRANT SELECT ON reading_register TO smartgrid_reader;

-- Makes the partitions of the months from 24 before to 2 after *p_now* that do not exist yet; readings of such a
-- month that lie in the default partition move.
CREATE FUNCTION register_make_months(p_now timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_month timestamptz;
    v_name text;
    v_made int := 0;
BEGIN
    FOR v_offset IN -24 .. 2 LOOP
        v_month := (date_trunc('month', p_now AT TIME ZONE 'UTC') + make_interval(months => v_offset))
            AT TIME ZONE 'UTC';
        v_name := 'reading_register_' || to_char(v_month AT TIME ZONE 'UTC', 'YYYY_MM');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE reading_register INCLUDING DEFAULTS)', v_name);
        EXECUTE format(
            'WITH moved AS (DELETE FROM reading_register_rest WHERE measured_at >= %L AND measured_at < %L '
            'RETURNING *) INSERT INTO %I SELECT * FROM moved',
            v_month, ((v_month AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC', v_name);
        EXECUTE format(
            'ALTER TABLE reading_register ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            v_name, v_month,
            ((v_month AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;
SELECT register_make_months(now());

CREATE TABLE reading_retractions (
    event_id uuid PRIMARY KEY,
    series_id int NOT NULL,
    measured_at timestamptz NOT NULL,
    seq bigint NOT NULL,
    position bigint NOT NULL,
    reason text NOT NULL
);
CREATE INDEX ON reading_retractions (series_id, measured_at);
GRANT SELECT ON reading_retractions TO smartgrid_reader;

-- One answer of each (principal, Idempotency-Key) for 24 hours; only a hash of the key is kept.
CREATE TABLE idempotency (
    principal text COLLATE "C" NOT NULL,
    key_hash bytea NOT NULL,
    request_hash bytea NOT NULL,                   -- sha256 of method, path and body
    lease uuid NOT NULL,
    lease_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    answer bytea,                                  -- null while running
    first_position bigint,                         -- of the commit that stored the answer
    recorded_at timestamptz,
    PRIMARY KEY (principal, key_hash)
);
CREATE INDEX ON idempotency (created_at);

CREATE TABLE imports (
    import_id text COLLATE "C" PRIMARY KEY,
    actor text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('partial', 'atomic')),
    media_type text NOT NULL,
    state text NOT NULL CHECK (state IN ('spooling', 'running', 'succeeded', 'failed')),
    header text[] NOT NULL DEFAULT '{}',           -- column names of a CSV file
    parts int NOT NULL DEFAULT 0,
    next_part int NOT NULL DEFAULT 0,
    read bigint NOT NULL DEFAULT 0,
    accepted bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    rejected bigint NOT NULL DEFAULT 0,
    errors bytea,                                  -- the first 1,000, as MessagePack
    created_at timestamptz NOT NULL DEFAULT now(),
    lease uuid,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX ON imports (created_at) WHERE state = 'running';
CREATE TABLE import_parts (
    import_id text COLLATE "C" NOT NULL REFERENCES imports ON DELETE CASCADE,
    part int NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (import_id, part)
);
ALTER TABLE import_parts ALTER COLUMN data SET STORAGE EXTERNAL;

-- Takes the key for its first request, for one whose holder died, or for anyone after a day. A claim that a crash
-- loses is worth nothing, so its commit does not wait for the disk.
CREATE FUNCTION idempotency_claim(
    p_principal text, p_key_hash bytea, p_request_hash bytea, p_lease uuid, p_lease_s int, p_kept_s int,
    OUT claimed boolean, OUT same boolean, OUT answer bytea, OUT first_position bigint
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO idempotency AS i (principal, key_hash, request_hash, lease, lease_until)
        VALUES (p_principal, p_key_hash, p_request_hash, p_lease, now() + make_interval(secs => p_lease_s))
        ON CONFLICT (principal, key_hash) DO UPDATE
            SET request_hash = excluded.request_hash, lease = excluded.lease, lease_until = excluded.lease_until,
                created_at = now(), answer = NULL, first_position = NULL, recorded_at = NULL
            WHERE i.created_at < now() - make_interval(secs => p_kept_s)
                OR (i.answer IS NULL AND i.lease_until < now() AND i.request_hash = excluded.request_hash)
        RETURNING true INTO claimed;
    IF claimed THEN
        same := true;
        RETURN;
    END IF;
    claimed := false;
    SELECT i.request_hash = p_request_hash, i.answer, i.first_position INTO same, answer, first_position
        FROM idempotency i WHERE i.principal = p_principal COLLATE "C" AND i.key_hash = p_key_hash;
END
$$;

-- Finishes the idempotency records of a commit; raises when a lease was taken over meanwhile.
CREATE FUNCTION idempotency_finish(
    p_principals text[], p_key_hashes bytea[], p_leases uuid[], p_answers bytea[],
    p_first_position bigint, p_recorded_at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_n int;
    v_lost uuid;
BEGIN
    UPDATE idempotency i SET answer = p.answer, first_position = p_first_position, recorded_at = p_recorded_at
        FROM unnest(p_principals, p_key_hashes, p_leases, p_answers) AS p(principal, key_hash, lease, answer)
        WHERE i.principal = p.principal COLLATE "C" AND i.key_hash = p.key_hash AND i.lease = p.lease
            AND (i.answer IS NULL OR i.answer = p.answer);
    GET DIAGNOSTICS v_n = ROW_COUNT;
    IF v_n < cardinality(p_leases) THEN
        SELECT p.lease INTO v_lost FROM unnest(p_principals, p_key_hashes, p_leases) AS p(principal, key_hash, lease)
            WHERE NOT EXISTS (
                SELECT FROM idempotency i WHERE i.principal = p.principal COLLATE "C" AND i.key_hash = p.key_hash
                    AND i.lease = p.lease)
            LIMIT 1;
        RAISE EXCEPTION 'lease % was taken over', v_lost
            USING ERRCODE = 'SGL01', DETAIL = coalesce(v_lost::text, '');
    END IF;
END
$$;

-- A small flush in one round trip. Row i of the register belongs to event p_event[i] (from 0) of this commit.
-- A key that is taken raises unique_violation, so nothing at all is stored.
CREATE FUNCTION record_readings(
    p_commit_id uuid,
    p_streams text[], p_versions bigint[], p_topics text[], p_states bytea[], p_metadata bytea[],
    p_event int[], p_series int[], p_measured_at timestamptz[], p_seq bigint[], p_revision smallint[],
    p_mantissa bigint[], p_exponent smallint[], p_quality smallint[], p_event_id uuid[],
    p_principals text[], p_key_hashes bytea[], p_leases uuid[], p_answers bytea[],
    OUT status text, OUT first_position bigint, OUT last_position bigint, OUT recorded_at timestamptz,
    OUT conflict_stream text
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT a.status, a.first_position, a.last_position, a.recorded_at, a.conflict_stream
        INTO status, first_position, last_position, recorded_at, conflict_stream
        FROM telemetry_append(p_commit_id, p_streams, p_versions, p_topics, p_states, p_metadata) a;
    IF status <> 'appended' THEN
        RETURN;
    END IF;
    INSERT INTO reading_register
            (series_id, measured_at, seq, revision, mantissa, exponent, quality, event_id, position)
        SELECT r.series_id, r.measured_at, r.seq, r.revision, r.mantissa, r.exponent, r.quality, r.event_id,
               record_readings.first_position + r.event
        FROM unnest(p_event, p_series, p_measured_at, p_seq, p_revision, p_mantissa, p_exponent, p_quality, p_event_id)
            AS r(event, series_id, measured_at, seq, revision, mantissa, exponent, quality, event_id);
    IF cardinality(p_leases) > 0 THEN
        PERFORM idempotency_finish(
            p_principals, p_key_hashes, p_leases, p_answers,
            record_readings.first_position, record_readings.recorded_at);
    END IF;
END
$$;

CREATE FUNCTION quality_name(p_quality smallint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (ARRAY['measured', 'estimated', 'substituted', 'suspect', 'corrected'])[p_quality + 1]
$$;

CREATE FUNCTION telemetry_recorded_at(p_position bigint) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT c.recorded_at FROM telemetry_commits c WHERE c.last_position >= p_position ORDER BY c.last_position LIMIT 1
$$;

-- The original's tables, for SQL.
CREATE VIEW sensor_data AS
    SELECT r.event_id AS id, s.subject_id AS sensor_id, s.measurand AS sensor_type, nullif(s.phase, '-') AS phase,
           trim_scale(r.mantissa * power(10::numeric, r.exponent::numeric)) AS value,
           CASE s.measurand
               WHEN 'voltage' THEN 'V' WHEN 'current' THEN 'A' WHEN 'power' THEN 'W' WHEN 'reactive_power' THEN 'var'
               WHEN 'energy' THEN 'Wh' WHEN 'frequency' THEN 'Hz' WHEN 'power_factor' THEN '1'
               WHEN 'temperature' THEN 'Cel'
           END AS unit,
           r.measured_at AS "timestamp", quality_name(r.quality) AS quality, nullif(r.seq, -1) AS seq, r.revision,
           telemetry_recorded_at(r.position) AS recorded_at, r.position,
           EXISTS (
               SELECT FROM reading_register n WHERE n.series_id = r.series_id AND n.measured_at = r.measured_at
                   AND n.seq = r.seq AND n.revision > r.revision
           ) AS superseded,
           EXISTS (SELECT FROM reading_retractions t WHERE t.event_id = r.event_id) AS retracted
    FROM reading_register r JOIN series s USING (series_id)
    WHERE s.subject = 'sensor';
CREATE VIEW meter_readings AS
    SELECT r.event_id AS id, s.subject_id AS meter_id, s.measurand AS register,
           trim_scale(r.mantissa * power(10::numeric, r.exponent::numeric)) AS value, 'Wh'::text AS unit,
           r.measured_at AS "timestamp", quality_name(r.quality) AS quality, nullif(r.seq, -1) AS seq, r.revision,
           telemetry_recorded_at(r.position) AS recorded_at, r.position,
           EXISTS (
               SELECT FROM reading_register n WHERE n.series_id = r.series_id AND n.measured_at = r.measured_at
                   AND n.seq = r.seq AND n.revision > r.revision
           ) AS superseded,
           EXISTS (SELECT FROM reading_retractions t WHERE t.event_id = r.event_id) AS retracted
    FROM reading_register r JOIN series s USING (series_id)
    WHERE s.subject = 'meter';
GRANT SELECT ON sensor_data, meter_readings TO smartgrid_reader;
