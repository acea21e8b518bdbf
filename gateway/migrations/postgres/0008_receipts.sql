-- How far accounts have read, when they were last online, and what of it others may learn.
-- It only adds: a gateway of the version before goes on, and tells nothing of this.

ALTER TABLE accounts
    ADD COLUMN shares_delivered boolean NOT NULL DEFAULT true,
    ADD COLUMN shares_last_seen boolean NOT NULL DEFAULT true;

-- How far an account has read: for its own devices, and as far as the others may know (0: not at all).
CREATE TABLE read_positions (
    conversation id NOT NULL,
    account id NOT NULL,
    seq bigint NOT NULL,
    shared_seq bigint NOT NULL,
    CONSTRAINT read_positions_pkey PRIMARY KEY (conversation, account),
    CONSTRAINT read_positions_shared CHECK (shared_seq BETWEEN 0 AND seq)
) WITH (fillfactor = 70);

-- When an account was last connected, if it wants that known; nothing is kept of one that does not.
CREATE TABLE last_seen (
    account id NOT NULL,
    at_ms bigint NOT NULL,
    CONSTRAINT last_seen_pkey PRIMARY KEY (account)
) WITH (fillfactor = 70);
