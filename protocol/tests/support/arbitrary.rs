//! A strategy for every frame. A `struct` literal names all fields, so that a new one cannot be left out.

use fastchat_protocol::{
    AccountName, Bytes, ClientFrame, Code, Counter, Epoch, Refusal, RequestId, Seq, ServerFrame,
    bus::{self, BusFrame},
    client::{self, AuthKey},
    fleet::{self, FleetFrame},
    ids::{AccountId, BalancerId, BlobId, ConversationId, DeviceId, GatewayId, SlotId},
    server::{self, LogKind},
};
use proptest::{array::uniform32, collection::vec, option, prelude::*};

/// Declares a strategy for a struct from one for each field.
macro_rules! structs {
    ($($name:ident: $($type:ident)::+ { $($field:ident: $strategy:expr),+ $(,)? })+) => {$(
        fn $name() -> impl Strategy<Value = $($type)::+> {
            ($($strategy,)+).prop_map(|($($field,)+)| $($type)::+ { $($field),+ })
        }
    )+};
}

fn account() -> impl Strategy<Value = AccountId> {
    any::<[u8; 16]>().prop_map(AccountId::new)
}

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 16]>().prop_map(DeviceId::new)
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<[u8; 16]>().prop_map(ConversationId::new)
}

fn gateway() -> impl Strategy<Value = GatewayId> {
    any::<[u8; 16]>().prop_map(GatewayId::new)
}

fn balancer() -> impl Strategy<Value = BalancerId> {
    any::<[u8; 16]>().prop_map(BalancerId::new)
}

fn slot() -> impl Strategy<Value = SlotId> {
    any::<[u8; 16]>().prop_map(SlotId::new)
}

fn blob() -> impl Strategy<Value = BlobId> {
    any::<[u8; 16]>().prop_map(BlobId::new)
}

fn token() -> impl Strategy<Value = server::BlobToken> {
    uniform32(any::<u8>()).prop_map(server::BlobToken::new)
}

/// Numbers of every encoded length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(bits, shift)| bits >> shift)
}

fn seq() -> impl Strategy<Value = Seq> {
    number().prop_map(Seq)
}

