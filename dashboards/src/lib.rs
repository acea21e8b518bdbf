//! Grafana dashboards, said as data and written as JSON.
//!
//! - A [`Panel`] has a title, a description and a unit, or it does not compile.
//! - [`boards`] has one module a dashboard; `fastchat-dashboards write` writes dashboards/*.json, and a
//!   test checks that what is committed is what they say.
//! - [`queries`] gives every query with Grafana's variables filled in: a system test asks a real
//!   Prometheus each of them, and [`draw`] makes pictures of the answers.

pub mod boards;
pub mod draw;
pub mod grafana;
mod panel;
pub mod queries;

pub use panel::{Dashboard, Panel, Query, Row, Unit, View};
