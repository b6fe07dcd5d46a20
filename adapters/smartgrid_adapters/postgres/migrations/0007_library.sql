-- What the eventsourcing library records: versions are its own (from 0, with gaps), only taken ones are refused.

DO $make$
DECLARE
    v_log text;
BEGIN
    FOREACH v_log IN ARRAY ARRAY['telemetry', 'operations', 'identity'] LOOP
        EXECUTE format($sql$
            CREATE FUNCTION %1$I(
                p_commit_id uuid, p_streams text[], p_versions bigint[], p_topics text[], p_states bytea[],
                OUT first_position bigint, OUT last_position bigint
            ) LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_generic_plan AS $fn$
            DECLARE
                v_known boolean;
                v_base bigint;
            BEGIN
                SELECT b.known, b.first_position, b.last_position, b.base
                    INTO v_known, first_position, last_position, v_base FROM %2$I(p_commit_id) b;
                IF v_known THEN
                    RETURN;
                END IF;
                INSERT INTO %4$I (notification_id, originator_id, originator_version, topic, state)
                    SELECT v_base + r.i, r.stream, r.version, r.topic, r.state
                    FROM unnest(p_streams, p_versions, p_topics, p_states)
                        WITH ORDINALITY AS r(stream, version, topic, state, i);
                first_position := v_base + 1;
                SELECT f.last_position INTO last_position FROM %3$I(p_commit_id, v_base) f;
            END
            $fn$
        $sql$, v_log || '_record', v_log || '_begin', v_log || '_finish', v_log || '_events');
    END LOOP;
END
$make$;
