//! The laboratory notices a server that breaks its promises.

use anyhow::Result;
use fastchat_lab::{
    drive::Load,
    experiment::Bench,
    figures::{Experiment, Figures, Given},
    plan::Pattern,
    target::fastchat::{FastChat, Setup},
};
use fastchat_protocol::ServerFrame;
use futures_util::{SinkExt, StreamExt};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

/// What stands between clients and a gateway, and spoils one frame in so many.
#[derive(Debug, Clone, Copy)]
struct Spoiler {
    /// Acknowledgements that vanish: one in so many; 0 for none.
    drop_acks: u64,
    /// Live copies that come twice: one in so many; 0 for none.
    double: u64,
}

#[derive(Debug, Default)]
struct Seen {
    acks: AtomicU64,
    copies: AtomicU64,
}

impl Spoiler {
    /// Starts it before a gateway.
    fn before(self, listener: TcpListener, gateway: String) {
        let seen = Arc::new(Seen::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // It ends with its connection.
                tokio::spawn(self.pass(client, gateway.clone(), Arc::clone(&seen)));
            }
        });
    }

    async fn pass(self, client: TcpStream, gateway: String, seen: Arc<Seen>) -> Result<()> {
        // The gateway is told the host that the client dialled, as a proxy does.
        let request = format!("ws://{}/v1/ws", client.local_addr()?).into_client_request()?;
        let mut client = accept_async(client).await?;
        let (mut server, _) = client_async(request, TcpStream::connect(&gateway).await?).await?;
        loop {
            tokio::select! {
                message = client.next() => match message {
                    Some(message) => server.send(message?).await?,
                    None => return Ok(()),
                },
                message = server.next() => match message {
                    Some(message) => {
                        let message = message?;
                        for _ in 0..self.copies(&message, &seen) {
                            client.send(message.clone()).await?;
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    fn copies(self, message: &Message, seen: &Seen) -> usize {
        let Message::Binary(bytes) = message else { return 1 };
        let due = |count: &AtomicU64, every: u64| {
            (count.fetch_add(1, Relaxed) + 1).checked_rem(every).is_some_and(|rest| rest == 0)
        };
        match ServerFrame::decode(bytes) {
            Ok((_, ServerFrame::Sent(_))) if due(&seen.acks, self.drop_acks) => 0,
            Ok((_, ServerFrame::Deliver(_))) if due(&seen.copies, self.double) => 2,
            _ => 1,
        }
    }
}

async fn measured(spoiler: Spoiler) -> Result<Figures> {
    let experiment = Experiment {
        target: "a spoiled fleet".to_owned(),
        pattern: Pattern::Pairs,
        clients: 4,
        senders: 1,
        seal: false,
        given: Given::default(),
        load: Load { rate: 400.0, warm_up_s: 0.5, duration_s: 5.0, ..Load::default() },
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let mut fleet = FastChat::new(Setup { gateways: 1, ..Setup::default() });
    let servers = fleet.start().await?;
    servers.serve().await?;
    let gateway = servers.gateways().remove(0);
    spoiler.before(listener, gateway);
    fleet.detour(address);
    let mut bench = Bench::prepare_on(Box::new(fleet), &experiment, &|_| {}).await?;
    let figures = bench.run(&experiment.load, &|_| {}).await?;
    assert!(figures.counts.sent > 1_500, "{:?}", figures.counts);
    Ok(figures)
}

#[tokio::test]
async fn an_honest_way_is_reported_as_sound() -> Result<()> {
    let figures = measured(Spoiler { drop_acks: 0, double: 0 }).await?;
    assert_eq!(figures.verdict.broken, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn one_lost_ack_in_a_thousand_is_reported() -> Result<()> {
    let figures = measured(Spoiler { drop_acks: 1_000, double: 0 }).await?;
    let missing = figures.counts.sent - figures.counts.acked;
    assert_eq!(missing, figures.counts.sent / 1_000);
    assert_eq!(figures.verdict.broken, [format!("{missing} messages were never acknowledged")]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_delivers_twice_is_reported() -> Result<()> {
    let figures = measured(Spoiler { drop_acks: 0, double: 500 }).await?;
    let doubled = figures.counts.delivered / 500;
    assert_eq!(figures.verdict.broken, [format!("{doubled} deliveries came twice")]);
    Ok(())
}
