-- Groups, blocks, deletion, recovery and slots. It only adds: a gateway of the version before goes on.

-- Whether others may learn that the account is online; and whether it is gone for good. The row of a
-- deleted account keeps its name taken.
ALTER TABLE accounts
    ADD COLUMN visible boolean NOT NULL DEFAULT true,
    ADD COLUMN deleted boolean NOT NULL DEFAULT false;

-- role is now 1 member, 2 admin, 3 owner (of groups; 1 in a direct conversation).
ALTER TABLE members
    -- The other party of the direct conversation has blocked this account: it may not append. Here, so
    -- that an append reads it with the row that it reads anyway.
    ADD COLUMN barred boolean NOT NULL DEFAULT false,
    -- Out by its own statement (or deleted), and no commit has removed its leaves yet.
    ADD COLUMN lingers boolean NOT NULL DEFAULT false;
CREATE INDEX members_account_idx ON members (account, conversation);

-- Who has blocked whom.
CREATE TABLE blocks (
    account id NOT NULL,
    blocked id NOT NULL,
    CONSTRAINT blocks_pkey PRIMARY KEY (account, blocked),
    CONSTRAINT blocks_account_fkey FOREIGN KEY (account) REFERENCES accounts,
    CONSTRAINT blocks_blocked_fkey FOREIGN KEY (blocked) REFERENCES accounts,
    CONSTRAINT blocks_other CHECK (account <> blocked)
);

-- Remembers the founding of a group longer than the log's first row lives, as direct_pairs does.
CREATE TABLE group_foundings (
    conversation id NOT NULL,
    founder id NOT NULL,
    group_info_hash bytea NOT NULL,
    at_ms bigint NOT NULL,
    CONSTRAINT group_foundings_pkey PRIMARY KEY (conversation)
);

-- What a recovery code opens, and the hash of the key that proves the code.
CREATE TABLE recoveries (
    account id NOT NULL,
    key_hash bytea NOT NULL,
    sealed bytea NOT NULL,
    CONSTRAINT recoveries_pkey PRIMARY KEY (account),
    CONSTRAINT recoveries_account_fkey FOREIGN KEY (account) REFERENCES accounts,
    CONSTRAINT recoveries_key_hash CHECK (octet_length(key_hash) = 32)
);

-- Sealed parts that one device of an account leaves for another, until they expire.
CREATE TABLE slots (
    account id NOT NULL,
    slot id NOT NULL,
    part bigint NOT NULL,
    -- Milliseconds since 1970.
    expires_at_ms bigint NOT NULL,
    bytes bytea NOT NULL,
    CONSTRAINT slots_pkey PRIMARY KEY (account, slot, part),
    CONSTRAINT slots_account_fkey FOREIGN KEY (account) REFERENCES accounts
);
CREATE INDEX slots_expires_idx ON slots (expires_at_ms);
ALTER TABLE slots ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Who may read which rows: still the only place that says so. A device reads from the row that let it
-- in, or its account (an account that was added again starts there anew), to the row that put one of
-- them out, or to the head. A revoked device reads nothing, and so does one whose range is empty: its
-- account went and came again without it.
CREATE OR REPLACE VIEW readable AS
SELECT u.conversation, u.device, u.account,
       greatest(u.join_seq, m.from_seq) AS join_seq, greatest(u.cursor, m.from_seq) AS cursor,
       least(u.to_seq, m.to_seq) AS to_seq,
       least(c.head, u.to_seq, m.to_seq) AS head,
       c.head AS log_head, c.revision, c.generation, c.epoch, c.low, c.high
FROM cursors u
JOIN devices d ON d.id = u.device AND NOT d.revoked
JOIN members m ON m.conversation = u.conversation AND m.account = u.account
JOIN conversations c ON c.id = u.conversation
WHERE coalesce(least(u.to_seq, m.to_seq) >= greatest(u.join_seq, m.from_seq), true);

-- Who may be in a conversation now: devices that are not revoked, of accounts that are members. Those
-- that are not in yet may look at the public state and let themselves in.
CREATE VIEW admissible AS
SELECT m.conversation, d.id AS device, m.account, m.role, m.barred
FROM members m
JOIN devices d ON d.account = m.account AND NOT d.revoked
WHERE m.to_seq IS NULL;
