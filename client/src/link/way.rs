//! The way to a gateway: a [`Route`] that is walked with real sockets, and what it learns is kept.

use super::{
    Endpoint, LinkError, Opened, RestrictedSession,
    assign::{self, Answer, Ask},
    known::Known,
    open,
    restricted::restrict,
    route::{Route, Step, Target},
    servers::{Pick, Servers},
    url::{AssignUrl, ServerUrl},
};
use fastchat_protocol::{ClientFrame, ticket};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep};

/// Other gateways that a balancer is asked for.
const ALTERNATIVES: u8 = 8;
/// As many as there are, for those who take turns.
const ALL: u8 = 16;
/// Between two gateways of a round, at most.
const NEXT: Duration = Duration::from_millis(250);

/// Where a profile's server is, whom to believe, and how to choose.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its addresses.
    pub servers: Servers,
    /// Trust these certificates (PEM) instead of the platform's.
    pub ca: Option<PathBuf>,
    /// The deployment's name as seen at first use; none before that.
    pub deployment: Option<String>,
    /// Plain connections to other machines are wanted.
    pub insecure: bool,
    /// How a gateway is chosen.
    pub pick: Pick,
    /// Another one is chosen after so many requests.
    pub repick_every: Option<u32>,
    /// Where the gateways that are known are kept.
    pub known: Option<PathBuf>,
    /// The newest incarnation of the server's store that was seen; none before that.
    pub incarnation: Option<u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Way {
    to: Destination,
    route: Route,
    kept: Known,
    began: Instant,
    /// What went wrong last in this round.
    trouble: Option<LinkError>,
}

/// What came of asking one balancer.
#[derive(Debug)]
pub struct Asked {
    /// Which.
    pub balancer: AssignUrl,
    /// How long it took.
    pub took: Duration,
    /// What it said.
    pub answer: Result<Answer, LinkError>,
}

impl Destination {
    /// With everything that is not given as it usually is.
    pub fn new(servers: Servers) -> Self {
        Self {
            servers,
            ca: None,
            deployment: None,
            insecure: false,
            pick: Pick::Assign,
            repick_every: None,
            known: None,
            incarnation: None,
        }
    }

    /// Whether a gateway that was named by somebody else may be dialled.
    fn allows(&self, url: &ServerUrl) -> bool {
        url.tls() || (!self.servers.uses_tls() && (url.is_loopback() || self.insecure))
    }
}

impl Way {
    /// Nothing is asked or dialled yet.
    pub fn new(to: Destination) -> Self {
        let kept = to.known.as_deref().and_then(|path| Known::read(path, &to.servers));
        let kept = kept.unwrap_or_else(|| Known::none(&to.servers));
        let urls = kept.urls().into_iter().filter(|url| to.allows(url)).collect();
        let last = kept.last.as_ref().and_then(|url| url.parse().ok());
        let route = Route::new(&to.servers, to.pick, urls, last);
        Self { to, route, kept, began: Instant::now(), trouble: None }
    }

    /// Where it leads.
    pub fn destination(&self) -> &Destination {
        &self.to
    }

    /// From now on only gateways of this deployment are spoken to.
    pub fn pin(&mut self, deployment: &str) {
        self.to.deployment.get_or_insert_with(|| deployment.to_owned());
    }

    /// From now on no store of an older incarnation is spoken to.
    pub(super) fn seen(&mut self, incarnation: u32) {
        self.to.incarnation = Some(incarnation);
    }

    /// Gateways that are known.
    pub fn known(&self) -> Vec<ServerUrl> {
        self.route.known()
    }

