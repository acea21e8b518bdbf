//! What a frame from a known device means. No I/O: a frame goes in, one step comes out.
//!
//! Who speaks is what the handshake proved, never what a frame says of itself.

use crate::{limits::MISSED_PINGS, store::Append};
use fastchat_delivery::header::{self, Kind};
use fastchat_protocol::{
    AccountId, AccountName, ClientFrame, Code, DeviceId, Refusal, Seq,
    client::{Cursor, MarkRead, Send, Typing},
    limits,
};

/// Whom the handshake proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The account.
    pub account: AccountId,
    /// Its name.
    pub name: AccountName,
    /// The device.
    pub device: DeviceId,
}

/// What the shell is to do about a frame.
#[derive(Debug, Clone)]
pub enum Step {
    /// Hand to the writer, which answers.
    Submit(Append),
    /// Ask the store, then answer; no other frame of this connection is read meanwhile.
    Serve(ClientFrame),
    /// Take note of cursors. Not answered.
    Cursors(Vec<Cursor>),
    /// Hand to the next flush of cursors, which answers.
    Read(MarkRead),
    /// Tell others, if it is not too often. Not answered.
    Typing(Typing),
    /// Remove what the device has dealt with. Not answered.
    Mailbox(Seq),
    /// Answer with this.
    Refuse(Refusal),
}

/// What the shell is to do when the ping interval has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Send a ping.
    Ping,
    /// Nothing was heard for too long: end the connection.
    Silent,
}

/// A device's logical presence on one connection.
#[derive(Debug)]
pub struct Session {
    me: Me,
    silent_pings: u32,
}

impl Session {
    /// Begins with whom the handshake proved.
    pub fn new(me: Me) -> Self {
        Self { me, silent_pings: 0 }
    }

    /// Whose session it is.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// Decides about a frame.
    pub fn on_client(&mut self, frame: ClientFrame) -> Step {
        match frame {
            ClientFrame::Hello(_)
            | ClientFrame::Register(_)
            | ClientFrame::Login(_)
            | ClientFrame::Link(_)
            | ClientFrame::Recover(_)
            | ClientFrame::Resume(_) => {
                Step::Refuse(Refusal::new(Code::Unexpected, "this connection has a session already"))
            }
            ClientFrame::Send(send) => self.on_send(send),
            ClientFrame::Ack(ack) if ack.cursors.len() > limits::MAX_CURSORS => {
                Step::Refuse(Refusal::new(Code::TooLarge, "too many cursors in one ack"))
            }
            ClientFrame::Ack(ack) => Step::Cursors(ack.cursors),
            ClientFrame::AckMailbox(ack) => Step::Mailbox(ack.seq),
            ClientFrame::MarkRead(mark) => Step::Read(mark),
            ClientFrame::Typing(said) => Step::Typing(said),
            other => Step::Serve(other),
        }
    }

    /// Anything that was heard of the client, a pong too.
    pub fn on_heard(&mut self) {
        self.silent_pings = 0;
    }

    /// A ping interval has passed.
    pub fn on_tick(&mut self) -> Tick {
        self.silent_pings += 1;
        if self.silent_pings > MISSED_PINGS { Tick::Silent } else { Tick::Ping }
    }

    fn on_send(&self, send: Send) -> Step {
        if send.envelope.len() > limits::MAX_ENVELOPE {
            let detail = format!("an envelope has at most {} bytes", limits::MAX_ENVELOPE);
            return Step::Refuse(Refusal::new(Code::TooLarge, detail));
        }
        let bad = |detail: &str| Step::Refuse(Refusal::new(Code::BadEnvelope, detail));
        let Ok(header) = header::peek(&send.envelope) else {
            return bad("the envelope is no MLS message");
        };
        if header.kind != Kind::Application {
            return bad("only application messages are sent this way");
        }
        if header.conversation != send.conversation || header.counter != send.counter {
            return bad("the envelope was sealed for another conversation or counter");
        }
        Step::Submit(Append {
            conversation: send.conversation,
            device: self.me.device,
            counter: send.counter,
            epoch: header.epoch,
            envelope: send.envelope,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::{
        Bytes, ConversationId, Counter,
        client::{Ack, Resume, Sync},
    };

    fn session() -> Session {
        let name = "alice".parse().expect("a name");
        Session::new(Me { account: AccountId::new([1; 16]), name, device: DeviceId::new([2; 16]) })
    }

    fn code(step: &Step) -> Option<Code> {
        match step {
            Step::Refuse(refusal) => Some(refusal.code),
            _ => None,
        }
    }

    #[test]
    fn a_second_proof_is_refused() {
        let frame = ClientFrame::Resume(Resume { device: DeviceId::new([3; 16]), signature: Bytes::new() });
        assert_eq!(code(&session().on_client(frame)), Some(Code::Unexpected));
    }

    #[test]
    fn what_is_no_envelope_never_reaches_the_writer() {
        let send = |envelope| {
            ClientFrame::Send(Send {
                conversation: ConversationId::new([0; 16]),
                counter: Counter(1),
                envelope,
            })
        };
        assert_eq!(code(&session().on_client(send(Bytes::from_static(b"hello")))), Some(Code::BadEnvelope));
        let large = Bytes::from(vec![0; limits::MAX_ENVELOPE + 1]);
        assert_eq!(code(&session().on_client(send(large))), Some(Code::TooLarge));
    }

    #[test]
    fn an_ack_has_a_limit() {
        let cursor = Cursor { conversation: ConversationId::new([0; 16]), seq: Seq(1), authenticator: None };
        let frame = |n| ClientFrame::Ack(Ack { cursors: vec![cursor.clone(); n] });
        assert!(matches!(session().on_client(frame(limits::MAX_CURSORS)), Step::Cursors(_)));
        assert_eq!(code(&session().on_client(frame(limits::MAX_CURSORS + 1))), Some(Code::TooLarge));
    }

    #[test]
    fn requests_for_the_store_are_served() {
        assert!(matches!(
            session().on_client(ClientFrame::Sync(Sync::default())),
            Step::Serve(ClientFrame::Sync(_))
        ));
    }

    #[test]
    fn silence_ends_a_session_and_any_sign_of_life_keeps_it() {
        let mut session = session();
        for _ in 0..MISSED_PINGS {
            assert_eq!(session.on_tick(), Tick::Ping);
        }
        session.on_heard();
        for _ in 0..MISSED_PINGS {
            assert_eq!(session.on_tick(), Tick::Ping);
        }
        assert_eq!(session.on_tick(), Tick::Silent);
    }
}
