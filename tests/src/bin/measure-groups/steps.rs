//! The steps of a group's life, each with its time, bytes and processor time.

use crate::people::Person;
use anyhow::{Context, Result, bail};
use fastchat_e2ee::{
    Content, GroupData, Identity, Policy, Rules, Suite, VerifiedManifest,
    conversation::{self, Members, PendingCommit},
};
use fastchat_gateway::store::postgres::{Options, Postgres};
use fastchat_protocol::{
    AccountId, Bytes, ClientFrame, ConversationId, DeviceId, Role, Seq, ServerFrame, client, codec, server,
};
use fastchat_tests::{cluster::Cluster, raw::RawClient};
use rand::SeedableRng;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Sends that one figure is the mean of.
const SENDS: u32 = 200;

/// What one step costs. Milliseconds and bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cost {
    /// On the device that does it.
    client_ms: f64,
    /// From the request to its answer.
    answer_ms: f64,
    /// Processor time of the gateway meanwhile.
    gateway_ms: f64,
    /// Sent to the gateway.
    bytes: usize,
    /// On a member that takes note.
    member_ms: f64,
}

/// One size and suite.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    devices: usize,
    suite: u16,
    claim: Cost,
    found: Cost,
    join: Cost,
    send: Cost,
    update: Cost,
    add: Cost,
    remove: Cost,
    /// Bytes of the founder's keys at rest.
    client_state: usize,
    /// Bytes of the public state in the store: GroupInfo, state, tree.
    server_state: i64,
    /// Rows that all sends together made.
    rows_per_send: f64,
}

struct World<'a> {
    cluster: &'a mut Cluster,
    manifests: BTreeMap<AccountId, VerifiedManifest>,
    left: BTreeSet<AccountId>,
    suite: Suite,
    id: ConversationId,
}

/// Founds a group that has `devices` devices with the newcomer, and takes it through its life.
pub(crate) async fn measure(cluster: &mut Cluster, devices: usize, suite: Suite) -> Result<Row> {
    let url = cluster.database().to_owned();
    let database =
        Postgres::connect(&Options { url, max_connections: 2, application_name: "measure-groups".into() })?;
    let mut rng = rand::rngs::StdRng::from_rng(&mut rand::rng());
    let identity = Identity::generate(&mut rng)?;
    let mut people = Vec::new();
    for _ in 0..devices.max(3) {
        people.push(Person::register(&database, &mut rng, &identity, suite).await?);
    }
    let manifests = people.iter().map(|person| (person.account(), person.manifest.clone())).collect();
    let mut newcomer = people.pop().context("a newcomer")?;
    let others: Vec<AccountId> = people.iter().skip(1).take(devices - 1).map(Person::account).collect();
    // With two devices the newcomer is the second, and the group begins with the founder alone.
    let others = &others[..others.len().min(devices.saturating_sub(2))];
    let mut founder = people.swap_remove(0);
    let mut member = match others.first() {
        Some(account) => people.into_iter().find(|person| person.account() == *account),
        None => None,
    };
    let id = ConversationId::new(rand::random());
    let mut world = World { cluster, manifests, left: BTreeSet::new(), suite, id };
    let address = world.cluster.gateway(0).address();
    let mut wire = founder.connect(&address).await?;

    let (claim, packages) = world.claim(&mut wire, others).await?;
    let (found, data) = world.found(&mut wire, &founder, others, &packages).await?;
    let join = match &mut member {
        Some(member) => world.join(member).await?,
        None => Cost::default(),
    };
    let update = world.update(&mut wire, &mut founder, member.as_ref()).await?;
    let (add, data) = world.add(&mut wire, &mut founder, member.as_ref(), &mut newcomer, &data).await?;
    let join = if member.is_some() { join } else { world.join(&mut newcomer).await? };
    let before = world.head().await?;
    let send = world.send(&mut wire, &mut founder, member.as_ref()).await?;
    let rows_per_send = (world.head().await? - before) as f64 / f64::from(SENDS);
    let (client_state, server_state) = (founder.store.dump().len(), world.server_state().await?);
    let remove = world.remove(&mut wire, &mut founder, member.as_ref(), &newcomer, &data).await?;
    let suite = suite.code();
    Ok(Row {
        devices,
        suite,
        claim,
        found,
        join,
        send,
        update,
        add,
        remove,
        client_state,
        server_state,
        rows_per_send,
    })
}

