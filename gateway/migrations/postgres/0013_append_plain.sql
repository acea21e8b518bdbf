-- The plain case of appending goes by what a gateway remembers of a sender (store/postgres/senders.rs): its
-- counter, and the membership revision at which it was found to be allowed. Then a message is one row
-- changed and one inserted, by plain statements of the gateway's own; the functions of 0011 and 0012 are not
-- needed. Gateways from before this migration call them, and append nothing until they are replaced: this
-- takes away in one step, as nothing was released before it.
DROP FUNCTION append_envelope(bytea, bytea, bigint, bigint, bigint, bytea);
DROP FUNCTION append_runs(
    bytea, int[], int[], bytea, bigint[], bigint[], bigint[], bigint[], bigint[], int[],
    int[], int[], int[], bytea);

-- How far each sender has counted. A plain append leaves send_counters.high behind: the log itself holds
-- the sender's last counter (log_message_key finds it), until retention takes the row.
CREATE VIEW counters AS
SELECT s.conversation, s.device, s.vetted,
       greatest(s.high, (SELECT l.counter FROM log l
                         WHERE l.conversation = s.conversation AND l.sender = s.device
                         ORDER BY l.counter DESC LIMIT 1)) AS high
FROM send_counters s;

-- What leaves the log is counted first. The lock is the one that all take before they write counters.
CREATE FUNCTION log_keeps_counters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM conversations c
    WHERE c.id IN (SELECT g.conversation FROM gone g) ORDER BY c.id FOR NO KEY UPDATE;
    UPDATE send_counters s SET high = g.high
    FROM (SELECT conversation, sender, max(counter) AS high FROM gone GROUP BY conversation, sender) g
    WHERE s.conversation = g.conversation AND s.device = g.sender AND s.high < g.high;
    RETURN NULL;
END
$$;
CREATE TRIGGER log_keeps_counters AFTER DELETE ON log
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION log_keeps_counters();

-- As in 0012, by the view.
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
SET plan_cache_mode = force_generic_plan
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
    WITH item AS MATERIALIZED (
        SELECT i.*, (SELECT s.high FROM counters s
                     WHERE s.conversation = i.conversation AND s.device = i.device) AS high
        FROM unnest(conversations_in, devices_in, counters_in, generations_in, epochs_in)
        WITH ORDINALITY AS i (conversation, device, counter, generation, epoch, place)
    ),
    -- How each sender stands in its conversation. Dedupe comes before everything else.
    judged AS MATERIALIZED (
        SELECT i.place, i.conversation, i.device, i.counter,
               c.head, c.generation, c.epoch, c.revision, c.low, c.high,
               coalesce(i.high, 0) AS high_water, l.seq AS first_seq, l.at_ms AS first_at_ms,
               CASE
                   WHEN i.counter BETWEEN 1 AND i.high THEN
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
        LEFT JOIN log l ON l.conversation = i.conversation AND l.sender = i.device
                       AND l.counter = i.counter AND i.counter <= i.high
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
        INSERT INTO send_counters AS s (conversation, device, high, vetted)
        SELECT conversation, device, max(counter), max(revision) FROM placed WHERE stored
        GROUP BY conversation, device
        ON CONFLICT (conversation, device) DO UPDATE SET high = excluded.high, vetted = excluded.vetted
    )
    SELECT (CASE WHEN p.verdict = 1 AND NOT p.stored THEN 5 ELSE p.verdict END)::bigint,
           CASE WHEN p.stored THEN p.new_seq ELSE p.first_seq END,
           CASE WHEN p.stored THEN now_ms ELSE p.first_at_ms END,
           p.next_counter, p.generation, p.epoch, p.revision, p.low::bytea, p.high::bytea
    FROM placed p ORDER BY p.place;
END
$$;
