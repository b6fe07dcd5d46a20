-- Read models that projections fold, and how far each has come.
--
-- Tables of a read model carry the version of the projection that fills them (rollups_v1): another version is built
-- beside the live one in tables of its own, and switching means marking another row of projection_versions active and
-- pointing the views at its tables.

SET LOCAL ROLE smartgrid_owner;

CREATE TABLE projection_versions (
    name        text NOT NULL,
    version     int NOT NULL CHECK (version > 0),
    state       text NOT NULL DEFAULT 'active',
    epoch       bigint NOT NULL DEFAULT 0,      -- raised at every change of ownership; fences off earlier owners
    owner       text,
    lock_held   boolean NOT NULL DEFAULT false, -- the owner's session holds the advisory lock: free lock = dead owner
    lease_until timestamptz,
    parked_keys int NOT NULL DEFAULT 0,
    last_error  text,
    PRIMARY KEY (name, version)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projection_versions_active ON projection_versions (name) WHERE state = 'active';

CREATE TABLE projection_checkpoints (
    name       text NOT NULL,
    version    int NOT NULL,
    log        text NOT NULL,
    position   bigint NOT NULL DEFAULT 0,       -- last position whose rows are committed
    epoch      bigint NOT NULL DEFAULT 0,
    rate_per_s double precision NOT NULL DEFAULT 0,
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version, log),
    FOREIGN KEY (name, version) REFERENCES projection_versions
) WITH (fillfactor = 50);

INSERT INTO projection_versions (name, version) VALUES ('aggregates', 1), ('consumption', 1), ('users', 1);
INSERT INTO projection_checkpoints (name, version, log)
VALUES ('aggregates', 1, 'telemetry'), ('consumption', 1, 'telemetry'), ('users', 1, 'identity');

-- aggregates -------------------------------------------------------------------------------------------------------

-- Numbers are whole quanta of the measurand (mV, mA, W …). level: 0 = 15 minutes, 1 = hour, 2 = day, all UTC.
CREATE TABLE rollups_v1 (
    bucket_start timestamptz NOT NULL,
    n            bigint NOT NULL,
    low          bigint,                        -- null when n = 0
    high         bigint,
    revision     bigint NOT NULL,               -- facts folded into the bucket, corrections and retractions too
    series_id    int NOT NULL,
    level        smallint NOT NULL,
    s            numeric NOT NULL,              -- sum
    q            numeric NOT NULL,              -- sum of squares
    histogram    bytea NOT NULL,
    PRIMARY KEY (series_id, level, bucket_start)
) WITH (fillfactor = 85);
ALTER TABLE rollups_v1 ALTER COLUMN histogram SET STORAGE EXTERNAL;

-- What stats need of a sensor beside its rollups.
CREATE TABLE rollup_sensors_v1 (
    sensor_id           text COLLATE "C" PRIMARY KEY,
    expected_interval_s double precision
);

-- The original's table, for SQL: values in the unit of the measurand.
CREATE VIEW sensor_aggregates AS
    SELECT s.subject_id AS sensor_id, s.measurand AS sensor_type, nullif(s.phase, '-') AS phase, u.unit,
           (ARRAY['15m', '1h', '1d'])[r.level + 1] AS "interval", r.bucket_start,
           r.bucket_start + (ARRAY[interval '15 minutes', interval '1 hour', interval '24 hours'])[r.level + 1]
               AS bucket_end,
           r.n AS count, r.s / (r.n * u.per_unit) AS avg_value, r.low / u.per_unit AS min_value,
           r.high / u.per_unit AS max_value,
           CASE WHEN r.n > 1 THEN
               sqrt((r.n * r.q - r.s * r.s) / (r.n::numeric * (r.n - 1) * u.per_unit * u.per_unit))
           END AS stddev_value,
           r.s / u.per_unit AS sum_value, r.q / (u.per_unit * u.per_unit) AS sum_of_squares, r.revision
    FROM rollups_v1 r
    JOIN series s USING (series_id)
    JOIN (VALUES ('voltage', 'V', 1000.0), ('current', 'A', 1000.0), ('power', 'W', 1.0),
                 ('reactive_power', 'var', 1.0), ('energy', 'Wh', 1.0), ('frequency', 'Hz', 1000.0),
                 ('power_factor', '1', 10000.0), ('temperature', 'Cel', 100.0)) AS u(measurand, unit, per_unit)
        ON u.measurand = s.measurand
    WHERE r.n > 0;