    /// Dials until a gateway has said hello, at most one round long.
    pub async fn open(&mut self) -> Result<Opened, LinkError> {
        loop {
            let endpoint = self.next().await?;
            let error = match open(&endpoint).await {
                Ok(opened) => {
                    self.up(&endpoint.url, &opened.hello().deployment);
                    return Ok(opened);
                }
                Err(error) => error,
            };
            tracing::info!(gateway = %endpoint.url, %error, "no connection");
            if !self.failed(&endpoint.url, &error, false) {
                return Err(error);
            }
            sleep(NEXT.mul_f64(rand::random())).await;
        }
    }

    /// Dials, and proves a password or a recovery code without a device.
    pub async fn restrict(&mut self, proof: ClientFrame) -> Result<RestrictedSession, LinkError> {
        restrict(self.open().await?, proof).await
    }

    /// The gateway to dial now. Balancers are asked if that is due.
    pub(super) async fn next(&mut self) -> Result<Endpoint, LinkError> {
        loop {
            match self.step() {
                Step::Dial(target) => return Ok(self.endpoint(target)),
                Step::Ask { balancer, exclude } => {
                    if let Err(error) = self.ask(&balancer, &exclude).await
                        && error.is_final()
                    {
                        return Err(error);
                    }
                }
                Step::Over => {
                    self.route.begin();
                    return Err(self.trouble.take().unwrap_or(LinkError::NoGateway));
                }
            }
        }
    }

    /// There is a session, or there could be one.
    pub(super) fn up(&mut self, url: &ServerUrl, deployment: &str) {
        self.pin(deployment);
        self.trouble = None;
        self.route.up(url);
        self.keep();
    }

    /// A gateway gave no session, or ended one. Whether another one may help, at once.
    pub(super) fn failed(&mut self, url: &ServerUrl, error: &LinkError, had_session: bool) -> bool {
        if had_session {
            self.route.begin();
        }
        self.trouble = Some(error.clone());
        let fault = error.fault(had_session);
        self.route.failed(url, fault, self.began.elapsed());
        // What is wrong with this device or account is wrong everywhere.
        let more = fault != super::route::Fault::Ours && self.route.has_more();
        if !more {
            self.route.begin();
        }
        more
    }

    /// Whether there may be another gateway.
    pub(super) fn has_others(&self, than: &ServerUrl) -> bool {
        self.route.has_others(than)
    }

    /// Another gateway than the one in use; `None` if this one is as good. `leave`: it goes away.
    pub(super) async fn elsewhere(&mut self, from: &ServerUrl, leave: bool) -> Option<Endpoint> {
        self.route.begin();
        if leave {
            self.route.failed(from, LinkError::Draining.fault(true), self.began.elapsed());
        }
        let told = self.to.pick == Pick::Assign;
        if leave || !told {
            self.route.skip(from);
        }
        loop {
            match self.step() {
                Step::Dial(target) if target.url == *from => return None,
                Step::Dial(target) => return Some(self.endpoint(target)),
                Step::Ask { balancer, exclude } => {
                    let answer = self.ask(&balancer, &exclude).await;
                    // Nobody says that it would be better elsewhere.
                    if answer.is_err() && told && !leave {
                        return None;
                    }
                }
                Step::Over => return None,
            }
        }
    }

    /// The gateway that the one in use wants the client to move to, if this profile may go there.
    pub(super) fn toward(&self, wish: &fastchat_protocol::server::Move) -> Result<Endpoint, String> {
        let url: ServerUrl = wish.url.parse().map_err(|_| "its address is none".to_owned())?;
        if !self.to.allows(&url) {
            return Err(format!("{url} is without TLS"));
        }
        if wish.ticket.len() > ticket::MAX_BYTES {
            return Err("its ticket is none".to_owned());
        }
        let ticket = Some(wish.ticket.clone()).filter(|ticket| !ticket.is_empty());
        Ok(self.endpoint(Target { url, ticket }))
    }

    /// Asks every balancer once, for a person who wants to know.
    pub async fn survey(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        let balancers: Vec<AssignUrl> = self.to.servers.balancers().cloned().collect();
        for balancer in balancers {
            let began = Instant::now();
            let answer = self.ask(&balancer, &[]).await;
            asked.push(Asked { balancer, took: began.elapsed(), answer });
        }
        asked
    }

