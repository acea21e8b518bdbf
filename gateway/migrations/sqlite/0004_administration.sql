-- What an operator does. The same tables as in Postgres, where each is explained at more length.

ALTER TABLE accounts ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
-- Where this store was moved to: it is not served any more.
ALTER TABLE settings ADD COLUMN moved_to TEXT;

CREATE TABLE invites (
    code_hash BLOB NOT NULL,
    note TEXT NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    made_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    revoked INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT invites_pkey PRIMARY KEY (code_hash),
    CONSTRAINT invites_code_hash CHECK (length(code_hash) = 32),
    CONSTRAINT invites_used CHECK (used BETWEEN 0 AND uses)
) STRICT, WITHOUT ROWID;

CREATE TABLE quotas (
    account BLOB NOT NULL,
    devices INTEGER,
    slot_bytes INTEGER,
    sends_per_second INTEGER,
    CONSTRAINT quotas_pkey PRIMARY KEY (account),
    CONSTRAINT quotas_account_fkey FOREIGN KEY (account) REFERENCES accounts (id)
) STRICT, WITHOUT ROWID;

-- Numbers are never used again, although old rows go.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    account BLOB,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_account_idx ON audit (account, number);

CREATE TABLE notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    account BLOB NOT NULL,
    device BLOB,
    kind INTEGER NOT NULL
) STRICT;
