//! Every metric of the gateway: name, kind, unit, help, labels.

use fastchat_telemetry::{Buckets, Label, Metric, Values};
use metrics::Unit;

/// Why sockets end: those of this program, and the refusals that a client is told.
pub const END_REASONS: &[&str] = &[
    "client_closed",
    "client_left",
    "socket_error",
    "slow_reader",
    "gateway_full",
    "ticket_needed",
    "account_disabled",
    "too_many_opening",
    "no_tls",
    "no_request",
    "no_upgrade",
    "no_randomness",
    "left_opening",
    "transfer",
    "displaced",
    "draining",
    "revoked",
    "timed_out",
    "bad_credentials",
    "bad_challenge",
    "bad_frame",
    "too_large",
    "unexpected",
    "rate_limited",
    "unavailable",
];
/// How devices and guests prove themselves.
const PROOFS: &[&str] = &["Register", "Login", "Resume", "Link", "Recover", "other"];
/// Requests that take about the same path.
pub const CLASSES: &[&str] =
    &["send", "log", "group", "directory", "account", "people", "blob", "guest", "other"];
/// What may be lost.
const HINTS: &[&str] = &["receipt", "typing", "group", "presence"];
const PUBLISHED_HINTS: &[&str] = &["receipt", "typing", "presence"];
const RECORDS: &[&str] = &[
    "Row",
    "Mailbox",
    "Connected",
    "Revoked",
    "Joined",
    "PresenceAsked",
    "PresenceTold",
    "Visible",
    "Receipt",
    "Typing",
    "unreadable",
];

const BLOB_RESULTS: &[&str] = &[
    "ok",
    "no_token",
    "forbidden",
    "not_found",
    "too_slow",
    "conflict",
    "lost",
    "too_large",
    "rate_limited",
    "unavailable",
    "other",
];
const BLOB_OPERATIONS: Label = Label::these("operation", &["put", "get", "remove", "list"]);

const CODES: Values = Values::Within("ok, or a code of the protocol");
const CODE: Label = Label { name: "result", values: CODES };

