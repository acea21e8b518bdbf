//! Messages that were sent already: requests with their answers' types.

use super::{Client, unexpected};
use crate::api::{ApiError, ErrorKind, MessageChange, MessageView, Request, Response, SentView};
use std::time::Duration;

impl Client {
    /// Sends a text in answer to a message: its number, its id or its link.
    pub async fn reply(
        &self,
        to: &str,
        target: &str,
        text: &str,
        wait: Duration,
    ) -> Result<SentView, ApiError> {
        let request = Request::Send {
            id: fresh_id(),
            to: to.to_owned(),
            text: text.to_owned(),
            reply: Some(target.to_owned()),
            wait_ms: wait.as_millis() as u64,
        };
        self.sent(request).await
    }

    /// Changes a message and waits until the server has that. An error of kind `Timeout` means that it
    /// waits in the outbox.
    pub async fn change_message(
        &self,
        with: &str,
        target: &str,
        change: MessageChange,
        wait: Duration,
    ) -> Result<SentView, ApiError> {
        let request = Request::ChangeMessage {
            id: fresh_id(),
            with: with.to_owned(),
            target: target.to_owned(),
            change,
            wait_ms: wait.as_millis() as u64,
        };
        self.sent(request).await
    }

    /// Sets for how long what is written from now on is kept, and waits until the server has that; 0: it
    /// stays.
    pub async fn set_timer(&self, with: &str, seconds: u32, wait: Duration) -> Result<(), ApiError> {
        let wait_ms = wait.as_millis() as u64;
        let request = Request::SetTimer { id: fresh_id(), with: with.to_owned(), seconds, wait_ms };
        match self.request(request).await? {
            Response::Sent(_) | Response::Group(_) => Ok(()),
            Response::Waiting(waiting) => Err(ApiError::new(ErrorKind::Timeout, waiting.reason)),
            other => Err(unexpected(&other)),
        }
    }

    /// A message and `around` others on either side, oldest first.
    pub async fn message(
        &self,
        with: Option<&str>,
        target: &str,
        around: usize,
    ) -> Result<Vec<MessageView>, ApiError> {
        let (with, target) = (with.map(str::to_owned), target.to_owned());
        match self.request(Request::Message { with, target, around }).await? {
            Response::Messages { messages, .. } => Ok(messages),
            other => Err(unexpected(&other)),
        }
    }
}

fn fresh_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}
