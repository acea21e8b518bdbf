//! How far a file is: on a terminal, or as JSON.

use super::output;
use crate::cli::context::Context;
use fastchat_client::{
    Client,
    api::{ApiError, Event, Request, Response, TransferView},
    client::{Next, Options},
    terminal::clean_line,
};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::task::JoinHandle;

/// Which files are spoken of.
#[derive(Debug, Clone)]
pub(super) enum Of {
    /// The one of this id.
    Id(String),
    /// Those that come in.
    In,
}

impl Of {
    fn fits(&self, view: &TransferView) -> bool {
        match self {
            Self::Id(id) => view.id == *id,
            Self::In => view.direction == "in",
        }
    }
}

/// Asks for a file to be moved, and waits as long as it moves. The request may be repeated.
pub(super) async fn wait(
    context: &Context,
    client: &mut Client,
    request: Request,
    of: Of,
) -> Result<Response, ApiError> {
    let moved = Arc::new(AtomicU64::new(0));
    let teller = tell(client.clone(), of, context.json(), Arc::clone(&moved));
    let mut before = 0;
    let answer = loop {
        let answer = context.request(client, Options::default(), request.clone()).await;
        let now = moved.load(Ordering::Relaxed);
        match &answer {
            Ok(Response::Waiting(_)) if now > before => before = now,
            _ => break answer,
        }
    };
    teller.abort();
    answer
}

fn tell(client: Client, of: Of, json: bool, moved: Arc<AtomicU64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Ok(mut events) = client.events().await else { return };
        let (shown, mut last) = (!json && std::io::stderr().is_terminal(), String::new());
        loop {
            match events.next().await {
                Next::Event(Event::Transfer(view)) if of.fits(&view) => {
                    moved.fetch_add(u64::from(view.done > 0), Ordering::Relaxed);
                    match (json, view.reason.clone()) {
                        (true, _) => output::object(&Event::Transfer(view)),
                        (false, Some(reason)) if reason != last => {
                            output::note(&format!("the file waits: {reason}"));
                            last = reason;
                        }
                        (false, _) if shown => bar(&view),
                        _ => {}
                    }
                }
                Next::Ended => return,
                _ => {}
            }
        }
    })
}

/// One line on a terminal, written over and over.
fn bar(view: &TransferView) {
    let percent = (view.done * 100).checked_div(view.size).unwrap_or(0);
    let (done, size) = (output::size(view.done), output::size(view.size));
    let end = if view.done >= view.size && view.size > 0 { "\n" } else { "" };
    let name: String = clean_line(&view.name).chars().take(40).collect();
    let _ = write!(std::io::stderr().lock(), "\r\x1b[K{name} {percent:3} % ({done} of {size}){end}");
}