fn counter() -> impl Strategy<Value = Counter> {
    number().prop_map(Counter)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = AuthKey> {
    "\\PC{0,60}".prop_map(AuthKey::new)
}

fn name() -> impl Strategy<Value = AccountName> {
    "[a-z]([a-z0-9._-]{0,30}[a-z0-9])?".prop_map(|text| text.parse().expect("a good name"))
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

fn code() -> impl Strategy<Value = Code> {
    any::<u16>().prop_map(Code::from)
}

fn kind() -> impl Strategy<Value = LogKind> {
    any::<u8>().prop_map(LogKind::from)
}

/// Any request number.
pub(crate) fn request() -> impl Strategy<Value = RequestId> {
    any::<u32>().prop_map(RequestId)
}

structs! {
    hello: client::Hello { versions: vec(any::<u16>(), 0..9), agent: text(), host: text(), ticket: option::of(bytes()) }
    register: client::Register {
        name: text(), auth_key: key(), device: device(), signature: bytes(), manifest: bytes(),
        invite: option::of(text()),
    }
    login: client::Login { name: text(), auth_key: key(), device: device(), signature: bytes() }
    resume: client::Resume { device: device(), signature: bytes() }
    send: client::Send { conversation: conversation(), counter: counter(), envelope: bytes() }
    commit: client::Commit {
        conversation: conversation(), counter: counter(), commit: bytes(), group_info: bytes(),
        welcomes: vec(welcome(), 0..4),
    }
    welcome: client::Welcome { devices: vec(device(), 0..9), welcome: bytes() }
    found: client::Found {
        conversation: conversation(), peer: account(), group_info: bytes(), tree: bytes(),
        welcomes: vec(welcome(), 0..4),
    }
    fetch: client::Fetch { conversation: conversation(), after: seq(), limit: any::<u32>() }
    ack: client::Ack { cursors: vec(cursor(), 0..9) }
    cursor: client::Cursor { conversation: conversation(), seq: seq(), authenticator: option::of(bytes()) }
    fetch_mailbox: client::FetchMailbox { after: seq() }
    ack_mailbox: client::AckMailbox { seq: seq() }
    sync: client::Sync { after: option::of(conversation()) }
    find_account: client::FindAccount { name: name() }
    get_account: client::GetAccount { account: account() }
    publish: client::PublishKeyPackages {
        suite: any::<u16>(), one_time: vec(bytes(), 0..4), last_resort: option::of(bytes()),
    }
    claim: client::ClaimKeyPackages { account: account(), suite: any::<u16>() }
    get_group_state: client::GetGroupState { conversation: conversation() }
    get_tree: client::GetTree { conversation: conversation(), hash: bytes() }
    put_manifest: client::PutManifest { manifest: bytes() }
    change_password: client::ChangePassword { old: key(), new: key() }
    found_group: client::FoundGroup {
        conversation: conversation(), counter: counter(), replaces: option::of(epoch()), group_info: bytes(),
        tree: bytes(), welcomes: vec(welcome(), 0..4),
    }
    leave: client::Leave { conversation: conversation(), counter: counter(), statement: bytes() }
    link: client::Link { name: text(), auth_key: key() }
    recover: client::Recover { name: text(), recovery_key: key() }
    put_slot: client::PutSlot {
        slot: slot(), part: any::<u32>(), bytes: bytes(), expires_in_s: any::<u32>(),
    }
    get_slot: client::GetSlot { slot: slot(), part: any::<u32>() }
    drop_slot: client::DropSlot { slot: slot() }
    set_recovery: client::SetRecovery { recovery_key: key(), sealed: bytes() }
    restore: client::Restore { manifest: bytes(), auth_key: key() }
    block: client::Block { account: account(), blocked: any::<bool>() }
    delete_account: client::DeleteAccount { auth_key: key() }
    ask_presence: client::AskPresence { accounts: vec(account(), 0..9), watch_s: any::<u32>() }
    set_visible: client::SetVisible { visible: any::<bool>() }
    begin_blob: client::BeginBlob {
        conversation: conversation(), blob: blob(), size_bytes: number(), parts: any::<u32>(),
    }
    finish_blob: client::FinishBlob { conversation: conversation(), blob: blob() }
    get_blob: client::GetBlob { conversation: conversation(), blob: blob() }
    drop_blob: client::DropBlob { conversation: conversation(), blob: blob() }
    mark_read: client::MarkRead { conversation: conversation(), seq: seq(), shared: any::<bool>() }
    get_receipts: client::GetReceipts { conversation: conversation() }
    typing: client::Typing { conversation: conversation(), typing: any::<bool>() }
    set_sharing: client::SetSharing { delivered: any::<bool>(), last_seen: any::<bool>() }

    server_hello: server::Hello {
        version: any::<u16>(), deployment: text(), nonce: uniform32(any::<u8>()), incarnation: any::<u32>(),
        max_frame: any::<u32>(), max_envelope: any::<u32>(),
    }
    session: server::Session {
        account: account(), name: name(), device: device(), mailbox_head: seq(), ping_seconds: any::<u32>(),
        key_packages: vec(left(), 0..4), sharing: option::of(sharing()),
    }
    sharing: server::Sharing { online: any::<bool>(), delivered: any::<bool>(), last_seen: any::<bool>() }
    refusal: Refusal {
        code: code(), detail: text(), wait_ms: option::of(any::<u32>()), seq: option::of(seq()),
        expected: option::of(counter()), epoch: option::of(epoch()), conversation: option::of(conversation()),
        versions: vec(any::<u16>(), 0..4),
    }
    epoch: Epoch { generation: any::<u32>(), number: number() }
    sent: server::Sent { seq: seq(), at_ms: number(), duplicate: any::<bool>() }
    row: server::LogRow {
        seq: seq(), sender: device(), counter: counter(), kind: kind(), at_ms: number(),
        envelope: option::of(bytes()),
    }
    deliver: server::Deliver { conversation: conversation(), row: row() }
    page: server::LogPage { conversation: conversation(), rows: vec(row(), 0..5), head: seq(), first: seq() }
    head: server::Head { conversation: conversation(), seq: seq() }
    heads: server::Heads { heads: vec(head(), 0..5), mailbox: option::of(seq()) }
    item: server::MailboxItem { seq: seq(), kind: any::<u8>(), body: bytes() }
    mailbox_page: server::MailboxPage { items: vec(item(), 0..4), head: seq() }
    restored: server::Restored { incarnation: any::<u32>(), head: seq(), epoch: epoch() }
    state: server::ConversationState {
        conversation: conversation(), peer: option::of(account()), unjoined: any::<bool>(), epoch: epoch(),
        head: seq(), cursor: seq(), join_seq: seq(), counter: counter(), restored: vec(restored(), 0..3),
    }
    conversations: server::Conversations { list: vec(state(), 0..4), more: any::<bool>() }
    account_frame: server::Account { account: account(), name: name(), manifest: bytes() }
    key_package: server::KeyPackage { device: device(), package: bytes() }
    key_packages: server::KeyPackages { packages: vec(key_package(), 0..4) }
    left: server::KeyPackagesLeft { suite: any::<u16>(), left: any::<u32>(), last_resort: any::<bool>() }
    group_state: server::GroupState { epoch: epoch(), head: seq(), group_info: bytes(), tree: bytes() }
    tree: server::Tree { tree: bytes() }
    resync: server::Resync { reason: text() }
    draining: server::Draining { reconnect_in_ms: any::<u32>() }
    go_elsewhere: server::Move { url: text(), ticket: bytes() }
    restricted: server::Restricted {
        account: account(), name: name(), manifest: bytes(), recovery: option::of(bytes()),
    }
    slot_part: server::Slot { bytes: option::of(bytes()) }
    blocked: server::Blocked { accounts: vec(account(), 0..9) }
    blob_grant: server::BlobGrant {
        token: token(), blob: blob(), size_bytes: number(), parts: any::<u32>(), have: option::of(bytes()),
        expires_in_s: any::<u32>(), complete: any::<bool>(),
    }
    presence: server::Presence { account: account(), online: any::<bool>(), last_seen_ms: option::of(number()) }
    receipt: server::Receipt {
        conversation: conversation(), account: account(), delivered: option::of(seq()), read: option::of(seq()),
    }
    member_receipt: server::MemberReceipt {
        account: account(), from: seq(), delivered: option::of(seq()), read: option::of(seq()),
    }
    receipts: server::Receipts { conversation: conversation(), members: vec(member_receipt(), 0..5) }
    typing_told: server::Typing { conversation: conversation(), account: account(), typing: any::<bool>() }

    bus_row: bus::Row {
        conversation: conversation(), seq: seq(), sender: device(), revision: number(), frame: bytes(),
    }
    heartbeat: fleet::Heartbeat {
        gateway: gateway(), count: number(), at_ms: number(), period_ms: any::<u32>(), url: "\\PC{0,40}",
        connections: number(), capacity: number(), cpu_permille: any::<u32>(), draining: any::<bool>(),
        versions: vec(any::<u16>(), 0..5), agent: "\\PC{0,40}",
    }
    shed: fleet::Shed { over_ms: any::<u32>(), moves: vec(go_elsewhere(), 0..5) }
    announcement: fleet::Balancer { balancer: balancer(), moves: any::<bool>() }
    bus_mailbox: bus::Mailbox { device: device(), head: seq() }
    connected: bus::Connected { device: device() }
    revoked: bus::Revoked { device: option::of(device()), except: option::of(device()) }
    visible: bus::Visible {
        visible: any::<bool>(), delivered: option::of(any::<bool>()), last_seen: option::of(any::<bool>()),
    }
    bus_receipt: bus::Receipt {
        conversation: conversation(), revision: number(), device: device(), frame: bytes(),
    }
    bus_typing: bus::Typing {
        conversation: conversation(), revision: number(), device: device(), frame: bytes(),
    }
    joined: bus::Joined { conversation: conversation() }
    presence_asked: bus::PresenceAsked { by: account(), watch_s: any::<u32>() }
    presence_told: bus::PresenceTold {
        account: account(), online: any::<bool>(), last_seen_ms: option::of(number()),
    }
}

/// Any frame of a client.
pub(crate) fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        hello().prop_map(ClientFrame::Hello),
        register().prop_map(ClientFrame::Register),
        login().prop_map(ClientFrame::Login),
        resume().prop_map(ClientFrame::Resume),
        send().prop_map(ClientFrame::Send),
        commit().prop_map(ClientFrame::Commit),
        found().prop_map(ClientFrame::Found),
        fetch().prop_map(ClientFrame::Fetch),
        ack().prop_map(ClientFrame::Ack),
        fetch_mailbox().prop_map(ClientFrame::FetchMailbox),
        ack_mailbox().prop_map(ClientFrame::AckMailbox),
        sync().prop_map(ClientFrame::Sync),
        find_account().prop_map(ClientFrame::FindAccount),
        get_account().prop_map(ClientFrame::GetAccount),
        publish().prop_map(ClientFrame::PublishKeyPackages),
        claim().prop_map(ClientFrame::ClaimKeyPackages),
        get_group_state().prop_map(ClientFrame::GetGroupState),
        get_tree().prop_map(ClientFrame::GetTree),
        put_manifest().prop_map(ClientFrame::PutManifest),
        change_password().prop_map(ClientFrame::ChangePassword),
        found_group().prop_map(ClientFrame::FoundGroup),
        leave().prop_map(ClientFrame::Leave),
        link().prop_map(ClientFrame::Link),
        recover().prop_map(ClientFrame::Recover),
        put_slot().prop_map(ClientFrame::PutSlot),
        get_slot().prop_map(ClientFrame::GetSlot),
        drop_slot().prop_map(ClientFrame::DropSlot),
        set_recovery().prop_map(ClientFrame::SetRecovery),
        restore().prop_map(ClientFrame::Restore),
        block().prop_map(ClientFrame::Block),
        Just(ClientFrame::GetBlocked(client::GetBlocked {})),
        delete_account().prop_map(ClientFrame::DeleteAccount),
        ask_presence().prop_map(ClientFrame::AskPresence),
        set_visible().prop_map(ClientFrame::SetVisible),
        begin_blob().prop_map(ClientFrame::BeginBlob),
        finish_blob().prop_map(ClientFrame::FinishBlob),
        get_blob().prop_map(ClientFrame::GetBlob),
        drop_blob().prop_map(ClientFrame::DropBlob),
        mark_read().prop_map(ClientFrame::MarkRead),
        get_receipts().prop_map(ClientFrame::GetReceipts),
        typing().prop_map(ClientFrame::Typing),
        set_sharing().prop_map(ClientFrame::SetSharing),
    ]
}

