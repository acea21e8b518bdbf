//! Reads of many connections through one buffer.
//!
//! - The WebSocket library keeps a buffer for each connection, as large as what it reads at a time. It is
//!   told to read little; here the socket is read by kilobytes, into a buffer that a thread has for all of
//!   its connections. What the library does not take at once is kept until it does.
//! - Limit: a connection keeps at most [`SCRATCH`] bytes, and only while they wait.

use crate::limits::SCRATCH;
use bytes::{Buf, Bytes};
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// See the module.
#[derive(Debug)]
pub(super) struct Scratched<S> {
    socket: S,
    /// Read, and not yet taken.
    left: Bytes,
}

impl<S> Scratched<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, left: Bytes::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Scratched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left.is_empty() {
            // The socket below never comes back to this thread's buffer.
            return BUFFER.with_borrow_mut(|buffer| {
                let mut all = ReadBuf::new(buffer);
                ready!(Pin::new(&mut this.socket).poll_read(cx, &mut all))?;
                let (now, later) = all.filled().split_at(all.filled().len().min(buf.remaining()));
                buf.put_slice(now);
                // Nothing is allocated for nothing.
                this.left = Bytes::copy_from_slice(later);
                Poll::Ready(Ok(()))
            });
        }
        let now = this.left.len().min(buf.remaining());
        buf.put_slice(&this.left[..now]);
        this.left.advance(now);
        if this.left.is_empty() {
            this.left = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Scratched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_however_little_is_taken() {
        let sent: Vec<u8> = (0..3 * SCRATCH).map(|n| (n % 251) as u8).collect();
        let (ours, mut theirs) = duplex(2 * SCRATCH);
        let mut ours = Scratched::new(ours);
        let writing = tokio::spawn({
            let sent = sent.clone();
            async move { theirs.write_all(&sent).await }
        });
        let mut read = Vec::new();
        for size in [1, 100, SCRATCH - 1, 7, SCRATCH].into_iter().cycle() {
            let mut some = vec![0; size];
            match ours.read(&mut some).await.expect("it is read") {
                0 => break,
                n => read.extend_from_slice(&some[..n]),
            }
            assert!(ours.left.len() < SCRATCH);
        }
        writing.await.expect("it ends").expect("all is written");
        assert!(read == sent && ours.left.is_empty());
    }
}
