-- Files, and what retention needs. The same tables as in Postgres, where each is explained at more length.

CREATE TABLE blobs (
    conversation BLOB NOT NULL,
    blob BLOB NOT NULL,
    account BLOB NOT NULL,
    device BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    parts INTEGER NOT NULL,
    outside INTEGER NOT NULL,
    state INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    head INTEGER,
    CONSTRAINT blobs_pkey PRIMARY KEY (conversation, blob),
    CONSTRAINT blobs_blob CHECK (length(blob) = 16),
    CONSTRAINT blobs_state CHECK (state IN (1, 2, 3)),
    CONSTRAINT blobs_head CHECK (state <> 2 OR head IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_account_idx ON blobs (account);
CREATE INDEX blobs_state_idx ON blobs (state, at_ms);

CREATE TABLE blob_parts (
    conversation BLOB NOT NULL,
    blob BLOB NOT NULL,
    part INTEGER NOT NULL,
    hash BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    -- Last, so that the columns before it are read without its pages.
    bytes BLOB,
    CONSTRAINT blob_parts_pkey PRIMARY KEY (conversation, blob, part),
    CONSTRAINT blob_parts_hash CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE blob_tokens (
    token_hash BLOB NOT NULL,
    conversation BLOB NOT NULL,
    blob BLOB NOT NULL,
    device BLOB NOT NULL,
    puts INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    CONSTRAINT blob_tokens_pkey PRIMARY KEY (token_hash),
    CONSTRAINT blob_tokens_hash CHECK (length(token_hash) = 32)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_tokens_expires_idx ON blob_tokens (expires_at_ms);

ALTER TABLE quotas ADD COLUMN blob_bytes INTEGER;

CREATE TABLE device_seen (
    device BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    CONSTRAINT device_seen_pkey PRIMARY KEY (device)
) STRICT, WITHOUT ROWID;
INSERT INTO device_seen SELECT id, unixepoch() * 1000 FROM devices;

CREATE TABLE leases (
    name TEXT NOT NULL,
    holder BLOB NOT NULL,
    until_ms INTEGER NOT NULL,
    CONSTRAINT leases_pkey PRIMARY KEY (name)
) STRICT, WITHOUT ROWID;