/// What the gateway measures; `process_*` and `fastchat_runtime_*` come with every program.
pub const CATALOGUE: &[Metric] = &[
    // Connections
    Metric::gauge("fastchat_connections", "Connections of devices with a session."),
    Metric::gauge(
        "fastchat_sockets",
        "Sockets, by state: opening (no session yet), session (a device), guest (linking or recovering).",
    )
    .by(&[Label::these("state", &["opening", "session", "guest"])]),
    Metric::counter("fastchat_connections_accepted_total", "Sockets accepted."),
    Metric::counter(
        "fastchat_connections_ended_total",
        "Sockets ended, by reason: this program's, or the code that the client was told.",
    )
    .by(&[Label::these("reason", END_REASONS)]),
    Metric::counter("fastchat_sessions_total", "Proofs of identity, by kind and result.")
        .by(&[Label::these("kind", PROOFS), CODE]),
    Metric::seconds(
        "fastchat_authentication_seconds",
        "From a proof's arrival to its outcome, by kind; passwords take a tenth of a second on purpose.",
    )
    .by(&[Label::these("kind", PROOFS)]),
    Metric::counter("fastchat_socket_bytes_total", "Bytes of frames read from and written to clients.")
        .in_unit(Unit::Bytes)
        .by(&[Label::these("direction", &["in", "out"])]),
    Metric::counter("fastchat_socket_frames_total", "Frames read from and written to clients.")
        .by(&[Label::these("direction", &["in", "out"])]),
    Metric::counter(
        "fastchat_tickets_total",
        "Tickets of balancers that clients showed or did not, by result.",
    )
    .by(&[Label::these(
        "result",
        &["good", "missing", "used", "malformed", "signature", "other_gateway", "expired", "too_long"],
    )])
    .only_when("balancer_key is set"),
    Metric::counter("fastchat_shed_requests_total", "Requests of balancers to move sessions, by result.")
        .by(&[Label::these("result", &["taken", "busy", "malformed"])])
        .only_when("a balancer moves sessions"),
    Metric::counter(
        "fastchat_moves_total",
        "Sessions that balancers wanted moved: told, gone before their turn, or why not (nobody: too few \
         sessions may be asked).",
    )
    .by(&[Label::these("result", &["told", "gone", "nobody", "itself", "bad_url", "unsigned"])])
    .only_when("a balancer moves sessions"),
    // Requests
    Metric::counter("fastchat_requests_total", "Requests of clients, by frame and result.")
        .by(&[Label::within("frame", "a frame of the protocol, or unknown"), CODE]),
    Metric::seconds("fastchat_request_seconds", "From a request's arrival to its answer, by class of frame.")
        .by(&[Label::these("class", CLASSES)]),
    Metric::counter(
        "fastchat_duplicates_total",
        "Messages sent again that were stored before; each is a retry.",
    )
    .only_when("an answer was lost on its way to the sender"),
    // Delivery
    Metric::seconds(
        "fastchat_delivery_stage_seconds",
        "One message: commit (accepted to committed), publish (committed to queued for readers and bus), \
         bus (queued for the bus to taken by its client), socket (a live copy queued to written).",
    )
    .by(&[Label::these("stage", &["commit", "publish", "bus", "socket"])]),
    Metric::counter(
        "fastchat_deliveries_total",
        "Live copies for connections: queued, or dropped because the reader is slow.",
    )
    .by(&[Label::these("result", &["queued", "dropped"])]),
    Metric::sizes("fastchat_fanout_size", "Connections here that one row was for."),
    Metric::sizes(
        "fastchat_pending_size",
        "Rows that lay after a device's cursors when it asked for its conversations, by page.",
    ),
    Metric::seconds(
        "fastchat_pending_age_seconds",
        "Age of the oldest row of a page that a device fetched from the log.",
    ),
    Metric::counter("fastchat_resyncs_total", "Connections told to compare their heads, by reason.")
        .by(&[Label::these("reason", &["bus", "slow_consumer", "lagging"])])
        .only_when("the bus was away or too fast, or a reader is slow"),
    Metric::gauge(
        "fastchat_connections_lagging",
        "Connections that lost live copies and have not caught up.",
    ),
    Metric::gauge("fastchat_connection_queue_depth", "Frames that wait to be written, over all connections."),
    Metric::gauge("fastchat_connection_queue_bytes", "Bytes that wait to be written, over all connections.")
        .in_unit(Unit::Bytes),
    Metric::gauge(
        "fastchat_connection_queue_longest",
        "Frames that wait for the connection with most of them.",
    ),
    // Head checks and cursors
    Metric::counter("fastchat_head_checks_total", "Head checks, by result.")
        .by(&[Label::these("result", &["ok", "failed"])]),
    Metric::seconds("fastchat_head_check_seconds", "One head check: the question to the store."),
    Metric::counter(
        "fastchat_head_check_repairs_total",
        "Connections that a head check told about a row that no live copy brought.",
    )
    .only_when("the bus lost a record"),
    Metric::counter("fastchat_cursor_flushes_total", "Batches of cursors given to the store, by result.")
        .by(&[Label::these("result", &["ok", "failed"])]),
    Metric::counter("fastchat_cursors_stored_total", "Cursors that the store took."),
    Metric::gauge("fastchat_cursors_waiting", "Devices whose cursors wait for the store."),
    // Bus
    Metric::gauge("fastchat_bus_up", "1 while the bus carries records."),
    Metric::counter("fastchat_bus_down_total", "Times that the bus went away.")
        .only_when("the bus goes away"),
    Metric::counter("fastchat_bus_connects_total", "Times that the bus' client connected; the first is one.")
        .only_when("the bus is NATS"),
    Metric::counter("fastchat_bus_errors_total", "What the bus' client said went wrong, by who said so.")
        .by(&[Label::these("from", &["server", "client"])])
        .only_when("the bus refuses something or is not reached"),
    Metric::counter("fastchat_bus_published_total", "Records given to the bus."),
    Metric::counter("fastchat_bus_records_total", "Records that other gateways published, by kind.")
        .by(&[Label::these("kind", RECORDS)]),
    Metric::counter("fastchat_bus_dropped_total", "Records that were lost, by reason.")
        .by(&[Label::these("reason", &["down", "full", "refused", "slow_consumer"])])
        .only_when("the bus is away, or somebody is too slow"),
    Metric::counter("fastchat_bus_bytes_total", "Bytes between this gateway and NATS.")
        .in_unit(Unit::Bytes)
        .by(&[Label::these("direction", &["in", "out"])]),
    Metric::counter("fastchat_bus_messages_total", "Messages between this gateway and NATS.")
        .by(&[Label::these("direction", &["in", "out"])]),
    Metric::gauge("fastchat_bus_subscriptions", "Subjects that this gateway hears: accounts and groups."),
    Metric::gauge("fastchat_bus_publish_queue_depth", "Records that wait to be published."),
    Metric::gauge("fastchat_bus_event_queue_depth", "Records from the bus that wait for this gateway."),
    Metric::seconds("fastchat_bus_barrier_seconds", "A round trip to the bus, made for new subscriptions."),
    // Writer
    Metric::sizes("fastchat_writer_batch_size", "Envelopes committed together."),
    Metric::seconds("fastchat_writer_commit_seconds", "One batch, from the store's call to its answer."),
    Metric::gauge("fastchat_writer_queue_depth", "Envelopes that wait for the writer."),
    Metric::counter("fastchat_writer_refused_total", "Envelopes that found no room in the writer's queue.")
        .only_when("the store is slower than the senders"),
    Metric::counter("fastchat_writer_split_total", "Batches that were tried again item by item.")
        .only_when("one envelope spoils a batch"),
    // Groups
    Metric::gauge("fastchat_groups", "Groups with a reader here, each a subscription."),
    Metric::counter(
        "fastchat_group_reloads_total",
        "Times that a group's readers were asked for, by result.",
    )
    .by(&[Label::these("result", &["ok", "failed"])]),
    Metric::counter(
        "fastchat_group_rows_held_total",
        "Rows of groups that waited for that (held), or did not fit (overflow).",
    )
    .by(&[Label::these("result", &["held", "overflow"])]),
    Metric::counter(
        "fastchat_group_out_of_range_total",
        "Live copies that were not given to a connection because it may not read the row.",
    )
    .only_when("somebody who was taken out, or is not in yet, is connected"),
    Metric::counter(
        "fastchat_presence_questions_total",
        "Accounts of which somebody asked whether they are online.",
    ),
    // What may be lost: receipts, typing, presence
    Metric::counter(
        "fastchat_hints_total",
        "Receipts, notes of typing and of presence queued for connections here, by kind; group: receipts and \
         typing of groups.",
    )
    .by(&[Label::these("kind", HINTS)]),
    Metric::counter("fastchat_hints_published_total", "The same, given to the bus; questions too.")
        .by(&[Label::these("kind", PUBLISHED_HINTS)]),
    Metric::counter(
        "fastchat_hints_dropped_total",
        "The same, dropped: too often, for nobody, because a reader or the bus is busy, or while a group's \
         readers were asked for.",
    )
    .by(&[
        Label::these("kind", HINTS),
        Label::these("reason", &["too_often", "nobody", "slow_reader", "bus_busy", "held"]),
    ])
    .only_when("somebody types too often, or a reader or the bus is busy"),
    Metric::counter("fastchat_read_marks_total", "Read positions of accounts, by result.")
        .by(&[Label::these("result", &["stored", "refused", "failed"])])
        .only_when("somebody reads"),
    Metric::counter("fastchat_last_seen_total", "Accounts of which the store noted that they were online.")
        .only_when("somebody has left, or stayed for five minutes"),
    Metric::gauge("fastchat_presence_watched", "Accounts that connections here watch."),
    Metric::gauge("fastchat_presence_leases", "Accounts here that connections elsewhere watch."),
    Metric::counter(
        "fastchat_presence_refused_total",
        "Accounts that are not watched, by the limit in the way.",
    )
    .by(&[Label::these("limit", &["watched", "watchers"])])
    .only_when("somebody watches very many, or is watched by very many"),
    // Files and retention
    Metric::counter(
        "fastchat_blob_requests_total",
        "Parts of files that were put (in) or asked for (out), by result.",
    )
    .by(&[Label::these("direction", &["in", "out"]), Label::these("result", BLOB_RESULTS)])
    .only_when("somebody puts or fetches a file"),
    Metric::counter("fastchat_blob_bytes_total", "Bytes of parts of files that came or went.")
        .in_unit(Unit::Bytes)
        .by(&[Label::these("direction", &["in", "out"])])
        .only_when("somebody puts or fetches a file"),
    Metric::gauge("fastchat_blobs", "Files that the store knows, by state; every gateway says the same.")
        .by(&[Label::these("state", &["complete", "open", "doomed"])]),
    Metric::gauge("fastchat_blob_stored_bytes", "Bytes of complete files; every gateway says the same.")
        .in_unit(Unit::Bytes),
    Metric::gauge("fastchat_blob_transfers", "Connections here that transfer files."),
    Metric::seconds("fastchat_blob_storage_seconds", "One operation of object storage, with retries.")
        .by(&[BLOB_OPERATIONS])
        .only_when("files are in object storage"),
    Metric::counter(
        "fastchat_blob_storage_failures_total",
        "Operations of object storage that failed; lost: the store knows a part, and its object is gone or \
         altered.",
    )
    .by(&[
        BLOB_OPERATIONS,
        Label::these("reason", &["unavailable", "denied", "late", "lost", "store"]),
    ])
    .only_when("object storage fails"),
    Metric::counter(
        "fastchat_swept_total",
        "What was past its time and is gone: files, tokens of transfers, rows of logs; strays are objects that no \
         row knew.",
    )
    .by(&[Label::these("what", &["blobs", "strays", "tokens", "rows"])])
    .only_when("something is past its time"),
    // Store
    Metric::gauge("fastchat_store_up", "1 while the store answers."),
    Metric::seconds("fastchat_store_ping_seconds", "The smallest question to the store, every few seconds."),
    Metric::seconds("fastchat_store_call_seconds", "One call of the store, with its commit, by kind.")
        .by(&[Label::these("kind", &["read", "write", "transaction"])]),
    Metric::seconds("fastchat_store_wait_seconds", "What a call waits for a connection of the pool."),
    Metric::counter(
        "fastchat_store_errors_total",
        "Calls of the store without an outcome; unknown: perhaps committed.",
    )
    .by(&[Label::these("kind", &["unavailable", "unknown", "corrupt", "schema"])])
    .only_when("the store fails"),
    Metric::gauge("fastchat_store_connections", "Connections to the store but the writer's own, by state.")
        .by(&[Label::these("state", &["used", "idle"])]),
    Metric::gauge("fastchat_store_connections_limit", "Connections to the store at most, but for the writer's own."),
    // The gateway itself
    Metric::gauge("fastchat_gateway_info", "1; the labels say who this gateway is and what runs.").by(&[
        Label::within("gateway", "one a process, drawn at random"),
        Label::within("url", "one a process: public_url"),
        Label::within("version", "one a process"),
    ]),
    Metric::gauge("fastchat_connections_limit", "Connections that the gateway takes at most."),
    Metric::gauge(
        "fastchat_cpu_ratio",
        "Share of the machine's processors in use, 0 to 1: by all, or by this process (load_scope).",
    ),
    Metric::gauge("fastchat_draining", "1 while the gateway sends its clients away."),
    Metric::gauge("fastchat_ready", "1 while the gateway takes new connections."),
];

/// Bounds of histograms.
pub const BUCKETS: &[Buckets] = &[
    // By factors of about 1.5 to 2 around what is usual: commits and answers of 0.1 ms to 10 s.
    Buckets {
        of: "_seconds",
        bounds: &[
            0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0,
            2.5, 5.0, 10.0,
        ],
    },
    // From a moment to the longest retention: what lies in the log for a device that was away.
    Buckets {
        of: "fastchat_pending_age_seconds",
        bounds: &[
            0.1,
            0.5,
            1.0,
            5.0,
            15.0,
            60.0,
            300.0,
            900.0,
            3_600.0,
            14_400.0,
            86_400.0,
            604_800.0,
            2_592_000.0,
            7_776_000.0,
        ],
    },
    Buckets {
        of: "_size",
        bounds: &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 8_192.0],
    },
];
