-- Another version of a read model beside the one in use: tables of its own, comparison, switch and way back.
--
-- The version whose row in projection_versions is active is the one that answers. Views called after the tables without
-- their number show its rows; switching changes that row and nothing else, so a reader sees all of one version or all of
-- the other.

SET LOCAL ROLE smartgrid_owner;

ALTER TABLE projection_versions
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT projection_versions_state CHECK (
        state IN ('building', 'catching_up', 'verifying', 'ready', 'active', 'retired', 'discarded', 'dropped'));

-- The tables of each projection; those of the version in use are the template of the next.
CREATE TABLE projection_tables (
    name text NOT NULL,
    base text NOT NULL,
    PRIMARY KEY (name, base)
);
INSERT INTO projection_tables (name, base) VALUES
    ('aggregates', 'rollups'), ('aggregates', 'rollup_sensors'),
    ('consumption', 'consumption'), ('consumption', 'customer_consumption'), ('consumption', 'consumption_meters'),
    ('consumption', 'meter_links'), ('consumption', 'meter_breaks'), ('consumption', 'register_tails'),
    ('users', 'users');

CREATE TABLE projection_rebuilds (
    rebuild_id  text PRIMARY KEY,
    name        text NOT NULL,
    version     int NOT NULL,
    state       text NOT NULL CHECK (state IN ('building', 'catching_up', 'verifying', 'ready', 'switched', 'aborted',
                                               'rolled_back', 'failed')),
    auto_switch boolean NOT NULL,
    error       text,
    report      jsonb,                          -- what the comparison found
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (name, version) REFERENCES projection_versions
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX projection_rebuilds_one ON projection_rebuilds (name)
    WHERE state IN ('building', 'catching_up', 'verifying', 'ready');

-- The first rows that differ, in the order of tables and keys.
CREATE TABLE projection_diffs (
    rebuild_id text NOT NULL REFERENCES projection_rebuilds,
    number     bigint NOT NULL,
    base       text NOT NULL,
    key        text NOT NULL,
    active     jsonb,
    new        jsonb,
    PRIMARY KEY (rebuild_id, number)
);

-- Points the views of a projection at the tables of all its versions; of each query one version alone has rows.
CREATE FUNCTION projection_show(p_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_base text;
    v_text text;
BEGIN
    FOR v_base IN SELECT t.base FROM projection_tables t WHERE t.name = p_name ORDER BY t.base LOOP
        SELECT string_agg(format(
                   'SELECT * FROM public.%I WHERE (SELECT v.state = ''active'' FROM public.projection_versions v '
                   'WHERE v.name = %L AND v.version = %s)', v_base || '_v' || v.version, p_name, v.version),
                   ' UNION ALL ' ORDER BY v.version)
            INTO v_text
            FROM projection_versions v WHERE v.name = p_name AND v.state NOT IN ('discarded', 'dropped');
        EXECUTE format('CREATE OR REPLACE VIEW public.%I AS %s', v_base, v_text);
        EXECUTE format('GRANT SELECT ON public.%I TO smartgrid_reader', v_base);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION projection_show(text) FROM PUBLIC;

-- Makes the tables and checkpoints of the next version. The previous one, kept for the way back, is given up.
CREATE FUNCTION projection_start(p_name text, p_rebuild_id text, p_auto_switch boolean) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_active int;
    v_version int;
    v_base text;
BEGIN
    SELECT v.version INTO STRICT v_active
        FROM projection_versions v WHERE v.name = p_name AND v.state = 'active' FOR UPDATE;
    SELECT max(v.version) + 1 INTO v_version FROM projection_versions v WHERE v.name = p_name;
    INSERT INTO projection_versions (name, version, state) VALUES (p_name, v_version, 'building');
    INSERT INTO projection_rebuilds (rebuild_id, name, version, state, auto_switch)
        VALUES (p_rebuild_id, p_name, v_version, 'building', p_auto_switch);
    INSERT INTO projection_checkpoints (name, version, log)
        SELECT c.name, v_version, c.log FROM projection_checkpoints c WHERE c.name = p_name AND c.version = v_active;
    FOR v_base IN SELECT t.base FROM projection_tables t WHERE t.name = p_name LOOP
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL) WITH (fillfactor = 85)',
                       v_base || '_v' || v_version, v_base || '_v' || v_active);
        EXECUTE format('GRANT SELECT ON public.%I TO smartgrid_reader', v_base || '_v' || v_version);
    END LOOP;
    UPDATE projection_versions v SET state = 'discarded', epoch = epoch + 1, owner = NULL
        WHERE v.name = p_name AND v.state = 'retired';
    PERFORM projection_show(p_name);
    RETURN v_version;
END
$$;
REVOKE ALL ON FUNCTION projection_start(text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION projection_start(text, text, boolean) TO smartgrid_app;

-- Drops the tables of versions that nothing needs any more. Waits for the readers in flight, or gives up for now.
CREATE FUNCTION projection_sweep(p_name text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_version int;
    v_base text;
    v_done int := 0;
BEGIN
    FOR v_version IN
        SELECT v.version FROM projection_versions v WHERE v.name = p_name AND v.state = 'discarded' FOR UPDATE
    LOOP
        DELETE FROM projection_checkpoints c WHERE c.name = p_name AND c.version = v_version;
        PERFORM projection_show(p_name);
        FOR v_base IN SELECT t.base FROM projection_tables t WHERE t.name = p_name LOOP
            EXECUTE format('DROP TABLE IF EXISTS public.%I', v_base || '_v' || v_version);
        END LOOP;
        UPDATE projection_versions v SET state = 'dropped', owner = NULL
            WHERE v.name = p_name AND v.version = v_version;
        v_done := v_done + 1;
    END LOOP;
    RETURN v_done;
END
$$;
REVOKE ALL ON FUNCTION projection_sweep(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION projection_sweep(text) TO smartgrid_app;

SELECT projection_show(name) FROM (SELECT DISTINCT name FROM projection_tables) t;

-- The original's table, for SQL: values in the unit of the measurand.
CREATE OR REPLACE VIEW sensor_aggregates AS
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
    FROM rollups r
    JOIN series s USING (series_id)
    JOIN (VALUES ('voltage', 'V', 1000.0), ('current', 'A', 1000.0), ('power', 'W', 1.0),
                 ('reactive_power', 'var', 1.0), ('energy', 'Wh', 1.0), ('frequency', 'Hz', 1000.0),
                 ('power_factor', '1', 10000.0), ('temperature', 'Cel', 100.0)) AS u(measurand, unit, per_unit)
        ON u.measurand = s.measurand
    WHERE r.n > 0;

GRANT SELECT ON projection_tables, projection_rebuilds TO smartgrid_reader;