impl World<'_> {
    async fn claim(&mut self, wire: &mut RawClient, others: &[AccountId]) -> Result<(Cost, Vec<Bytes>)> {
        let (started, cpu) = (Instant::now(), self.gateway_cpu()?);
        let mut packages = Vec::new();
        for account in others {
            packages.extend(self.claim_one(wire, *account).await?);
        }
        let cost = Cost {
            answer_ms: millis(started.elapsed()),
            gateway_ms: self.gateway_cpu()? - cpu,
            bytes: packages.iter().map(Bytes::len).sum(),
            ..Cost::default()
        };
        Ok((cost, packages))
    }

    async fn claim_one(&self, wire: &mut RawClient, account: AccountId) -> Result<Vec<Bytes>> {
        let claim = client::ClaimKeyPackages { account, suite: self.suite.code() };
        match wire.ask(&ClientFrame::ClaimKeyPackages(claim)).await? {
            ServerFrame::KeyPackages(got) => Ok(got.packages.into_iter().map(|got| got.package).collect()),
            other => bail!("no key packages: {other:?}"),
        }
    }

    async fn found(
        &mut self,
        wire: &mut RawClient,
        founder: &Person,
        others: &[AccountId],
        packages: &[Bytes],
    ) -> Result<(Cost, GroupData)> {
        let roles = others.iter().map(|account| (*account, Role::Member));
        let data = GroupData::new(roles.chain([(founder.account(), Role::Owner)]).collect())?;
        let (client_ms, founding) = timed(|| {
            let policy =
                Policy { rules: Rules::Group { left: &self.left }, manifests: &|of| self.manifest(of) };
            let (me, id) = (&founder.device, self.id);
            conversation::found(&founder.vault(), me, id, self.suite, packages, Some(&data), &policy)
        });
        let founding = founding?;
        let frame = ClientFrame::FoundGroup(client::FoundGroup {
            conversation: self.id,
            counter: fastchat_protocol::Counter(0),
            replaces: None,
            group_info: founding.group_info,
            tree: founding.tree,
            welcomes: founding.welcomes,
        });
        let cost = self.ask_sent(wire, &frame).await?;
        Ok((Cost { client_ms, ..cost }, data))
    }

    /// By the welcome in the mailbox.
    async fn join(&mut self, member: &mut Person) -> Result<Cost> {
        let address = self.cluster.gateway(0).address();
        let mut wire = member.connect(&address).await?;
        let (started, cpu) = (Instant::now(), self.gateway_cpu()?);
        let fetch = ClientFrame::FetchMailbox(client::FetchMailbox { after: Seq(0) });
        let ServerFrame::MailboxPage(page) = wire.ask(&fetch).await? else { bail!("no mailbox") };
        let item = page.items.last().context("a welcome")?;
        let joining: server::Joining = codec::decode(&item.body)?;
        let tree = client::GetTree { conversation: self.id, hash: joining.tree_hash.clone() };
        let ServerFrame::Tree(tree) = wire.ask(&ClientFrame::GetTree(tree)).await? else { bail!("no tree") };
        let answer_ms = millis(started.elapsed());
        let (member_ms, joined) = timed(|| {
            let policy =
                Policy { rules: Rules::Joiner(member.account()), manifests: &|of| self.manifest(of) };
            conversation::join(&member.vault(), &member.device, &joining.welcome, &tree.tree, &policy)
        });
        joined?;
        let bytes = joining.welcome.len() + tree.tree.len();
        Ok(Cost { member_ms, answer_ms, bytes, gateway_ms: self.gateway_cpu()? - cpu, client_ms: 0.0 })
    }

    async fn send(
        &mut self,
        wire: &mut RawClient,
        founder: &mut Person,
        member: Option<&Person>,
    ) -> Result<Cost> {
        let text = Content::Text("x".repeat(100).into()).encode();
        let (mut cost, cpu) = (Cost::default(), self.gateway_cpu()?);
        for _ in 0..SENDS {
            let counter = founder.next();
            let (client_ms, sealed) =
                timed(|| conversation::seal(&founder.vault(), &founder.device, self.id, counter, &text));
            let envelope = sealed?.envelope;
            let frame = client::Send { conversation: self.id, counter, envelope: envelope.clone() };
            let started = Instant::now();
            sent(wire.ask(&ClientFrame::Send(frame)).await?)?;
            cost.answer_ms += millis(started.elapsed()) / f64::from(SENDS);
            cost.client_ms += client_ms / f64::from(SENDS);
            cost.bytes = envelope.len();
            if let Some(member) = member {
                cost.member_ms +=
                    self.open(member, founder.device.id(), counter, &envelope)? / f64::from(SENDS);
            }
        }
        cost.gateway_ms = (self.gateway_cpu()? - cpu) / f64::from(SENDS);
        Ok(cost)
    }

    async fn update(
        &mut self,
        wire: &mut RawClient,
        founder: &mut Person,
        member: Option<&Person>,
    ) -> Result<Cost> {
        let counter = founder.next();
        let made = timed(|| conversation::update_keys(&founder.vault(), &founder.device, self.id, counter));
        self.commit(wire, founder, member, counter, made).await
    }

    async fn add(
        &mut self,
        wire: &mut RawClient,
        founder: &mut Person,
        member: Option<&Person>,
        newcomer: &mut Person,
        data: &GroupData,
    ) -> Result<(Cost, GroupData)> {
        let packages = self.claim_one(wire, newcomer.account()).await?;
        let data = data.with(newcomer.account(), Some(Role::Member))?;
        let members = Members { add: &packages, remove: &[], data: Some(data.clone()) };
        let cost = self.change(wire, founder, member, &members).await?;
        Ok((cost, data))
    }

    async fn remove(
        &mut self,
        wire: &mut RawClient,
        founder: &mut Person,
        member: Option<&Person>,
        newcomer: &Person,
        data: &GroupData,
    ) -> Result<Cost> {
        let data = data.with(newcomer.account(), None)?;
        let members = Members { add: &[], remove: &[newcomer.device.id()], data: Some(data) };
        self.change(wire, founder, member, &members).await
    }

    async fn change(
        &mut self,
        wire: &mut RawClient,
        founder: &mut Person,
        member: Option<&Person>,
        members: &Members<'_>,
    ) -> Result<Cost> {
        let counter = founder.next();
        let made = timed(|| {
            let policy =
                Policy { rules: Rules::Group { left: &self.left }, manifests: &|of| self.manifest(of) };
            let (vault, me) = (founder.vault(), &founder.device);
            conversation::change_members(&vault, me, self.id, counter, members, &policy)
        });
        self.commit(wire, founder, member, counter, made).await
    }

    async fn commit(
        &mut self,
        wire: &mut RawClient,
        founder: &Person,
        member: Option<&Person>,
        counter: fastchat_protocol::Counter,
        (client_ms, pending): (f64, Result<PendingCommit, conversation::ConversationError>),
    ) -> Result<Cost> {
        let PendingCommit { commit, group_info, welcomes, .. } = pending?;
        let frame = ClientFrame::Commit(client::Commit {
            conversation: self.id,
            counter,
            commit: commit.clone(),
            group_info,
            welcomes,
        });
        let cost = self.ask_sent(wire, &frame).await?;
        conversation::merge_pending(&founder.vault(), self.id)?;
        let member_ms = match member {
            Some(member) => self.open(member, founder.device.id(), counter, &commit)?,
            None => 0.0,
        };
        Ok(Cost { client_ms, member_ms, ..cost })
    }

    fn open(
        &self,
        member: &Person,
        sender: DeviceId,
        counter: fastchat_protocol::Counter,
        envelope: &[u8],
    ) -> Result<f64> {
        let (member_ms, opened) = timed(|| {
            let policy =
                Policy { rules: Rules::Group { left: &self.left }, manifests: &|of| self.manifest(of) };
            let (vault, me) = (member.vault(), &member.device);
            conversation::open(&vault, me, self.id, sender, counter, envelope, &policy)
        });
        opened?;
        Ok(member_ms)
    }

    async fn ask_sent(&mut self, wire: &mut RawClient, frame: &ClientFrame) -> Result<Cost> {
        let (started, cpu) = (Instant::now(), self.gateway_cpu()?);
        sent(wire.ask(frame).await?)?;
        let answer_ms = millis(started.elapsed());
        // Deliveries and wakes go on after the answer.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let bytes = frame.encode(fastchat_protocol::RequestId(7)).len();
        Ok(Cost { answer_ms, bytes, gateway_ms: self.gateway_cpu()? - cpu, ..Cost::default() })
    }

    fn manifest(&self, account: AccountId) -> Option<VerifiedManifest> {
        self.manifests.get(&account).cloned()
    }

    /// Milliseconds of processor time of the gateway so far.
    fn gateway_cpu(&mut self) -> Result<f64> {
        let pid = self.cluster.gateway(0).process().pid().context("it runs")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("a process's line")?;
        let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() * 10.0)
    }

    async fn head(&self) -> Result<i64> {
        self.number("SELECT head FROM conversations WHERE id = $1").await
    }

    async fn server_state(&self) -> Result<i64> {
        let sql = "SELECT (octet_length(group_info) + octet_length(state) + octet_length(tree))::bigint
                   FROM group_states WHERE conversation = $1";
        self.number(sql).await
    }

    async fn number(&self, sql: &'static str) -> Result<i64> {
        use sqlx::Connection;
        let mut connection = sqlx::PgConnection::connect(self.cluster.database()).await?;
        let number = sqlx::query_scalar(sql).bind(self.id.as_bytes().as_slice());
        Ok(number.fetch_one(&mut connection).await?)
    }
}