-- consumption ------------------------------------------------------------------------------------------------------

-- A row begins at a UTC hour, or within one at the instant at which the meter's customer changed.
-- Rows of zeros are not kept. Energy is positive when delivered to the customer.
CREATE TABLE consumption_v1 (
    start_at     timestamptz NOT NULL,
    wh           bigint NOT NULL,
    estimated_wh bigint NOT NULL,               -- part of wh that was spread over more than two hours
    readings     bigint NOT NULL,
    series_id    int NOT NULL,
    PRIMARY KEY (series_id, start_at)
) WITH (fillfactor = 85);

-- The same by customer and UTC hour. customer: blind index of the id, never the id.
CREATE TABLE customer_consumption_v1 (
    start_at     timestamptz NOT NULL,
    wh           bigint NOT NULL,
    estimated_wh bigint NOT NULL,
    readings     bigint NOT NULL,
    customer     bytea NOT NULL,
    PRIMARY KEY (customer, start_at)
) WITH (fillfactor = 85);

CREATE TABLE consumption_meters_v1 (
    meter_id            text COLLATE "C" PRIMARY KEY,
    rollover_at_wh      bigint,
    expected_interval_s double precision
);

-- Whose consumption a meter counts, and when.
CREATE TABLE meter_links_v1 (
    meter_id text COLLATE "C" NOT NULL,
    since_us bigint NOT NULL,                   -- microseconds since 1970
    until_us bigint NOT NULL,                   -- not included; the greatest bigint while it holds
    customer bytea NOT NULL,
    PRIMARY KEY (meter_id, since_us)
);
CREATE INDEX meter_links_v1_customer ON meter_links_v1 (customer);

-- Exchanges and resets that count.
CREATE TABLE meter_breaks_v1 (
    meter_id   text COLLATE "C" NOT NULL,
    register   text COLLATE "C" NOT NULL,
    at_us      bigint NOT NULL,                 -- microseconds since 1970
    kind       text NOT NULL CHECK (kind IN ('exchange', 'reset')),
    initial_wh bigint NOT NULL,
    final_wh   bigint NOT NULL,                 -- -1 when nobody knows
    PRIMARY KEY (meter_id, register, at_us, kind)
);

-- Where a register stands when nothing of it is undecided: what is later and not lower follows without a look back.
CREATE TABLE register_tails_v1 (
    at_us     bigint NOT NULL,                  -- microseconds since 1970
    wh        bigint NOT NULL,
    series_id int PRIMARY KEY
) WITH (fillfactor = 50);

-- users ------------------------------------------------------------------------------------------------------------

-- Personal fields are sealed as in the log; they open with the data key of their subject only.
CREATE TABLE users_v1 (
    user_id       text COLLATE "C" PRIMARY KEY,
    username      bytea NOT NULL,
    email         bytea NOT NULL,
    customer_id   bytea,
    role          text NOT NULL,
    is_active     boolean NOT NULL DEFAULT true,
    version       bigint NOT NULL,              -- of the stream user:{user_id}
    created_at    timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    position      bigint NOT NULL
);

CREATE VIEW users AS SELECT * FROM users_v1;

GRANT SELECT ON projection_versions, projection_checkpoints, sensor_aggregates, rollups_v1, rollup_sensors_v1, consumption_v1,
    customer_consumption_v1, consumption_meters_v1, meter_links_v1, meter_breaks_v1, register_tails_v1, users_v1, users
    TO smartgrid_reader;
