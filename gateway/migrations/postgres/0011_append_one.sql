-- Appends one envelope: the short way of a batch of one, which is what a gateway that keeps up commits.
--
-- The general function is one large statement, and starting it costs more than one envelope needs.
-- Here are plain statements by key, and one plain case: the next counter of a sender who may write. All
-- else is undone and judged by append_envelopes, where the rules are; nothing is judged twice over.
--
-- The first statement takes the row lock that every writer takes, and the function is VOLATILE, so that
-- the following ones see all that was committed before it was held (0003 explains it).
CREATE FUNCTION append_envelope(
    conversation_in bytea, device_in bytea, counter_in bigint,
    generation_in bigint, epoch_in bigint, envelope_in bytea
)
-- As append_envelopes.
RETURNS TABLE (
    verdict bigint,
    seq bigint, at_ms bigint, expected bigint,
    generation bigint, epoch bigint, revision bigint, low bytea, high bytea
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    oldest bigint;
    may_write boolean;
BEGIN
    UPDATE conversations c SET head = c.head + 1 WHERE c.id = conversation_in
    RETURNING c.head, c.generation, c.epoch, greatest(c.epoch - 2, c.fence), c.revision, c.low, c.high
    INTO seq, generation, epoch, oldest, revision, low, high;

    SELECT NOT m.barred INTO may_write
    FROM cursors u
    JOIN members m ON m.conversation = u.conversation AND m.account = u.account
    JOIN devices d ON d.id = u.device
    WHERE u.conversation = conversation_in AND u.device = device_in
      AND u.to_seq IS NULL AND m.to_seq IS NULL AND NOT d.revoked;

    IF may_write AND generation_in = generation AND epoch_in BETWEEN oldest AND epoch THEN
        IF counter_in = 1 THEN
            INSERT INTO send_counters (conversation, device, high)
            VALUES (conversation_in, device_in, 1) ON CONFLICT DO NOTHING;
        ELSE
            UPDATE send_counters s SET high = counter_in
            WHERE s.conversation = conversation_in AND s.device = device_in AND s.high = counter_in - 1;
        END IF;
        IF FOUND THEN
            verdict := 1;
            at_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
            expected := counter_in + 1;
            INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
            VALUES (conversation_in, seq, device_in, counter_in, 2, envelope_in, at_ms,
                    pg_current_xact_id()::text::bigint);
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;

    UPDATE conversations c SET head = c.head - 1 WHERE c.id = conversation_in;
    RETURN QUERY SELECT * FROM append_envelopes(
        ARRAY[conversation_in], ARRAY[device_in], ARRAY[counter_in],
        ARRAY[generation_in], ARRAY[epoch_in], ARRAY[envelope_in]);
END
$$;