/// Any frame of a gateway.
pub(crate) fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        server_hello().prop_map(ServerFrame::Hello),
        session().prop_map(ServerFrame::Session),
        Just(ServerFrame::Done(server::Done {})),
        refusal().prop_map(ServerFrame::Refused),
        sent().prop_map(ServerFrame::Sent),
        deliver().prop_map(ServerFrame::Deliver),
        page().prop_map(ServerFrame::LogPage),
        heads().prop_map(ServerFrame::Heads),
        mailbox_page().prop_map(ServerFrame::MailboxPage),
        conversations().prop_map(ServerFrame::Conversations),
        account_frame().prop_map(ServerFrame::Account),
        key_packages().prop_map(ServerFrame::KeyPackages),
        left().prop_map(ServerFrame::KeyPackagesLeft),
        group_state().prop_map(ServerFrame::GroupState),
        tree().prop_map(ServerFrame::Tree),
        resync().prop_map(ServerFrame::Resync),
        draining().prop_map(ServerFrame::Draining),
        go_elsewhere().prop_map(ServerFrame::Move),
        refusal().prop_map(ServerFrame::Closing),
        restricted().prop_map(ServerFrame::Restricted),
        slot_part().prop_map(ServerFrame::Slot),
        blocked().prop_map(ServerFrame::Blocked),
        presence().prop_map(ServerFrame::Presence),
        blob_grant().prop_map(ServerFrame::BlobGrant),
        receipt().prop_map(ServerFrame::Receipt),
        receipts().prop_map(ServerFrame::Receipts),
        typing_told().prop_map(ServerFrame::Typing),
    ]
}

/// Any record on the bus.
pub(crate) fn bus_frame() -> impl Strategy<Value = BusFrame> {
    prop_oneof![
        bus_row().prop_map(BusFrame::Row),
        bus_mailbox().prop_map(BusFrame::Mailbox),
        connected().prop_map(BusFrame::Connected),
        revoked().prop_map(BusFrame::Revoked),
        joined().prop_map(BusFrame::Joined),
        presence_asked().prop_map(BusFrame::PresenceAsked),
        presence_told().prop_map(BusFrame::PresenceTold),
        visible().prop_map(BusFrame::Visible),
        bus_receipt().prop_map(BusFrame::Receipt),
        bus_typing().prop_map(BusFrame::Typing),
    ]
}

/// Any record of the fleet.
pub(crate) fn fleet_frame() -> impl Strategy<Value = FleetFrame> {
    prop_oneof![
        heartbeat().prop_map(FleetFrame::Heartbeat),
        shed().prop_map(FleetFrame::Shed),
        announcement().prop_map(FleetFrame::Balancer),
    ]
}
