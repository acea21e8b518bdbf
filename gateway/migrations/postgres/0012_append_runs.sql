-- The plain case of appending, for a batch of any size: each sender's next counters, in the epoch that is,
-- by devices that were found to be allowed before. All else is judged by append_envelopes, as ever.

-- The membership revision at which append_envelopes found that this device may write here. Whatever
-- takes that right away (a removal, a revocation, a deletion, a block) raises the conversation's
-- revision, under its lock: as long as both are the same, nobody needs to ask who is in.
ALTER TABLE send_counters ADD COLUMN vetted bigint;

-- Postgres reads CHECK constraints from their text whenever a statement that may break one starts, which
-- took a tenth of an append. A trigger on the columns that they are about does not run for a new head.
ALTER TABLE conversations
    DROP CONSTRAINT conversations_kind, DROP CONSTRAINT conversations_pair, DROP CONSTRAINT conversations_fence;
CREATE FUNCTION conversation_makes_sense() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.kind = 1 AND new.low <= new.high AND new.fence <= new.epoch
        OR new.kind = 2 AND new.low IS NULL AND new.high IS NULL AND new.fence <= new.epoch
    THEN
        RETURN new;
    END IF;
    RAISE check_violation USING MESSAGE = 'a conversation is direct, with its parties in order, or a group, and its fence is not beyond its epoch';
END
$$;
CREATE TRIGGER conversation_makes_sense BEFORE INSERT OR UPDATE OF kind, low, high, epoch, fence
ON conversations FOR EACH ROW EXECUTE FUNCTION conversation_makes_sense();

-- Appends runs: envelopes of one device in one conversation, whose counters follow each other. Returns a
-- row for each run, in any order, if all of them are plain, and has stored nothing if it returns fewer:
-- then the batch is append_envelopes' to judge.
--
-- One statement, which locks by updating. Its snapshot may be older than a lock that it waited for, but
-- what it goes by is only in rows that it updates, and those Postgres reads again when it has waited.
-- Conversations come in the order of ids, as everybody locks them.
CREATE FUNCTION append_runs(
    -- By conversation: ids end to end, envelopes in each, and where its runs begin (one more at the end).
    conversations_in bytea, counts_in int[], runs_in int[],
    -- By run: devices end to end, counters, the generation, the oldest and newest epoch of its envelopes,
    -- and envelopes before it.
    devices_in bytea, firsts_in bigint[], lasts_in bigint[], generations_in bigint[],
    oldest_in bigint[], newest_in bigint[], places_in int[],
    -- By envelope: its place in the conversation's part of the batch (from 1), and where it begins (from 1)
    -- and how long it is in all envelopes end to end.
    steps_in int[], starts_in int[], lengths_in int[], envelopes_in bytea
)
-- The run, from 1, and the head of its conversation before this batch; the rest is as ever.
RETURNS TABLE (run bigint, head bigint, at_ms bigint, revision bigint, low bytea, high bytea)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    stored int;
BEGIN
    RETURN QUERY
    WITH locked AS MATERIALIZED (
        UPDATE conversations c SET head = c.head + counts_in[g.place]
        FROM generate_series(1, cardinality(counts_in)) AS g (place)
        WHERE c.id = substring(conversations_in FROM g.place * 16 - 15 FOR 16)
        RETURNING g.place, c.id, c.head - counts_in[g.place] AS head, c.generation, c.epoch,
                  greatest(c.epoch - 2, c.fence) AS oldest, c.revision, c.low, c.high,
                  floor(date_part('epoch', clock_timestamp()) * 1000)::bigint AS at_ms
    ),
    plain AS MATERIALIZED (
        UPDATE send_counters s SET high = lasts_in[r.run]
        FROM locked l, generate_series(runs_in[l.place], runs_in[l.place + 1] - 1) AS r (run)
        WHERE s.conversation = l.id AND s.device = substring(devices_in FROM r.run * 16 - 15 FOR 16)
          AND s.high = firsts_in[r.run] - 1 AND s.vetted = l.revision
          AND generations_in[r.run] = l.generation
          AND oldest_in[r.run] >= l.oldest AND newest_in[r.run] <= l.epoch
        RETURNING r.run, l.id, l.head, l.at_ms, s.device,
                  l.revision, l.low, l.high
    ),
    rows_in AS (
        INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
        SELECT p.id, p.head + steps_in[places_in[p.run] + k.nth], p.device, firsts_in[p.run] - 1 + k.nth, 2,
               substring(envelopes_in FROM starts_in[places_in[p.run] + k.nth]
                                      FOR lengths_in[places_in[p.run] + k.nth]),
               p.at_ms, pg_current_xact_id()::text::bigint
        FROM plain p, generate_series(1, (lasts_in[p.run] - firsts_in[p.run])::int + 1) AS k (nth)
    )
    SELECT p.run::bigint, p.head, p.at_ms, p.revision, p.low::bytea, p.high::bytea FROM plain p;
    GET DIAGNOSTICS stored = ROW_COUNT;
    IF stored < cardinality(firsts_in) THEN
        RAISE SQLSTATE 'FC001';
    END IF;
EXCEPTION WHEN SQLSTATE 'FC001' THEN
    -- Undone. The rows that were returned so far still are: too few, by which the caller knows.
END
$$;

-- As in 0011, by what append_envelopes found before instead of looking again who is in.
CREATE OR REPLACE FUNCTION append_envelope(
    conversation_in bytea, device_in bytea, counter_in bigint,
    generation_in bigint, epoch_in bigint, envelope_in bytea
)
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
    conversation id;
    sender id;
BEGIN
    UPDATE conversations c SET head = c.head + 1 WHERE c.id = conversation_in
    RETURNING c.id, c.head, c.generation, c.epoch, greatest(c.epoch - 2, c.fence), c.revision, c.low, c.high
    INTO conversation, seq, generation, epoch, oldest, revision, low, high;

    IF generation_in = generation AND epoch_in BETWEEN oldest AND epoch THEN
        UPDATE send_counters s SET high = counter_in
        WHERE s.conversation = conversation_in AND s.device = device_in
          AND s.high = counter_in - 1 AND s.vetted = revision
        RETURNING s.device INTO sender;
        IF FOUND THEN
            verdict := 1;
            at_ms := floor(date_part('epoch', clock_timestamp()) * 1000);
            expected := counter_in + 1;
            INSERT INTO log (conversation, seq, sender, counter, kind, envelope, at_ms, tx)
            VALUES (conversation, seq, sender, counter_in, 2, envelope_in, at_ms,
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

-- As in 0005, and remembers for the plain case who may write.
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
