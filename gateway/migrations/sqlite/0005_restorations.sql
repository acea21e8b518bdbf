-- What each conversation was when the store came out of a backup. The same table as in Postgres, where
-- it is explained at more length.
CREATE TABLE restorations (
    conversation BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    head INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    CONSTRAINT restorations_pkey PRIMARY KEY (conversation, incarnation)
) STRICT, WITHOUT ROWID;
