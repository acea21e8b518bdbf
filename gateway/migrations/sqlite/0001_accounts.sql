-- Accounts, their devices and what the directory holds for them. The same tables as in Postgres,
-- where each is explained at more length.

-- What holds for the whole store. One row.
CREATE TABLE settings (
    one INTEGER NOT NULL DEFAULT 1,
    incarnation INTEGER NOT NULL DEFAULT 1,
    -- Raised by each transaction that grows a log or a mailbox, and written to its rows as tx.
    change INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT settings_pkey PRIMARY KEY (one),
    CONSTRAINT settings_one CHECK (one = 1),
    CONSTRAINT settings_incarnation CHECK (incarnation BETWEEN 1 AND 4294967295)
) STRICT;
INSERT INTO settings DEFAULT VALUES;

-- People.
CREATE TABLE accounts (
    id BLOB NOT NULL,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    made_at INTEGER NOT NULL DEFAULT (unixepoch()),
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_name_key UNIQUE (name),
    CONSTRAINT accounts_id CHECK (length(id) = 16)
) STRICT;

-- Signed device lists, every version; the highest is in force.
CREATE TABLE manifests (
    account BLOB NOT NULL,
    version INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    CONSTRAINT manifests_pkey PRIMARY KEY (account, version),
    CONSTRAINT manifests_account_fkey FOREIGN KEY (account) REFERENCES accounts (id),
    CONSTRAINT manifests_version CHECK (version >= 1)
) STRICT;

-- Installations with keys of their own. Neither owner nor key ever changes, and revoked is for ever.
CREATE TABLE devices (
    id BLOB NOT NULL,
    account BLOB NOT NULL,
    key BLOB NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_account_fkey FOREIGN KEY (account) REFERENCES accounts (id),
    CONSTRAINT devices_id CHECK (length(id) = 16),
    CONSTRAINT devices_key CHECK (length(key) = 32)
) STRICT;
CREATE INDEX devices_account_idx ON devices (account);

-- One-time key packages; a claim deletes the row, so none is given out twice.
CREATE TABLE key_packages (
    number INTEGER NOT NULL,
    device BLOB NOT NULL,
    suite INTEGER NOT NULL,
    package BLOB NOT NULL,
    CONSTRAINT key_packages_pkey PRIMARY KEY (number),
    CONSTRAINT key_packages_device_fkey FOREIGN KEY (device) REFERENCES devices (id)
) STRICT;
CREATE INDEX key_packages_device_idx ON key_packages (device, suite);

-- What is given out when the one-time packages are used up.
CREATE TABLE last_resort_packages (
    device BLOB NOT NULL,
    suite INTEGER NOT NULL,
    package BLOB NOT NULL,
    CONSTRAINT last_resort_packages_pkey PRIMARY KEY (device, suite),
    CONSTRAINT last_resort_packages_device_fkey FOREIGN KEY (device) REFERENCES devices (id)
) STRICT;
