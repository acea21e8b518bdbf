-- What each conversation was when the store came out of a backup. Rows after head are another
-- incarnation's, and so are keys after the epoch: a device that has read further had them from a log
-- that is gone. One row a conversation and restoration, read when a device asks for its conversations.
CREATE TABLE restorations (
    conversation id NOT NULL,
    incarnation bigint NOT NULL,
    head bigint NOT NULL,
    generation bigint NOT NULL,
    epoch bigint NOT NULL,
    CONSTRAINT restorations_pkey PRIMARY KEY (conversation, incarnation)
);
