-- Conversations and their logs. Every hot key begins with the conversation, so that the tables can be
-- distributed by it; no hot table has a foreign key (its check would lock the row it points at).
-- Tables whose rows are rewritten keep free space in their pages and index no column that changes:
-- then an update stays in its page and touches no index (HOT).

-- The row that a writer locks: head, epoch and membership revision.
CREATE TABLE conversations (
    id id NOT NULL,
    -- 1 direct, 2 group.
    kind smallint NOT NULL,
    -- The parties of a direct conversation, in order; twice the same in one with oneself.
    low id,
    high id,
    suite integer NOT NULL,
    generation bigint NOT NULL,
    epoch bigint NOT NULL,
    -- The last epoch that began by adding or removing a leaf: older ones are no longer accepted.
    fence bigint NOT NULL,
    head bigint NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT conversations_pkey PRIMARY KEY (id),
    CONSTRAINT conversations_kind CHECK (kind IN (1, 2)),
    CONSTRAINT conversations_pair CHECK (
        CASE kind WHEN 1 THEN low IS NOT NULL AND high IS NOT NULL AND low <= high
        ELSE low IS NULL AND high IS NULL END),
    CONSTRAINT conversations_fence CHECK (fence <= epoch)
) WITH (fillfactor = 50);

-- A pair of accounts has one direct conversation: this row decides which founder was first. It also
-- remembers a founding longer than the log's first row lives, so that a retry gets the same answer.
CREATE TABLE direct_pairs (
    low id NOT NULL,
    high id NOT NULL,
    conversation id NOT NULL,
    founder id NOT NULL,
    at_ms bigint NOT NULL,
    CONSTRAINT direct_pairs_pkey PRIMARY KEY (low, high)
);

-- Accounts in a conversation. to_seq is the last row that a former member may read.
CREATE TABLE members (
    conversation id NOT NULL,
    account id NOT NULL,
    -- 1 member, 2 admin.
    role smallint NOT NULL DEFAULT 1,
    from_seq bigint NOT NULL,
    to_seq bigint,
    CONSTRAINT members_pkey PRIMARY KEY (conversation, account)
);

-- The truth: what was said, in order. Nothing is ever updated here.
CREATE TABLE log (
    conversation id NOT NULL,
    seq bigint NOT NULL,
    sender id NOT NULL,
    -- The sender's count; 0 for the founding.
    counter bigint NOT NULL,
    -- protocol::server::LogKind.
    kind smallint NOT NULL,
    envelope bytea NOT NULL,
    at_ms bigint NOT NULL,
    -- The transaction that wrote the row: what moved since a mark is found by it.
    tx bigint NOT NULL,
    CONSTRAINT log_pkey PRIMARY KEY (conversation, seq),
    CONSTRAINT log_message_key UNIQUE (conversation, sender, counter)
);
CREATE INDEX log_tx_idx ON log (tx);
-- Ciphertext does not compress.
ALTER TABLE log ALTER COLUMN envelope SET STORAGE EXTERNAL;

-- A device in a conversation: where it came in, how far it acked, and the last row that it may read
-- once its leaf was removed.
CREATE TABLE cursors (
    conversation id NOT NULL,
    device id NOT NULL,
    account id NOT NULL,
    join_seq bigint NOT NULL,
    cursor bigint NOT NULL,
    to_seq bigint,
    CONSTRAINT cursors_pkey PRIMARY KEY (conversation, device)
) WITH (fillfactor = 70);
CREATE INDEX cursors_device_idx ON cursors (device, conversation);

-- High water of each sender's counter; outlives retention, so that no id is ever used again.
CREATE TABLE send_counters (
    conversation id NOT NULL,
    device id NOT NULL,
    high bigint NOT NULL,
    CONSTRAINT send_counters_pkey PRIMARY KEY (conversation, device)
) WITH (fillfactor = 70);

-- Public state of the newest epoch; large and rarely written, so not in the hot row.
CREATE TABLE group_states (
    conversation id NOT NULL,
    group_info bytea NOT NULL,
    state bytea NOT NULL,
    tree bytea NOT NULL,
    CONSTRAINT group_states_pkey PRIMARY KEY (conversation)
);
ALTER TABLE group_states ALTER COLUMN group_info SET STORAGE EXTERNAL;
ALTER TABLE group_states ALTER COLUMN state SET STORAGE EXTERNAL;
ALTER TABLE group_states ALTER COLUMN tree SET STORAGE EXTERNAL;

-- The head of each device's mailbox; outlives the items.
CREATE TABLE mailbox_heads (
    device id NOT NULL,
    account id NOT NULL,
    head bigint NOT NULL,
    tx bigint NOT NULL,
    CONSTRAINT mailbox_heads_pkey PRIMARY KEY (device)
);
CREATE INDEX mailbox_heads_tx_idx ON mailbox_heads (tx);

-- Welcomes that wait for a device: who let it in where, and by which bytes.
CREATE TABLE mailbox (
    device id NOT NULL,
    seq bigint NOT NULL,
    conversation id NOT NULL,
    join_seq bigint NOT NULL,
    sender id NOT NULL,
    welcome_hash bytea NOT NULL,
    tree_hash bytea NOT NULL,
    CONSTRAINT mailbox_pkey PRIMARY KEY (device, seq)
);
CREATE INDEX mailbox_conversation_idx ON mailbox (conversation);

-- Trees and welcomes by SHA-256, stored once for all devices that a commit lets in, and kept while a
-- mailbox item names them.
CREATE TABLE welcome_parts (
    conversation id NOT NULL,
    hash bytea NOT NULL,
    bytes bytea NOT NULL,
    CONSTRAINT welcome_parts_pkey PRIMARY KEY (conversation, hash)
);
ALTER TABLE welcome_parts ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Who may read which rows: the only place that says so. A device reads from the row that let it in
-- to the row that put it (or its account) out, or to the head; a revoked device reads nothing.
CREATE VIEW readable AS
SELECT u.conversation, u.device, u.account, u.join_seq, u.cursor,
       least(u.to_seq, m.to_seq) AS to_seq,
       least(c.head, u.to_seq, m.to_seq) AS head,
       c.head AS log_head, c.revision, c.generation, c.epoch, c.low, c.high
FROM cursors u
JOIN devices d ON d.id = u.device AND NOT d.revoked
JOIN members m ON m.conversation = u.conversation AND m.account = u.account
JOIN conversations c ON c.id = u.conversation;
