//! Where reports come from. Both may run at once: Prometheus knows what it scraped, heartbeats keep it
//! fresh, and either goes on while the other is away.

pub mod heartbeats;
pub mod prometheus;
