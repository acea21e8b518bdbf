-- As in 0003, where it is explained, with one more verdict: a party of a direct conversation whom the
-- other has blocked is not accepted (8). It is read from the member's row that every append reads.
CREATE OR REPLACE FUNCTION append_envelopes(
    conversations_in bytea[], devices_in bytea[], counters_in bigint[],
    generations_in bigint[], epochs_in bigint[], envelopes_in bytea[]
)
RETURNS TABLE (
    -- 1 stored, 2 duplicate, 3 conflict, 4 expired, 5 out of order, 6 stale, 7 not a member, 8 blocked.
    verdict bigint,
    seq bigint, at_ms bigint, expected bigint,
    generation bigint, epoch bigint, revision bigint, low bytea, high bytea
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    now_ms bigint;
    this_tx bigint;
BEGIN
    PERFORM 1 FROM conversations c
    WHERE c.id = ANY (conversations_in) ORDER BY c.id FOR NO KEY UPDATE;

    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    this_tx := pg_current_xact_id()::text::bigint;

    RETURN QUERY
    WITH item AS (
        SELECT * FROM unnest(conversations_in, devices_in, counters_in, generations_in, epochs_in)
        WITH ORDINALITY AS i (conversation, device, counter, generation, epoch, place)
    ),
    -- How each sender stands in its conversation. Dedupe comes before everything else.
    judged AS MATERIALIZED (
        SELECT i.place, i.conversation, i.device, i.counter,
               c.head, c.generation, c.epoch, c.revision, c.low, c.high,
               coalesce(s.high, 0) AS high_water, l.seq AS first_seq, l.at_ms AS first_at_ms,
               CASE
                   WHEN i.counter BETWEEN 1 AND s.high THEN
                       CASE WHEN l.seq IS NULL THEN 4
                            WHEN l.envelope = envelopes_in[i.place] THEN 2
                            ELSE 3 END
                   WHEN d.id IS NULL OR m.account IS NULL OR c.id IS NULL THEN 7
                   WHEN m.barred THEN 8
                   WHEN i.generation <> c.generation
                        OR i.epoch NOT BETWEEN greatest(c.epoch - 2, c.fence) AND c.epoch THEN 6
                   -- Below the high water and yet not used: no counter at all. Out of the chains' way.
                   WHEN i.counter < 1 THEN 5
                   ELSE 1
               END AS verdict
        FROM item i
        LEFT JOIN conversations c ON c.id = i.conversation
        LEFT JOIN send_counters s ON s.conversation = i.conversation AND s.device = i.device
        LEFT JOIN log l ON l.conversation = i.conversation AND l.sender = i.device
                       AND l.counter = i.counter AND i.counter <= s.high
        LEFT JOIN cursors u ON u.conversation = i.conversation AND u.device = i.device
                           AND u.to_seq IS NULL
        LEFT JOIN members m ON m.conversation = i.conversation AND m.account = u.account
                           AND m.to_seq IS NULL
        LEFT JOIN devices d ON d.id = i.device AND NOT d.revoked
    ),
    -- An item that may be stored is stored if its counter, and that of each before it, is the next
    -- one, and they came in that order. verdict is part of the window, so refused ones are not in it.
    stepped AS (
        SELECT j.*,
               counter = high_water + row_number() OVER chain
               AND place = max(place) OVER chain AS step
        FROM judged j
        WINDOW chain AS (PARTITION BY conversation, device, verdict
                         ORDER BY counter, place ROWS UNBOUNDED PRECEDING)
    ),
    chained AS (
        SELECT s.*,
               verdict = 1 AND bool_and(step) OVER (PARTITION BY conversation, device, verdict
                                                    ORDER BY counter, place ROWS UNBOUNDED PRECEDING)
               AS stored
        FROM stepped s
    ),
    placed AS MATERIALIZED (
        SELECT c.*,
               head + count(*) FILTER (WHERE stored)
                   OVER (PARTITION BY conversation ORDER BY place) AS new_seq,
               high_water + 1 + count(*) FILTER (WHERE stored)
                   OVER (PARTITION BY conversation, device ORDER BY place) AS next_counter
        FROM chained c
    ),
    rows_in AS (
        INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
        SELECT conversation, new_seq, device, counter, 2, envelopes_in[place], now_ms, this_tx
        FROM placed WHERE stored
    ),
    heads_in AS (
        UPDATE conversations c SET head = p.head
        FROM (SELECT conversation, max(new_seq) AS head FROM placed WHERE stored
              GROUP BY conversation) p
        WHERE c.id = p.conversation
    ),
    counters_up AS (
        INSERT INTO send_counters AS s (conversation, device, high)
        SELECT conversation, device, max(counter) FROM placed WHERE stored
        GROUP BY conversation, device
        ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high
    )
    SELECT (CASE WHEN p.verdict = 1 AND NOT p.stored THEN 5 ELSE p.verdict END)::bigint,
           CASE WHEN p.stored THEN p.new_seq ELSE p.first_seq END,
           CASE WHEN p.stored THEN now_ms ELSE p.first_at_ms END,
           p.next_counter, p.generation, p.epoch, p.revision, p.low::bytea, p.high::bytea
    FROM placed p ORDER BY p.place;
END
$$;
