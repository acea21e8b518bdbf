//! What is moved: every table that both schemas have. A test compares this list with the schemas.

/// What a column holds, whatever each database calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes; ids too.
    Blob,
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// Yes or no: an integer in SQLite.
    Flag,
    /// Seconds since 1970: a timestamp in Postgres.
    Time,
}

/// A table that both have.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [(&'static str, Kind)],
    /// Columns that each store numbers by itself, and by which rows are in the same order in both; the
    /// key of the others. Never text: the databases sort it differently.
    pub order: &'static str,
    /// Columns that get a constant.
    pub fixed: &'static [(&'static str, &'static str)],
}

/// Not moved: one row, of which the incarnation is; and what lasts for minutes.
pub const LEFT_OUT: [&str; 4] = ["settings", "notices", "blob_tokens", "leases"];

use Kind::{Blob, Flag, Int, Text, Time};

const NO_TX: &[(&str, &str)] = &[("tx", "0")];

macro_rules! table {
    ($name:literal, [$($column:literal $kind:ident),+], by $order:literal $(, fixed $fixed:expr)?) => {
        Table { name: $name, columns: &[$(($column, $kind)),+], order: $order, fixed: { let f: &[(&str, &str)] = &[]; $(let _ = f; let f = $fixed;)? f } }
    };
}

/// In the order in which they are copied: what is pointed at comes first.
pub const TABLES: [Table; 27] = [
    table!("accounts", ["id" Blob, "name" Text, "password_hash" Text, "made_at" Time, "visible" Flag, "deleted" Flag, "disabled" Flag, "shares_delivered" Flag, "shares_last_seen" Flag], by "id"),
    table!("manifests", ["account" Blob, "version" Int, "bytes" Blob], by "account, version"),
    table!("devices", ["id" Blob, "account" Blob, "key" Blob, "revoked" Flag], by "id"),
    table!("key_packages", ["device" Blob, "suite" Int, "package" Blob], by "number"),
    table!("last_resort_packages", ["device" Blob, "suite" Int, "package" Blob], by "device, suite"),
    table!("conversations", ["id" Blob, "kind" Int, "low" Blob, "high" Blob, "suite" Int, "generation" Int, "epoch" Int, "fence" Int, "head" Int, "revision" Int], by "id"),
    table!("direct_pairs", ["low" Blob, "high" Blob, "conversation" Blob, "founder" Blob, "at_ms" Int], by "low, high"),
    table!("members", ["conversation" Blob, "account" Blob, "role" Int, "from_seq" Int, "to_seq" Int, "barred" Flag, "lingers" Flag], by "conversation, account"),
    table!("log", ["conversation" Blob, "seq" Int, "sender" Blob, "counter" Int, "kind" Int, "at_ms" Int, "envelope" Blob], by "conversation, seq", fixed NO_TX),
    table!("cursors", ["conversation" Blob, "device" Blob, "account" Blob, "join_seq" Int, "cursor" Int, "to_seq" Int], by "conversation, device"),
    table!("send_counters", ["conversation" Blob, "device" Blob, "high" Int], by "conversation, device"),
    table!("group_states", ["conversation" Blob, "group_info" Blob, "state" Blob, "tree" Blob], by "conversation"),
    table!("mailbox_heads", ["device" Blob, "account" Blob, "head" Int], by "device", fixed NO_TX),
    table!("mailbox", ["device" Blob, "seq" Int, "conversation" Blob, "join_seq" Int, "sender" Blob, "welcome_hash" Blob, "tree_hash" Blob], by "device, seq"),
    table!("welcome_parts", ["conversation" Blob, "hash" Blob, "bytes" Blob], by "conversation, hash"),
    table!("restorations", ["conversation" Blob, "incarnation" Int, "head" Int, "generation" Int, "epoch" Int], by "conversation, incarnation"),
    table!("read_positions", ["conversation" Blob, "account" Blob, "seq" Int, "shared_seq" Int], by "conversation, account"),
    table!("last_seen", ["account" Blob, "at_ms" Int], by "account"),
    table!("blocks", ["account" Blob, "blocked" Blob], by "account, blocked"),
    table!("group_foundings", ["conversation" Blob, "founder" Blob, "group_info_hash" Blob, "at_ms" Int], by "conversation"),
    table!("recoveries", ["account" Blob, "key_hash" Blob, "sealed" Blob], by "account"),
    table!("slots", ["account" Blob, "slot" Blob, "part" Int, "expires_at_ms" Int, "bytes" Blob], by "account, slot, part"),
    table!("invites", ["code_hash" Blob, "note" Text, "uses" Int, "used" Int, "made_at_ms" Int, "expires_at_ms" Int, "revoked" Flag], by "code_hash"),
    table!("quotas", ["account" Blob, "devices" Int, "slot_bytes" Int, "sends_per_second" Int, "blob_bytes" Int], by "account"),
    table!("blobs", ["conversation" Blob, "blob" Blob, "account" Blob, "device" Blob, "size_bytes" Int, "parts" Int, "outside" Flag, "state" Int, "at_ms" Int, "head" Int], by "conversation, blob"),
    table!("blob_parts", ["conversation" Blob, "blob" Blob, "part" Int, "hash" Blob, "size_bytes" Int, "bytes" Blob], by "conversation, blob, part"),
    table!("device_seen", ["device" Blob, "at_ms" Int], by "device"),
];

/// Copied last, and not compared again afterwards: it gets a row about the move itself.
pub const AUDIT: Table =
    table!("audit", ["at_ms" Int, "actor" Text, "act" Text, "account" Blob, "detail" Text], by "number");

impl Table {
    /// The statement that reads it from SQLite, where every kind is stored as it is compared.
    pub(super) fn read_sqlite(&self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|(column, _)| *column).collect();
        format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), self.name, self.order)
    }

    /// The statement that reads the same from Postgres.
    pub(super) fn read_postgres(&self) -> String {
        let read = |(column, kind): &(&str, Kind)| match kind {
            Blob => format!("{column}::bytea"),
            Text => (*column).to_owned(),
            Int => format!("{column}::bigint"),
            Flag => format!("{column}::int::bigint"),
            Time => format!("extract(epoch FROM {column})::bigint"),
        };
        let columns: Vec<_> = self.columns.iter().map(read).collect();
        format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), self.name, self.order)
    }

    /// The statement that adds a batch, given as an array for each column.
    pub(super) fn insert(&self) -> String {
        let (mut names, mut arrays, mut fields, mut values) = (vec![], vec![], vec![], vec![]);
        for (n, (column, kind)) in self.columns.iter().enumerate() {
            let (array, value) = match kind {
                Blob => ("bytea", format!("f{n}")),
                Text => ("text", format!("f{n}")),
                Int => ("bigint", format!("f{n}")),
                Flag => ("bigint", format!("f{n} <> 0")),
                Time => ("bigint", format!("to_timestamp(f{n})")),
            };
            names.push(*column);
            arrays.push(format!("${}::{array}[]", n + 1));
            fields.push(format!("f{n}"));
            values.push(value);
        }
        for (column, constant) in self.fixed {
            names.push(column);
            values.push((*constant).to_owned());
        }
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM unnest({}) WITH ORDINALITY AS u ({}, place) ORDER BY place",
            self.name,
            names.join(", "),
            values.join(", "),
            arrays.join(", "),
            fields.join(", ")
        )
    }
}
