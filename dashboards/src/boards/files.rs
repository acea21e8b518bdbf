//! Files: what goes up and down, what is refused, where the bytes are, what the sweep removes.

use crate::{Dashboard, Panel, Row, Unit};

pub(super) fn board() -> Dashboard {
    Dashboard {
        uid: "fastchat-files",
        title: "FastChat / Files",
        description: "Parts of files, the storage of their bytes, quotas and the sweep, as gateways see them.",
        of: "fastchat_connections",
        rows: vec![
            Row { title: "Transfers", panels: transfers() },
            Row { title: "What is kept", panels: kept() },
            Row { title: "Object storage", panels: storage() },
        ],
    }
}

fn transfers() -> Vec<Panel> {
    vec![
        Panel::lines("Parts", Unit::PerSecond, "Put (in) and fetched (out), 256 KiB each at most.")
            .ask("sum by (direction) (rate(fastchat_blob_requests_total{@,result=\"ok\"}[@]))", "{{direction}}"),
        Panel::lines("Bytes", Unit::BytesPerSecond, "Of parts that came and went.")
            .ask("sum by (direction) (rate(fastchat_blob_bytes_total{@}[@]))", "{{direction}}"),
        Panel::lines("Parts that were refused", Unit::PerSecond, "unavailable is an outage of the store or of object storage, lost a part whose object is gone, too_slow a bad network.")
            .ask("sum by (result) (rate(fastchat_blob_requests_total{@,result!=\"ok\"}[@]))", "{{result}}"),
        Panel::lines("Connections that transfer", Unit::Count, "Each gateway has 256 places; beyond, clients are told to come again.")
            .ask("sum by (instance) (fastchat_blob_transfers{@})", "{{instance}}")
            .warn(200.0, 256.0),
    ]
}

fn kept() -> Vec<Panel> {
    vec![
        Panel::lines("Files", Unit::Count, "By state. Many open ones are uploads that nobody finishes; doomed ones wait for the sweep, and grow while object storage is away.")
            .ask("max by (state) (fastchat_blobs{@})", "{{state}}"),
        Panel::lines("Bytes of complete files", Unit::Bytes, "Wherever they are.")
            .ask("max(fastchat_blob_stored_bytes{@})", "bytes"),
        Panel::lines("Files that were not begun", Unit::PerSecond, "The account's quota is full, or the file is larger than the deployment takes.")
            .ask("sum by (result) (rate(fastchat_requests_total{@,frame=\"BeginBlob\",result=~\"quota_full|too_large\"}[@])) or sum(rate(fastchat_requests_total{@}[@])) * 0", "{{result}}"),
        Panel::lines("Swept", Unit::PerSecond, "What was past its time. strays are objects that no row knew: after a crash or a restored backup, and else none.")
            .ask("sum by (what) (rate(fastchat_swept_total{@}[@]))", "{{what}}"),
    ]
}

fn storage() -> Vec<Panel> {
    vec![
        Panel::lines("Operations", Unit::PerSecond, "Of a folder or of S3; none where files are in the store.")
            .ask("sum by (operation) (rate(fastchat_blob_storage_seconds_count{@}[@]))", "{{operation}}"),
        Panel::lines("Time of an operation, mean", Unit::Seconds, "With retries. At 20 s it is given up, and the client told to come again.")
            .ask("sum by (operation) (rate(fastchat_blob_storage_seconds_sum{@}[@])) / clamp_min(sum by (operation) (rate(fastchat_blob_storage_seconds_count{@}[@])), 0.001)", "{{operation}}")
            .warn(1.0, 8.0),
        Panel::lines("Operations that failed", Unit::PerSecond, "denied is the keys, late and unavailable the server or the network; lost is for ever: restore the object, or the file cannot be fetched.")
            .ask("sum by (operation, reason) (rate(fastchat_blob_storage_failures_total{@}[@]))", "{{operation}} {{reason}}"),
    ]
}
