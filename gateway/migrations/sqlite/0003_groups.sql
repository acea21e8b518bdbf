-- Groups, blocks, deletion, recovery and slots. The same tables as in Postgres, where each is explained
-- at more length.

ALTER TABLE accounts ADD COLUMN visible INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;

-- The other party of the direct conversation has blocked this account.
ALTER TABLE members ADD COLUMN barred INTEGER NOT NULL DEFAULT 0;
-- Out by its own statement (or deleted), and no commit has removed its leaves yet.
ALTER TABLE members ADD COLUMN lingers INTEGER NOT NULL DEFAULT 0;
CREATE INDEX members_account_idx ON members (account, conversation);

-- Who has blocked whom.
CREATE TABLE blocks (
    account BLOB NOT NULL,
    blocked BLOB NOT NULL,
    CONSTRAINT blocks_pkey PRIMARY KEY (account, blocked),
    CONSTRAINT blocks_account_fkey FOREIGN KEY (account) REFERENCES accounts (id),
    CONSTRAINT blocks_blocked_fkey FOREIGN KEY (blocked) REFERENCES accounts (id),
    CONSTRAINT blocks_other CHECK (account <> blocked)
) STRICT, WITHOUT ROWID;

-- Remembers the founding of a group longer than the log's first row lives.
CREATE TABLE group_foundings (
    conversation BLOB NOT NULL,
    founder BLOB NOT NULL,
    group_info_hash BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    CONSTRAINT group_foundings_pkey PRIMARY KEY (conversation)
) STRICT, WITHOUT ROWID;

-- What a recovery code opens, and the hash of the key that proves the code.
CREATE TABLE recoveries (
    account BLOB NOT NULL,
    key_hash BLOB NOT NULL,
    sealed BLOB NOT NULL,
    CONSTRAINT recoveries_pkey PRIMARY KEY (account),
    CONSTRAINT recoveries_account_fkey FOREIGN KEY (account) REFERENCES accounts (id),
    CONSTRAINT recoveries_key_hash CHECK (length(key_hash) = 32)
) STRICT;

-- Sealed parts that one device of an account leaves for another, until they expire.
CREATE TABLE slots (
    account BLOB NOT NULL,
    slot BLOB NOT NULL,
    part INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    -- Last, so that the columns before it are read without its pages.
    bytes BLOB NOT NULL,
    CONSTRAINT slots_pkey PRIMARY KEY (account, slot, part),
    CONSTRAINT slots_account_fkey FOREIGN KEY (account) REFERENCES accounts (id),
    CONSTRAINT slots_slot CHECK (length(slot) = 16)
) STRICT;
CREATE INDEX slots_expires_idx ON slots (expires_at_ms);

-- Who may read which rows: still the only place that says so.
DROP VIEW readable;
CREATE VIEW readable AS
SELECT u.conversation, u.device, u.account,
       max(u.join_seq, m.from_seq) AS join_seq, max(u.cursor, m.from_seq) AS cursor,
       CASE WHEN u.to_seq IS NULL THEN m.to_seq WHEN m.to_seq IS NULL THEN u.to_seq
            ELSE min(u.to_seq, m.to_seq) END AS to_seq,
       min(c.head, coalesce(u.to_seq, c.head), coalesce(m.to_seq, c.head)) AS head,
       c.head AS log_head, c.revision, c.generation, c.epoch, c.low, c.high
FROM cursors u
JOIN devices d ON d.id = u.device AND NOT d.revoked
JOIN members m ON m.conversation = u.conversation AND m.account = u.account
JOIN conversations c ON c.id = u.conversation
WHERE (u.to_seq IS NULL OR u.to_seq >= max(u.join_seq, m.from_seq))
  AND (m.to_seq IS NULL OR m.to_seq >= max(u.join_seq, m.from_seq));

-- Who may be in a conversation now.
CREATE VIEW admissible AS
SELECT m.conversation, d.id AS device, m.account, m.role, m.barred
FROM members m
JOIN devices d ON d.account = m.account AND NOT d.revoked
WHERE m.to_seq IS NULL;
