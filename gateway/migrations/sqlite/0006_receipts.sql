-- How far accounts have read, when they were last online, and what of it others may learn. The same
-- tables as in Postgres, where each is explained at more length.

ALTER TABLE accounts ADD COLUMN shares_delivered INTEGER NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN shares_last_seen INTEGER NOT NULL DEFAULT 1;

-- How far an account has read.
CREATE TABLE read_positions (
    conversation BLOB NOT NULL,
    account BLOB NOT NULL,
    seq INTEGER NOT NULL,
    shared_seq INTEGER NOT NULL,
    CONSTRAINT read_positions_pkey PRIMARY KEY (conversation, account),
    CONSTRAINT read_positions_shared CHECK (shared_seq BETWEEN 0 AND seq)
) STRICT, WITHOUT ROWID;

-- When an account was last connected, if it wants that known.
CREATE TABLE last_seen (
    account BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    CONSTRAINT last_seen_pkey PRIMARY KEY (account)
) STRICT, WITHOUT ROWID;
