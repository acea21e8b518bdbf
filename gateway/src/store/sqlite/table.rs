//! Many rows as one parameter of a statement.
//!
//! sqlx runs each connection on a thread of its own. A statement is handed to it and what it found is handed
//! back, and both times one thread wakes another: that takes longer than most statements do. So what comes
//! by the dozen is said in one.

use serde_json::Value;

/// A table for `json_each`: each row an array, with ids as text (`unhex`).
pub(super) fn table(rows: impl IntoIterator<Item = Value>) -> String {
    Value::from_iter(rows).to_string()
}