fn sent(answer: ServerFrame) -> Result<server::Sent> {
    match answer {
        ServerFrame::Sent(sent) => Ok(sent),
        other => bail!("not stored: {other:?}"),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Processor time of this thread, in milliseconds, and the result.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let before = now();
    let result = work();
    (now() - before, result)
}

/// The rows as docs/performance.md shows them.
pub(crate) fn table(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![
        "| devices | suite | step | device | to answer | gateway | a member | bytes |".to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let suite = if row.suite == Suite::PostQuantum.code() { "post-quantum" } else { "classic" };
        let steps = [
            ("claim key packages", row.claim),
            ("create", row.found),
            ("join", row.join),
            ("add one", row.add),
            ("remove one", row.remove),
            ("new keys", row.update),
            ("send", row.send),
        ];
        for (name, cost) in steps {
            let Cost { client_ms, answer_ms, gateway_ms, bytes, member_ms } = cost;
            lines.push(format!(
                "| {} | {suite} | {name} | {client_ms:.2} ms | {answer_ms:.1} ms | {gateway_ms:.1} ms | {member_ms:.2} ms | {bytes} |",
                row.devices
            ));
        }
        lines.push(format!(
            "| {} | {suite} | at rest | | | | | {} on the device, {} in the store |",
            row.devices, row.client_state, row.server_state
        ));
    }
    lines
}
