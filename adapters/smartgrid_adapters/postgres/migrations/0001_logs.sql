-- The roles, the three logs, and the functions that append to them. Runs as the user who migrates.

-- Roles belong to the whole cluster: another database may be making them at this moment.
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['smartgrid_owner', 'smartgrid_app', 'smartgrid_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', v_role);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CREATE ON DATABASE %I TO smartgrid_owner', current_database());
END
$$;
GRANT USAGE, CREATE ON SCHEMA public TO smartgrid_owner;
GRANT USAGE ON SCHEMA public TO smartgrid_app, smartgrid_reader;
GRANT SELECT ON schema_migrations TO smartgrid_owner, smartgrid_app, smartgrid_reader;

SET LOCAL ROLE smartgrid_owner;

-- Read models are the application's own; the logs below are not, and what a reader may see each migration says.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO smartgrid_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO smartgrid_app;

-- No commit is recorded at or before the fence of its log, so "as of the fence" never changes afterwards.
CREATE TABLE log_fences (
    log text PRIMARY KEY,
    fence timestamptz NOT NULL DEFAULT '-infinity'
);
REVOKE ALL ON log_fences FROM smartgrid_app;
GRANT SELECT ON log_fences TO smartgrid_app;

CREATE FUNCTION log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

-- sha256 over length-prefixed fields; an absent one has length -1, so no two rows share their input. STABLE, as
-- convert_to is: declared IMMUTABLE it would not be inlined, and a call cost 7 µs instead of 2.
CREATE FUNCTION log_row_hash(
    p_position bigint, p_stream text, p_version bigint, p_topic text, p_metadata bytea, p_state bytea
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(
        '\x00000008'::bytea || int8send(p_position)
        || int4send(octet_length(convert_to(p_stream, 'UTF8'))) || convert_to(p_stream, 'UTF8')
        || '\x00000008'::bytea || int8send(p_version)
        || int4send(octet_length(convert_to(p_topic, 'UTF8'))) || convert_to(p_topic, 'UTF8')
        || coalesce(int4send(octet_length(p_metadata)) || p_metadata, '\xffffffff'::bytea)
        || int4send(octet_length(p_state)) || p_state
    )
$$;

-- previous digest ‖ row hashes ‖ count ‖ recorded_at in µs since 1970 ‖ commit id
CREATE FUNCTION log_digest(
    p_previous bytea, p_row_hashes bytea, p_n bigint, p_recorded_at timestamptz, p_commit_id uuid
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(
        p_previous || p_row_hashes || int8send(p_n)
        || int8send((extract(epoch FROM p_recorded_at) * 1000000)::bigint) || uuid_send(p_commit_id)
    )
$$;

-- Every log has its own functions, so that their plans are prepared once per connection.
DO $make$
DECLARE
    v_log text;
    v_key int := 0;
BEGIN
    FOREACH v_log IN ARRAY ARRAY['telemetry', 'operations', 'identity'] LOOP
        v_key := v_key + 1;
        INSERT INTO log_fences (log) VALUES (v_log);

        -- The columns are those of the eventsourcing library; notification_id is the position.
        EXECUTE format($sql$
            CREATE TABLE %1$I (
                notification_id bigint PRIMARY KEY,
                originator_id text COLLATE "C" NOT NULL,
                originator_version bigint NOT NULL,
                topic text COLLATE "C" NOT NULL,
                state bytea NOT NULL,
                metadata bytea,
                UNIQUE (originator_id, originator_version)
            )
        $sql$, v_log || '_events');
        EXECUTE format('ALTER TABLE %I ALTER COLUMN state SET STORAGE EXTERNAL', v_log || '_events');
        EXECUTE format($sql$
            CREATE TABLE %1$I (
                last_position bigint PRIMARY KEY,
                n int NOT NULL CHECK (n > 0),
                recorded_at timestamptz NOT NULL,
                commit_id uuid NOT NULL UNIQUE,
                digest bytea NOT NULL
            )
        $sql$, v_log || '_commits');
        EXECUTE format('CREATE INDEX ON %I (recorded_at)', v_log || '_commits');
        EXECUTE format('REVOKE ALL ON %I, %I FROM smartgrid_app', v_log || '_events', v_log || '_commits');
        EXECUTE format('GRANT SELECT, INSERT ON %I, %I TO smartgrid_app', v_log || '_events', v_log || '_commits');
        EXECUTE format('GRANT SELECT ON %I, %I TO smartgrid_reader', v_log || '_events', v_log || '_commits');
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only()', v_log || '_events');
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only()', v_log || '_commits');

        -- A retry may overtake its own commit, hence the second look under the lock. Only in READ COMMITTED does
        -- each statement see what was committed before the lock was granted.
        EXECUTE format($sql$
            CREATE FUNCTION %1$I(
                p_commit_id uuid, OUT known boolean, OUT first_position bigint, OUT last_position bigint,
                OUT recorded_at timestamptz, OUT base bigint
            ) LANGUAGE plpgsql VOLATILE AS $fn$
            BEGIN
                IF current_setting('transaction_isolation') <> 'read committed' THEN
                    RAISE EXCEPTION 'a log is appended to in READ COMMITTED only'
                        USING ERRCODE = 'invalid_transaction_state';
                END IF;
                SELECT c.last_position - c.n + 1, c.last_position, c.recorded_at
                    INTO first_position, last_position, recorded_at FROM %2$I c WHERE c.commit_id = p_commit_id;
                known := FOUND;
                IF known THEN
                    RETURN;
                END IF;
                PERFORM pg_advisory_xact_lock(1397181511, %3$s);
                SELECT c.last_position - c.n + 1, c.last_position, c.recorded_at
                    INTO first_position, last_position, recorded_at FROM %2$I c WHERE c.commit_id = p_commit_id;
                known := FOUND;
                IF NOT known THEN
                    base := coalesce(
                        (SELECT c.last_position FROM %2$I c ORDER BY c.last_position DESC LIMIT 1), 0);
                END IF;
            END
            $fn$
        $sql$, v_log || '_begin', v_log || '_commits', v_key);

        EXECUTE format($sql$
            CREATE FUNCTION %1$I(
                p_commit_id uuid, p_base bigint, OUT last_position bigint, OUT recorded_at timestamptz
            ) LANGUAGE plpgsql VOLATILE AS $fn$
            DECLARE
                v_n bigint;
                v_hashes bytea;
                v_last bigint;
                v_recorded_at timestamptz;
                v_fence timestamptz;
                v_digest bytea;
            BEGIN
                -- Bounded above only so that the prepared plan expects a narrow range and uses the index.
                SELECT count(*), max(e.notification_id), string_agg(log_row_hash(
                        e.notification_id, e.originator_id, e.originator_version, e.topic, e.metadata, e.state
                    ), ''::bytea ORDER BY e.notification_id)
                    INTO v_n, last_position, v_hashes
                    FROM %2$I e
                    WHERE e.notification_id > p_base AND e.notification_id <= p_base + 1000000000;
                IF v_n = 0 THEN
                    last_position := p_base;
                    RETURN;
                END IF;
                SELECT f.fence, c.last_position, c.recorded_at, c.digest
                    INTO v_fence, v_last, v_recorded_at, v_digest
                    FROM log_fences f LEFT JOIN LATERAL (
                        SELECT * FROM %3$I ORDER BY last_position DESC LIMIT 1
                    ) c ON true
                    WHERE f.log = %4$L;
                IF coalesce(v_last, 0) <> p_base OR last_position <> p_base + v_n THEN
                    RAISE EXCEPTION '%% rows up to position %% do not follow position %%',
                        v_n, last_position, coalesce(v_last, 0) USING ERRCODE = 'integrity_constraint_violation';
                END IF;
                recorded_at := greatest(v_recorded_at, v_fence + interval '1 microsecond', clock_timestamp());
                INSERT INTO %3$I (last_position, n, recorded_at, commit_id, digest)
                    VALUES (last_position, v_n, recorded_at, p_commit_id, log_digest(
                        coalesce(v_digest, ''::bytea), v_hashes, v_n, recorded_at, p_commit_id));
            END
            $fn$
        $sql$, v_log || '_finish', v_log || '_events', v_log || '_commits', v_log);

        EXECUTE format($sql$
            CREATE FUNCTION %1$I(p_streams text[], OUT versions bigint[]) LANGUAGE sql STABLE AS $fn$
                SELECT array_agg(coalesce((
                    SELECT e.originator_version FROM %2$I e WHERE e.originator_id = s.stream
                    ORDER BY e.originator_version DESC LIMIT 1
                ), 0) ORDER BY s.i)
                FROM unnest(p_streams) WITH ORDINALITY AS s(stream, i)
            $fn$
        $sql$, v_log || '_versions', v_log || '_events');

        -- The same in one call: lock, one look at all that is asked of the log, its rows, its commit. An expected version
        -- of -1 is the next of its stream. A conflict is answered before anything is written. A call costs its
        -- statements: one row at a time, and rows of one stream, have a way of their own. unnest in the SELECT list,
        -- not in FROM, where PostgreSQL would write all arrays to a temporary store first; rows come in array order.
        -- A row past the last commit, which nobody may leave, runs into the primary key: no commit ever takes it in.
        -- Left to itself PostgreSQL plans for the length of the arrays, anew in every call: 150 of 250 µs.
        EXECUTE format($sql$
            CREATE FUNCTION %1$I(
                p_commit_id uuid, p_streams text[], p_versions bigint[], p_topics text[], p_states bytea[],
                p_metadata bytea[], OUT status text, OUT first_position bigint, OUT last_position bigint,
                OUT recorded_at timestamptz, OUT conflict_stream text
            ) LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $fn$
            DECLARE
                v_n int := cardinality(p_streams);
                v_known bigint;
                v_base bigint;
                v_recorded_at timestamptz;
                v_fence timestamptz;
                v_digest bytea;
                v_head bigint;
                v_stream bytea;
                v_versions bigint[];
                v_hashes bytea;
            BEGIN
                IF current_setting('transaction_isolation') <> 'read committed' THEN
                    RAISE EXCEPTION 'a log is appended to in READ COMMITTED only'
                        USING ERRCODE = 'invalid_transaction_state';
                END IF;
                PERFORM pg_advisory_xact_lock(1397181511, %5$s);
                SELECT k.last_position, coalesce(c.last_position, 0), c.recorded_at, coalesce(c.digest, ''::bytea),
                       f.fence,
                       coalesce((
                           SELECT e.originator_version FROM %2$I e WHERE e.originator_id = p_streams[1]
                           ORDER BY e.originator_version DESC LIMIT 1), 0)
                    INTO v_known, v_base, v_recorded_at, v_digest, v_fence, v_head
                    FROM log_fences f
                    LEFT JOIN LATERAL (SELECT l.* FROM %3$I l ORDER BY l.last_position DESC LIMIT 1) c ON true
                    LEFT JOIN %3$I k ON k.commit_id = p_commit_id
                    WHERE f.log = %4$L;
                IF v_known IS NOT NULL THEN
                    status := 'known';
                    SELECT c.last_position - c.n + 1, c.last_position, c.recorded_at
                        INTO first_position, last_position, recorded_at FROM %3$I c WHERE c.commit_id = p_commit_id;
                    RETURN;
                END IF;
                IF v_n = 0 THEN
                    first_position := v_base + 1;
                    last_position := v_base;
                    status := 'appended';
                    RETURN;
                END IF;
                IF v_n = 1 AND cardinality(p_states) = 1 THEN
                    IF p_versions[1] NOT IN (-1, v_head + 1) THEN
                        status := 'conflict';
                        conflict_stream := p_streams[1];
                        RETURN;
                    END IF;
                    INSERT INTO %2$I (notification_id, originator_id, originator_version, topic, state, metadata)
                        VALUES (v_base + 1, p_streams[1], v_head + 1, p_topics[1], p_states[1], p_metadata[1]);
                    v_hashes := log_row_hash(
                        v_base + 1, p_streams[1], v_head + 1, p_topics[1], p_metadata[1], p_states[1]);
                ELSIF p_streams = array_fill(p_streams[1], ARRAY[v_n]) AND (
                    p_versions = array_fill(-1::bigint, ARRAY[v_n])
                    OR p_versions = ARRAY(SELECT generate_series(v_head + 1, v_head + v_n))
                ) THEN
                    INSERT INTO %2$I (notification_id, originator_id, originator_version, topic, state, metadata)
                        SELECT v_base + r.i, p_streams[1], v_head + r.i, r.topic, r.state, r.metadata
                        FROM (SELECT generate_series(1, v_n) AS i, unnest(p_topics) AS topic,
                                     unnest(p_states) AS state, unnest(p_metadata) AS metadata) r;
                    -- log_row_hash, with what the rows share encoded once.
                    v_stream := int4send(octet_length(convert_to(p_streams[1], 'UTF8')))
                        || convert_to(p_streams[1], 'UTF8') || '\x00000008'::bytea;
                    v_hashes := (
                        SELECT string_agg(sha256(
                            '\x00000008'::bytea || int8send(v_base + r.i) || v_stream || int8send(v_head + r.i)
                            || int4send(octet_length(convert_to(r.topic, 'UTF8'))) || convert_to(r.topic, 'UTF8')
                            || coalesce(int4send(octet_length(r.metadata)) || r.metadata, '\xffffffff'::bytea)
                            || int4send(octet_length(r.state)) || r.state), ''::bytea)
                        FROM (SELECT generate_series(1, v_n) AS i, unnest(p_topics) AS topic,
                                     unnest(p_states) AS state, unnest(p_metadata) AS metadata) r);
                ELSE
                    SELECT array_agg(k.version ORDER BY k.i),
                           (array_agg(k.stream ORDER BY k.i) FILTER (WHERE k.expected NOT IN (-1, k.version)))[1]
                        INTO v_versions, conflict_stream
                        FROM (
                            SELECT r.i, r.stream, r.expected,
                                   h.version + row_number() OVER (PARTITION BY r.stream ORDER BY r.i) AS version
                            FROM unnest(p_streams, p_versions) WITH ORDINALITY AS r(stream, expected, i)
                            JOIN (
                                SELECT s.stream, coalesce((
                                    SELECT e.originator_version FROM %2$I e WHERE e.originator_id = s.stream
                                    ORDER BY e.originator_version DESC LIMIT 1
                                ), 0) AS version
                                FROM (SELECT DISTINCT u.stream COLLATE "C" AS stream FROM unnest(p_streams) u(stream)) s
                            ) h ON h.stream = r.stream
                        ) k;
                    IF conflict_stream IS NOT NULL THEN
                        status := 'conflict';
                        RETURN;
                    END IF;
                    INSERT INTO %2$I (notification_id, originator_id, originator_version, topic, state, metadata)
                        SELECT v_base + r.i, r.stream, r.version, r.topic, r.state, r.metadata
                        FROM (SELECT generate_series(1, v_n) AS i, unnest(p_streams) AS stream,
                                     unnest(v_versions) AS version, unnest(p_topics) AS topic,
                                     unnest(p_states) AS state, unnest(p_metadata) AS metadata) r;
                    v_hashes := (
                        SELECT string_agg(log_row_hash(
                            v_base + r.i, r.stream, r.version, r.topic, r.metadata, r.state), ''::bytea)
                        FROM (SELECT generate_series(1, v_n) AS i, unnest(p_streams) AS stream,
                                     unnest(v_versions) AS version, unnest(p_topics) AS topic,
                                     unnest(p_states) AS state, unnest(p_metadata) AS metadata) r);
                END IF;
                first_position := v_base + 1;
                last_position := v_base + v_n;
                recorded_at := greatest(v_recorded_at, v_fence + interval '1 microsecond', clock_timestamp());
                INSERT INTO %3$I (last_position, n, recorded_at, commit_id, digest)
                    VALUES (last_position, v_n, recorded_at, p_commit_id, log_digest(
                        v_digest, v_hashes, v_n, recorded_at, p_commit_id));
                status := 'appended';
            END
            $fn$
        $sql$, v_log || '_append', v_log || '_events', v_log || '_commits', v_log, v_key);
    END LOOP;
END
$make$;

-- What clients call. log_begin opens an append in the caller's transaction, log_finish closes it; rows inserted
-- between the two at base + 1, base + 2 … make one commit. log_append does all of it in one round trip.
CREATE FUNCTION log_begin(
    p_log text, p_commit_id uuid, OUT known boolean, OUT first_position bigint, OUT last_position bigint,
    OUT recorded_at timestamptz, OUT base bigint
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_log = 'telemetry' THEN
        SELECT r.* INTO known, first_position, last_position, recorded_at, base FROM telemetry_begin(p_commit_id) r;
    ELSIF p_log = 'operations' THEN
        SELECT r.* INTO known, first_position, last_position, recorded_at, base FROM operations_begin(p_commit_id) r;
    ELSIF p_log = 'identity' THEN
        SELECT r.* INTO known, first_position, last_position, recorded_at, base FROM identity_begin(p_commit_id) r;
    ELSE
        RAISE EXCEPTION 'no log is called %', p_log USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
CREATE FUNCTION log_finish(
    p_log text, p_commit_id uuid, p_base bigint, OUT last_position bigint, OUT recorded_at timestamptz
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_log = 'telemetry' THEN
        SELECT r.* INTO last_position, recorded_at FROM telemetry_finish(p_commit_id, p_base) r;
    ELSIF p_log = 'operations' THEN
        SELECT r.* INTO last_position, recorded_at FROM operations_finish(p_commit_id, p_base) r;
    ELSIF p_log = 'identity' THEN
        SELECT r.* INTO last_position, recorded_at FROM identity_finish(p_commit_id, p_base) r;
    ELSE
        RAISE EXCEPTION 'no log is called %', p_log USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
CREATE FUNCTION log_versions(
    p_log text, p_streams text[], OUT versions bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_log = 'telemetry' THEN
        SELECT r.* INTO versions FROM telemetry_versions(p_streams) r;
    ELSIF p_log = 'operations' THEN
        SELECT r.* INTO versions FROM operations_versions(p_streams) r;
    ELSIF p_log = 'identity' THEN
        SELECT r.* INTO versions FROM identity_versions(p_streams) r;
    ELSE
        RAISE EXCEPTION 'no log is called %', p_log USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
CREATE FUNCTION log_append(
    p_log text, p_commit_id uuid, p_streams text[], p_versions bigint[], p_topics text[], p_states bytea[],
    p_metadata bytea[], OUT status text, OUT first_position bigint, OUT last_position bigint, OUT recorded_at timestamptz,
    OUT conflict_stream text
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_log = 'telemetry' THEN
        SELECT r.* INTO status, first_position, last_position, recorded_at, conflict_stream FROM telemetry_append(p_commit_id, p_streams, p_versions, p_topics, p_states, p_metadata) r;
    ELSIF p_log = 'operations' THEN
        SELECT r.* INTO status, first_position, last_position, recorded_at, conflict_stream FROM operations_append(p_commit_id, p_streams, p_versions, p_topics, p_states, p_metadata) r;
    ELSIF p_log = 'identity' THEN
        SELECT r.* INTO status, first_position, last_position, recorded_at, conflict_stream FROM identity_append(p_commit_id, p_streams, p_versions, p_topics, p_states, p_metadata) r;
    ELSE
        RAISE EXCEPTION 'no log is called %', p_log USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
