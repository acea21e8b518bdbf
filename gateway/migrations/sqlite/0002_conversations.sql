-- Conversations and their logs. The same tables as in Postgres, where each is explained at more length.

-- Head, epoch and membership revision of each conversation.
CREATE TABLE conversations (
    id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    low BLOB,
    high BLOB,
    suite INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    head INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    CONSTRAINT conversations_pkey PRIMARY KEY (id),
    CONSTRAINT conversations_id CHECK (length(id) = 16),
    CONSTRAINT conversations_kind CHECK (kind IN (1, 2)),
    CONSTRAINT conversations_pair CHECK (
        CASE kind WHEN 1 THEN low IS NOT NULL AND high IS NOT NULL AND low <= high
        ELSE low IS NULL AND high IS NULL END),
    CONSTRAINT conversations_fence CHECK (fence <= epoch)
) STRICT;

-- A pair of accounts has one direct conversation.
CREATE TABLE direct_pairs (
    low BLOB NOT NULL,
    high BLOB NOT NULL,
    conversation BLOB NOT NULL,
    founder BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    CONSTRAINT direct_pairs_pkey PRIMARY KEY (low, high)
) STRICT;

-- Accounts in a conversation. to_seq is the last row that a former member may read.
CREATE TABLE members (
    conversation BLOB NOT NULL,
    account BLOB NOT NULL,
    role INTEGER NOT NULL DEFAULT 1,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER,
    CONSTRAINT members_pkey PRIMARY KEY (conversation, account)
) STRICT, WITHOUT ROWID;

-- The truth: what was said, in order. Nothing is ever updated here.
CREATE TABLE log (
    conversation BLOB NOT NULL,
    seq INTEGER NOT NULL,
    sender BLOB NOT NULL,
    counter INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    -- Last, so that the columns before it are read without its pages.
    envelope BLOB NOT NULL,
    CONSTRAINT log_pkey PRIMARY KEY (conversation, seq),
    CONSTRAINT log_message_key UNIQUE (conversation, sender, counter)
) STRICT;
CREATE INDEX log_tx_idx ON log (tx);

-- A device in a conversation.
CREATE TABLE cursors (
    conversation BLOB NOT NULL,
    device BLOB NOT NULL,
    account BLOB NOT NULL,
    join_seq INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    to_seq INTEGER,
    CONSTRAINT cursors_pkey PRIMARY KEY (conversation, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX cursors_device_idx ON cursors (device, conversation);

-- High water of each sender's counter; outlives retention, so that no id is ever used again.
CREATE TABLE send_counters (
    conversation BLOB NOT NULL,
    device BLOB NOT NULL,
    high INTEGER NOT NULL,
    CONSTRAINT send_counters_pkey PRIMARY KEY (conversation, device)
) STRICT, WITHOUT ROWID;

-- Public state of the newest epoch.
CREATE TABLE group_states (
    conversation BLOB NOT NULL,
    group_info BLOB NOT NULL,
    state BLOB NOT NULL,
    tree BLOB NOT NULL,
    CONSTRAINT group_states_pkey PRIMARY KEY (conversation)
) STRICT;

-- The head of each device's mailbox; outlives the items.
CREATE TABLE mailbox_heads (
    device BLOB NOT NULL,
    account BLOB NOT NULL,
    head INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    CONSTRAINT mailbox_heads_pkey PRIMARY KEY (device)
) STRICT, WITHOUT ROWID;
CREATE INDEX mailbox_heads_tx_idx ON mailbox_heads (tx);

-- Welcomes that wait for a device: who let it in where, and by which bytes.
CREATE TABLE mailbox (
    device BLOB NOT NULL,
    seq INTEGER NOT NULL,
    conversation BLOB NOT NULL,
    join_seq INTEGER NOT NULL,
    sender BLOB NOT NULL,
    welcome_hash BLOB NOT NULL,
    tree_hash BLOB NOT NULL,
    CONSTRAINT mailbox_pkey PRIMARY KEY (device, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX mailbox_conversation_idx ON mailbox (conversation);

-- Trees and welcomes by SHA-256, kept while a mailbox item names them.
CREATE TABLE welcome_parts (
    conversation BLOB NOT NULL,
    hash BLOB NOT NULL,
    bytes BLOB NOT NULL,
    CONSTRAINT welcome_parts_pkey PRIMARY KEY (conversation, hash)
) STRICT;

-- Who may read which rows: the only place that says so.
CREATE VIEW readable AS
SELECT u.conversation, u.device, u.account, u.join_seq, u.cursor,
       CASE WHEN u.to_seq IS NULL THEN m.to_seq WHEN m.to_seq IS NULL THEN u.to_seq
            ELSE min(u.to_seq, m.to_seq) END AS to_seq,
       min(c.head, coalesce(u.to_seq, c.head), coalesce(m.to_seq, c.head)) AS head,
       c.head AS log_head, c.revision, c.generation, c.epoch, c.low, c.high
FROM cursors u
JOIN devices d ON d.id = u.device AND NOT d.revoked
JOIN members m ON m.conversation = u.conversation AND m.account = u.account
JOIN conversations c ON c.id = u.conversation;
