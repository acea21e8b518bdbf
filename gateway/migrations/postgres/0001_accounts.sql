-- Accounts, their devices and what the directory holds for them.
-- Ids are 16 random bytes, as everywhere: bytea compares as the program does.

CREATE DOMAIN id AS bytea CONSTRAINT id_length CHECK (octet_length(VALUE) = 16);

-- What holds for the whole store. One row.
CREATE TABLE settings (
    one boolean NOT NULL DEFAULT true,
    -- Raised whenever a backup was restored: (incarnation, seq) is the identity of a row.
    incarnation bigint NOT NULL DEFAULT 1,
    CONSTRAINT settings_pkey PRIMARY KEY (one),
    CONSTRAINT settings_one CHECK (one),
    CONSTRAINT settings_incarnation CHECK (incarnation BETWEEN 1 AND 4294967295)
);
INSERT INTO settings DEFAULT VALUES;

-- People. The name is what others type; the hash is bcrypt of what the client derived.
CREATE TABLE accounts (
    id id NOT NULL,
    name text NOT NULL,
    password_hash text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_name_key UNIQUE (name)
);

-- Signed device lists, every version; the highest is in force.
CREATE TABLE manifests (
    account id NOT NULL,
    version bigint NOT NULL,
    bytes bytea NOT NULL,
    CONSTRAINT manifests_pkey PRIMARY KEY (account, version),
    CONSTRAINT manifests_account_fkey FOREIGN KEY (account) REFERENCES accounts,
    CONSTRAINT manifests_version CHECK (version >= 1)
);

-- Installations with keys of their own. Neither owner nor key ever changes, and revoked is for ever.
CREATE TABLE devices (
    id id NOT NULL,
    account id NOT NULL,
    key bytea NOT NULL,
    revoked boolean NOT NULL DEFAULT false,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_account_fkey FOREIGN KEY (account) REFERENCES accounts,
    CONSTRAINT devices_key CHECK (octet_length(key) = 32)
);
CREATE INDEX devices_account_idx ON devices (account);

-- One-time key packages; a claim deletes the row, so none is given out twice.
CREATE TABLE key_packages (
    device id NOT NULL,
    suite integer NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    package bytea NOT NULL,
    CONSTRAINT key_packages_pkey PRIMARY KEY (device, suite, number),
    CONSTRAINT key_packages_device_fkey FOREIGN KEY (device) REFERENCES devices
);

-- What is given out when the one-time packages are used up.
CREATE TABLE last_resort_packages (
    device id NOT NULL,
    suite integer NOT NULL,
    package bytea NOT NULL,
    CONSTRAINT last_resort_packages_pkey PRIMARY KEY (device, suite),
    CONSTRAINT last_resort_packages_device_fkey FOREIGN KEY (device) REFERENCES devices
);
