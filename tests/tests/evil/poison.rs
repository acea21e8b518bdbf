//! A member who says what no program says: each is one entry with a reason that can be read, whatever is
//! good arrives, and sync goes on.

use super::scene::{LONG, Scene};
use anyhow::{Context, Result, bail};
use fastchat_client::api::{MessageKind, MessageView};
use fastchat_e2ee::{Content, FileInfo, GroupProfile, HistoryShare, Message, MessageRef, Text};
use fastchat_protocol::{AccountId, Counter, DeviceId, server::LogKind};
use fastchat_tests::lax::{Rogue, State};
use std::time::Instant;

const TARGET: MessageRef = MessageRef { device: DeviceId::new([7; 16]), counter: Counter(300) };

/// Has the log hold a plaintext of the rogue's.
fn say(scene: &Scene, rogue: &mut Rogue, plaintext: &[u8]) -> Result<()> {
    let (id, envelope) = (scene.conversation(), rogue.seal_plaintext(plaintext)?);
    let sender = rogue.as_sender();
    let append = |state: &mut State| {
        let of = state.conversations.get_mut(&id).context("a conversation")?;
        Ok(of.append(sender, LogKind::Application, envelope))
    };
    scene.server.forge(id, append).map(drop)
}

/// One message of each kind.
fn kinds() -> Vec<Content> {
    let file = FileInfo {
        blob: [1; 16],
        key: [2; 32],
        size: 3,
        hash: [4; 32],
        name: "a".into(),
        mime: String::new(),
        preview: None,
        caption: None,
    };
    let accounts = vec![AccountId::new([5; 16])];
    vec![
        Content::Text(Text { text: "t".into(), reply: Some(TARGET), mentions: accounts.clone() }),
        Content::File(Box::new(file.clone())),
        Content::Edit { target: TARGET, text: "e".into() },
        Content::Delete { target: TARGET },
        Content::Reaction { target: TARGET, emoji: Some("x".into()) },
        Content::Timer { seconds: 60 },
        Content::History(Box::new(HistoryShare { file, count: 1, accounts })),
        Content::Profile(GroupProfile { name: "n".into(), picture: None }),
        Content::Accepted,
    ]
}

/// What cannot be read, or breaks a rule.
fn poison(alices: MessageRef) -> Vec<Vec<u8>> {
    let of = |kind: &[u8], fields: &[&[u8]]| {
        let mut bytes = vec![0xa2 + fields.len() as u8];
        bytes.extend(b"\x61v\x01");
        bytes.extend(kind);
        fields.iter().for_each(|field| bytes.extend(*field));
        bytes
    };
    let (text, edit, timer, reaction) =
        (&b"\x61k\x64text"[..], &b"\x61k\x64edit"[..], &b"\x61k\x65timer"[..], &b"\x61k\x68reaction"[..]);
    let mut many = b"\x61a\x99\xff\xff".to_vec();
    many.extend((0..0xffff).flat_map(|_| [0xf6]));
    let mut wrong = vec![
        Vec::new(),
        b"hello".to_vec(),
        vec![0x81; 10_000],
        vec![0xa1; 10_000],
        vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        b"\xa0".to_vec(),
        b"\xa1\x61v\x01".to_vec(),
        of(text, &[b"\x61t\x07"]),
        of(text, &[]),
        of(text, &[b"\x61t\x61x", b"\x61r\x20"]),
        of(text, &[b"\x61t\x61x", b"\x61r\x80"]),
        of(text, &[b"\x61t\x61x", b"\x61a\x20"]),
        of(text, &[b"\x61t\x61x", &many]),
        of(text, &[b"\x61t\x61x", b"\x61x\x20"]),
        of(text, &[b"\x61t\x61x", b"\x61x\x00"]),
        of(text, &[b"\x61t\x62\xff\xff"]),
        of(edit, &[b"\x61t\x61x"]),
        of(edit, &[b"\x61t\x61x", b"\x61r\x61x"]),
        of(timer, &[b"\x61s\x20"]),
        of(timer, &[b"\x61s\x1a\xff\xff\xff\xff"]),
        of(timer, &[]),
        of(reaction, &[b"\x61e\x60"]),
        of(reaction, &[b"\x61e\x07"]),
        of(b"\x61k\x64file", &[b"\x61f\x80"]),
        of(b"\x61k\x66delete", &[b"\x61r\xf6"]),
        // A kind of tomorrow.
        of(b"\x61k\x65video", &[b"\x61t\x07"]),
        // What is Alice's is not Mallory's, and a profile is not for two.
        Content::Edit { target: alices, text: "mine".into() }.encode(),
        Content::Delete { target: alices }.encode(),
        Content::Profile(GroupProfile { name: "n".into(), picture: None }).encode(),
    ];
    for content in kinds() {
        let whole = Message { expires_s: Some(9), ..Message::new(content) }.encode();
        wrong.extend((1..whole.len()).map(|length| whole[..length].to_vec()));
    }
    wrong
}

fn is_odd(message: &MessageView) -> bool {
    matches!(message.kind, MessageKind::Quarantine | MessageKind::Unknown)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_put_aside_and_the_rest_arrives() -> Result<()> {
    let (scene, mut mallory) = Scene::with_rogue().await?;
    let alice = &scene.alice;
    let own = alice.history("mallory").await?.into_iter().find(|m| m.own).context("one of alice's")?;
    let name = own.id.clone().context("an id")?;
    let (device, counter) = name.split_once('-').context("a device and a count")?;
    let alices = MessageRef { device: device.parse()?, counter: Counter(counter.parse()?) };
    let poison = poison(alices);
    let mut good = 0;
    for (at, plaintext) in poison.iter().enumerate() {
        say(&scene, &mut mallory, plaintext)?;
        if at % 20 == 0 {
            good += 1;
            say(&scene, &mut mallory, &Content::Text(format!("good {good}").as_str().into()).encode())?;
        }
    }
    say(&scene, &mut mallory, &Content::Text("the last".into()).encode())?;
    let until = Instant::now() + 4 * LONG;
    let history = loop {
        let history = alice.history("mallory").await?;
        if history.iter().any(|message| message.text == "the last") {
            break history;
        }
        if Instant::now() > until {
            bail!("sync has stopped at {:?}", history.last());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let texts = history.iter().filter(|m| m.kind == MessageKind::Text && m.text.starts_with("good ")).count();
    assert_eq!(texts, good, "what is good arrives");
    let odd: Vec<&MessageView> = history.iter().filter(|message| is_odd(message)).collect();
    assert_eq!(odd.len(), poison.len(), "each is one entry");
    for message in odd {
        let readable = message.text.len() > 10 && !message.text.contains(char::is_control);
        assert!(readable, "{:?}", message.text);
    }
    for words in ["wanted to edit message", "wanted to delete message", "\"video\""] {
        assert!(history.iter().any(|message| message.text.contains(words)), "{words}");
    }
    let after = history.iter().find(|message| message.id == Some(name.clone())).context("alice's own")?;
    assert_eq!((&after.text, after.edited, after.deleted), (&own.text, false, false));
    alice.send("mallory").await?;
    Ok(())
}
