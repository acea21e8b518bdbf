//! TEMPORARY stand-in until the real writer is merged.
use crate::store::*;
use std::sync::Arc;
#[derive(Debug, Clone, Copy)]
pub enum WriteError {
    Unavailable,
    Unknown,
}
pub type Reply = Box<dyn FnOnce(std::result::Result<Outcome, WriteError>) + Send>;
#[derive(Debug, Clone)]
pub struct Writer(tokio::sync::mpsc::Sender<(Append, ReplyBox)>);
#[derive(Debug)]
pub struct Busy;
pub struct ReplyBox(Reply);
impl std::fmt::Debug for ReplyBox {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
impl Writer {
    pub fn spawn(s: Arc<dyn Store>, _l: usize) -> Self {
        let (t, mut r) = tokio::sync::mpsc::channel::<(Append, ReplyBox)>(1000);
        tokio::spawn(async move {
            while let Some((a, b)) = r.recv().await {
                match s.append(&[a]).await {
                    Ok(mut o) => (b.0)(Ok(o.remove(0))),
                    Err(StoreError::Unknown(_)) => (b.0)(Err(WriteError::Unknown)),
                    Err(e) => {
                        eprintln!("{e}");
                        (b.0)(Err(WriteError::Unavailable))
                    }
                }
            }
        });
        Self(t)
    }
    pub fn submit(&self, a: Append, r: Reply) -> std::result::Result<(), Busy> {
        self.0.try_send((a, ReplyBox(r))).map_err(|_| Busy)
    }
    pub async fn close(&self) {}
}
