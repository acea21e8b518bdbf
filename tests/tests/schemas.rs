//! The schemas of docs/schemas: as the types say, refusing what is wrong, and what the program prints.
//!
//! Every story checks what `fastchat` writes for programs (tests/src/process.rs); here are those that go
//! through all of it. The dashboards' schema is checked by the same code.

#[path = "schemas/commands.rs"]
mod commands;
#[path = "schemas/dashboards.rs"]
mod dashboards;
#[path = "schemas/refused.rs"]
mod refused;
#[path = "schemas/rpc.rs"]
mod rpc;
#[path = "schemas/samples.rs"]
mod samples;
#[path = "schemas/types.rs"]
mod types;
