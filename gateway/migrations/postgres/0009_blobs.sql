-- Files: sealed blobs beside conversations, and what retention needs. It only adds: a gateway of the
-- version before goes on.

-- A blob, from its beginning on: sizes are what the device said, and count against the account's quota
-- until the blob is doomed. The row goes last, when nothing of the bytes is left.
CREATE TABLE blobs (
    conversation id NOT NULL,
    blob id NOT NULL,
    -- Who put it.
    account id NOT NULL,
    device id NOT NULL,
    size_bytes bigint NOT NULL,
    parts bigint NOT NULL,
    -- The bytes are in object storage; otherwise with the parts.
    outside boolean NOT NULL,
    -- 1 open, 2 complete, 3 doomed (the sweep removes it).
    state bigint NOT NULL,
    -- Since when it is in this state; an open one, since it was begun last.
    at_ms bigint NOT NULL,
    -- The conversation's head when it was finished: who was out by then may not have it.
    head bigint,
    CONSTRAINT blobs_pkey PRIMARY KEY (conversation, blob),
    CONSTRAINT blobs_state CHECK (state IN (1, 2, 3)),
    CONSTRAINT blobs_head CHECK (state <> 2 OR head IS NOT NULL)
);
CREATE INDEX blobs_account_idx ON blobs (account);
CREATE INDEX blobs_state_idx ON blobs (state, at_ms);

-- Parts that are there. The hash is SHA-256 of the sealed bytes: the same part again is known by it.
CREATE TABLE blob_parts (
    conversation id NOT NULL,
    blob id NOT NULL,
    part bigint NOT NULL,
    hash bytea NOT NULL,
    size_bytes bigint NOT NULL,
    -- Null: in object storage.
    bytes bytea,
    CONSTRAINT blob_parts_pkey PRIMARY KEY (conversation, blob, part),
    CONSTRAINT blob_parts_hash CHECK (octet_length(hash) = 32)
);
-- Ciphertext does not compress.
ALTER TABLE blob_parts ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- What opens a transfer: SHA-256 of a token that is good for one device, blob and direction.
CREATE TABLE blob_tokens (
    token_hash bytea NOT NULL,
    conversation id NOT NULL,
    blob id NOT NULL,
    device id NOT NULL,
    -- To put parts; otherwise to fetch them.
    puts boolean NOT NULL,
    expires_at_ms bigint NOT NULL,
    CONSTRAINT blob_tokens_pkey PRIMARY KEY (token_hash),
    CONSTRAINT blob_tokens_hash CHECK (octet_length(token_hash) = 32)
);
CREATE INDEX blob_tokens_expires_idx ON blob_tokens (expires_at_ms);

ALTER TABLE quotas ADD COLUMN blob_bytes bigint;

-- When a device was last connected, to the day: retention waits for a device no longer than 90 days.
CREATE TABLE device_seen (
    device id NOT NULL,
    at_ms bigint NOT NULL,
    CONSTRAINT device_seen_pkey PRIMARY KEY (device)
);
INSERT INTO device_seen SELECT id, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM devices;

-- Work that one gateway does for all, and which one until when.
CREATE TABLE leases (
    name text NOT NULL,
    holder id NOT NULL,
    until_ms bigint NOT NULL,
    CONSTRAINT leases_pkey PRIMARY KEY (name)
);
