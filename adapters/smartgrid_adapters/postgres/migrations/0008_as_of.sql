-- What was known at a time: the last commit recorded by then, and that no later commit is ever recorded before it.

-- A time that no visible commit lies behind is settled before it is answered: under the append lock, shared for an
-- instant, nothing is in flight; the fence then keeps whatever comes later, on whatever clock, behind that time.
-- known is false for a time that has not come yet. Raises fences as their owner; nobody else may.
CREATE FUNCTION log_position_at(
    p_log text, p_at timestamptz, OUT known boolean, OUT last_position bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    v_key int := array_position(ARRAY['telemetry', 'operations', 'identity'], p_log);
    v_fence timestamptz;
    v_newest timestamptz;
BEGIN
    IF v_key IS NULL THEN
        RAISE EXCEPTION 'no log is called %', p_log USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a time is settled in READ COMMITTED only' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    known := p_at <= clock_timestamp();
    IF NOT known THEN
        RETURN;
    END IF;
    SELECT f.fence INTO v_fence FROM log_fences f WHERE f.log = p_log;
    EXECUTE format('SELECT c.recorded_at FROM %I c ORDER BY c.last_position DESC LIMIT 1', p_log || '_commits')
        INTO v_newest;
    IF v_fence < p_at AND (v_newest IS NULL OR v_newest <= p_at) THEN
        PERFORM pg_advisory_xact_lock_shared(1397181511, v_key);
        UPDATE log_fences f SET fence = p_at WHERE f.log = p_log AND f.fence < p_at;
    END IF;
    EXECUTE format(
        'SELECT c.last_position FROM %I c WHERE c.recorded_at <= $1 '
        'ORDER BY c.recorded_at DESC, c.last_position DESC LIMIT 1', p_log || '_commits')
        INTO last_position USING p_at;
    last_position := coalesce(last_position, 0);
END
$$;
REVOKE ALL ON FUNCTION log_position_at(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log_position_at(text, timestamptz) TO smartgrid_app;

-- What was recorded after a position lies at the end of its partition, so a summary of its pages finds it.
CREATE INDEX reading_register_position ON reading_register USING brin (position) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX reading_retractions_position ON reading_retractions (position);