    fn step(&mut self) -> Step {
        self.route.next(self.began.elapsed(), &mut rand::rng())
    }

    async fn ask(&mut self, balancer: &AssignUrl, exclude: &[String]) -> Result<Answer, LinkError> {
        let answer = self.exchange(balancer, exclude).await;
        match &answer {
            Ok(answer) => {
                tracing::debug!(%balancer, gateway = %answer.places[0].url, reason = answer.reason, "assigned");
                let now = self.began.elapsed();
                self.route.answered(balancer, answer.named(now), now);
                self.keep();
            }
            Err(error) => {
                tracing::info!(%error, "not assigned");
                self.route.unanswered(balancer);
                self.trouble = Some(error.clone());
            }
        }
        answer
    }

    async fn exchange(&self, balancer: &AssignUrl, exclude: &[String]) -> Result<Answer, LinkError> {
        if !balancer.tls() && !balancer.is_loopback() && !self.to.insecure {
            return Err(LinkError::Plain(balancer.host().to_owned()));
        }
        let alternatives = if self.to.pick == Pick::Assign { ALTERNATIVES } else { ALL };
        let ask = Ask::new(&self.kept.word, exclude, alternatives);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        assign::ask(balancer, self.to.ca.as_deref(), &ask, wall, |url| self.to.allows(url)).await
    }

    fn endpoint(&self, Target { url, ticket }: Target) -> Endpoint {
        let Destination { ca, deployment, insecure, incarnation, .. } = self.to.clone();
        Endpoint { url, ticket, ca, deployment, insecure, incarnation }
    }

    /// Writes down what is known, if it has changed.
    fn keep(&mut self) {
        let servers = &self.to.servers;
        // A single gateway that was typed needs no file.
        let single = servers.balancers().count() == 0 && servers.gateways().count() < 2;
        let Some(path) = self.to.known.as_deref().filter(|_| !single) else { return };
        let gateways: Vec<String> = self.route.known().iter().map(ToString::to_string).collect();
        let turns = self.to.pick == Pick::RoundRobin;
        let last = self.route.last().filter(|_| turns).map(ToString::to_string);
        if (&gateways, &last) != (&self.kept.gateways, &self.kept.last) {
            (self.kept.gateways, self.kept.last) = (gateways, last);
            self.kept.write(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastchat_protocol::{Bytes, server::Move};

    #[test]
    fn nobody_is_sent_to_a_gateway_without_tls_who_has_come_by_tls() {
        let cases = [
            ("https://b", false, "wss://g", true),
            ("https://b", true, "ws://127.0.0.1:1", false),
            ("wss://g,http://127.0.0.1:1", true, "ws://g", false),
            ("http://127.0.0.1:1", false, "ws://127.0.0.1:2", true),
            ("http://127.0.0.1:1", false, "ws://192.0.2.1:2", false),
            ("http://127.0.0.1:1", true, "ws://192.0.2.1:2", true),
            ("ws://127.0.0.1:1", false, "wss://g", true),
            ("ws://127.0.0.1:1", false, "http://127.0.0.1:2", false),
            ("ws://127.0.0.1:1", false, "", false),
        ];
        for (servers, insecure, url, want) in cases {
            let way = Way::new(Destination { insecure, ..Destination::new(servers.parse().unwrap()) });
            let wish = Move { url: url.into(), ticket: Bytes::new() };
            assert_eq!(way.toward(&wish).is_ok(), want, "{servers} {insecure} {url}");
        }
        let way = Way::new(Destination::new("https://b".parse().unwrap()));
        let wish = Move { url: "wss://g".into(), ticket: Bytes::from(vec![0; 10_000]) };
        assert!(way.toward(&wish).is_err(), "a ticket has its size");
    }
}
