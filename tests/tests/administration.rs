//! Stories of an operator: invites, people who are shut out, devices, quotas, the audit log.

use anyhow::{Context, Result};
use fastchat_client::devices::archive::Share;
use fastchat_protocol::{ClientFrame, Code, ConversationId, Counter, Refusal, ServerFrame, client::Send};
use fastchat_tests::{
    admin::Operator,
    cli::Person,
    cluster::Cluster,
    envelope::unsealed,
    machine::Machine,
    raw::{RawClient, RawDevice},
};
use std::time::{Duration, Instant};

/// What R11 of the figures allows; waited for longer, so that a slow machine shows how slow.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn only_the_invited_register() -> Result<()> {
    let cluster = Cluster::embedded_with(&["--registration", "invite"]).await?;
    let operator = Operator::new(cluster.store_arguments());
    let person = |name: &str| Person::new(name, cluster.profile(name), &cluster.url(0));
    let (anna, berta) = (person("anna")?, person("berta")?);
    let refused = anna.run(&["register", "anna"]).await?;
    assert_ne!(refused.code, Some(0));
    assert!(refused.log.contains("needs an invite"), "{}", refused.log);

    let made = operator.json(&["invite", "create", "--note", "for anna", "--expires", "1"]).await?;
    let code = made[0]["code"].as_str().context("a code")?;
    anna.run(&["register", "anna", "--invite", code]).await?.ok()?;
    let used_up = berta.run(&["register", "berta", "--invite", code]).await?;
    assert!(used_up.code != Some(0) && used_up.log.contains("used up"), "{}", used_up.log);
    let typed = operator.run(&["admin", "invite", "create"]).await?.ok()?.stdout.trim().to_uppercase();
    let list = operator.json(&["invite", "list"]).await?;
    assert_eq!((list[0]["state"].as_str(), list[1]["state"].as_str()), (Some("good"), Some("used up")));
    assert!(!list.iter().any(|invite| invite.to_string().contains(code)), "the code is shown once");
    operator.json(&["invite", "revoke", list[0]["id"].as_str().context("an id")?]).await?;
    let withdrawn = berta.run(&["register", "berta", "--invite", &typed]).await?;
    assert_ne!(withdrawn.code, Some(0), "{}", withdrawn.log);
    let table = operator.run(&["admin", "invite", "list"]).await?.ok()?.stdout;
    assert!(table.contains("withdrawn") && table.contains("1 of 1") && table.contains("for anna"), "{table}");
    let users = operator.json(&["user", "list"]).await?;
    assert_eq!(users.len(), 1, "{users:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_out_at_once_and_may_come_back() -> Result<()> {
    disabled_and_back(Cluster::embedded().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_out_at_once_on_every_gateway() -> Result<()> {
    disabled_and_back(Cluster::fleet(2).await?).await
}

async fn disabled_and_back(mut cluster: Cluster) -> Result<()> {
    let operator = Operator::new(cluster.store_arguments());
    let last = cluster.gateways() - 1;
    let (near, far) = (cluster.gateway(0).address(), cluster.gateway(last).address());
    let (device, mut client) = RawDevice::register(&near, "alice").await?;
    let mut elsewhere = device.resume(&far).await?;
    assert_eq!(end_of(&mut client).await?.code, Code::Displaced);

    let began = Instant::now();
    let done = operator.json(&["user", "disable", "alice"]).await?;
    assert_eq!((done[0]["state"].as_str(), done[0]["changed"].as_bool()), (Some("disabled"), Some(true)));
    assert_eq!(end_of(&mut elsewhere).await?.code, Code::AccountDisabled);
    // The command itself is part of what was measured.
    assert!(began.elapsed() < CLOSED_WITHIN + Duration::from_secs(1), "{:?}", began.elapsed());
    for gateway in [&near, &far] {
        assert_eq!(device.refused(gateway).await?.code, Code::AccountDisabled);
    }
    let again = operator.json(&["user", "disable", "alice"]).await?;
    assert_eq!(again[0]["changed"].as_bool(), Some(false));
    operator.json(&["user", "enable", "alice"]).await?;
    let mut back = device.resume(&far).await?;

    // A reset login ends sessions, and the device proves itself again.
    operator.json(&["user", "reset-login", "alice"]).await?;
    assert_eq!(end_of(&mut back).await?.code, Code::PasswordChanged);
    let mut back = device.resume(&near).await?;
    let voided = operator.run(&["admin", "user", "reset-login", "alice", "--void-password"]).await?;
    assert!(voided.code != Some(0) && voided.log.contains("no recovery code"), "{}", voided.log);

    let devices = operator.json(&["device", "list", "alice"]).await?;
    let id = devices[0]["device"].as_str().context("a device")?;
    operator.json(&["device", "revoke", "alice", &id[..8]]).await?;
    assert_eq!(end_of(&mut back).await?.code, Code::Revoked);
    assert_eq!(device.refused(&far).await?.code, Code::Revoked);
    audited(&operator).await
}

async fn audited(operator: &Operator) -> Result<()> {
    let rows = operator.json(&["audit", "--user", "alice", "--since", "1h"]).await?;
    let acts: Vec<_> = rows.iter().filter_map(|row| row["act"].as_str()).collect();
    assert_eq!(acts, ["registered", "disabled", "enabled", "login_reset", "device_shut_out"]);
    assert_eq!(
        (rows[0]["actor"].as_str(), rows[1]["actor"].as_str()),
        (Some("account"), Some("operator tester"))
    );
    assert!(rows.iter().all(|row| row["name"] == "alice"), "{rows:?}");
    let table = operator.run(&["admin", "audit"]).await?.ok()?.stdout;
    assert!(table.contains("operator tester") && table.lines().count() == 6, "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_deleted_after_its_name_was_typed() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let operator = Operator::new(cluster.store_arguments());
    let address = cluster.gateway(0).address();
    let (device, mut client) = RawDevice::register(&address, "alice").await?;
    let delete = ["admin", "user", "delete", "alice"];
    let kept = operator.run_on(&delete, Some("bob")).await?;
    assert!(kept.code != Some(0) && kept.log.contains("nothing was deleted"), "{}", kept.log);
    operator.run_on(&delete, Some("alice")).await?.ok()?;
    assert_eq!(end_of(&mut client).await?.code, Code::Revoked);
    assert_eq!(device.refused(&address).await?.code, Code::Revoked);
    let users = operator.json(&["user", "list", "a*"]).await?;
    assert_eq!(users[0]["state"].as_str(), Some("deleted"));
    assert!(RawDevice::register(&address, "alice").await.is_err(), "the name stays taken");
    for (arguments, says) in [
        (&["admin", "user", "delete", "alice", "--yes"][..], "is deleted"),
        (&["admin", "user", "disable", "nobody"], "there is no account"),
        (&["admin", "user", "list", "--store", "sqlite:/nowhere/x"], "there is no store"),
    ] {
        let ran = operator.run(arguments).await;
        let ran = ran?;
        assert!(ran.code != Some(0) && ran.log.contains(says), "{arguments:?}: {}", ran.log);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_kept_where_they_are_used() -> Result<()> {
    let mut cluster = Cluster::embedded().await?;
    let operator = Operator::new(cluster.store_arguments());
    let address = cluster.gateway(0).address();
    let (device, client) = RawDevice::register(&address, "robot").await?;
    drop(client);
    operator.json(&["quota", "set", "robot", "--sends", "1"]).await?;
    let mut client = device.resume(&address).await?;
    let mut limited = 0;
    for counter in 1..=15 {
        let conversation = ConversationId::new([1; 16]);
        let send = Send {
            conversation,
            counter: Counter(counter),
            envelope: unsealed(conversation, Counter(counter)),
        };
        match client.ask(&ClientFrame::Send(send)).await? {
            ServerFrame::Refused(refusal) if refusal.code == Code::RateLimited => limited += 1,
            ServerFrame::Refused(refusal) => assert_eq!(refusal.code, Code::NotMember),
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert!((1..=5).contains(&limited), "ten at once, one a second: {limited} of 15 were limited");

    let url = cluster.url(0);
    let alice = Machine::register(&url, "alice", cluster.profile("alice")).await?;
    operator.json(&["quota", "set", "alice", "--devices", "1"]).await?;
    let refused = alice.link(&url, "alice", cluster.profile("laptop"), Share::Last(1)).await;
    let refused = format!("{:#}", refused.err().context("one device is allowed")?);
    assert!(refused.contains("may have 1 devices"), "{refused}");
    operator.json(&["quota", "set", "alice", "--devices", "default"]).await?;
    let shown = operator.json(&["quota", "show", "alice"]).await?;
    assert!(shown[0]["devices"].is_null(), "{shown:?}");
    alice.link(&url, "alice", cluster.profile("phone"), Share::Last(1)).await?;
    let wrong = operator.run(&["admin", "quota", "set", "alice", "--devices", "1000"]).await?;
    assert!(wrong.code != Some(0) && wrong.log.contains("from 1 to 32"), "{}", wrong.log);
    Ok(())
}

/// The end that the gateway gives to a connection.
async fn end_of(client: &mut RawClient) -> Result<Refusal> {
    loop {
        match client.next().await?.1 {
            ServerFrame::Closing(refusal) => return Ok(refusal),
            ServerFrame::Heads(_) | ServerFrame::Resync(_) => {}
            other => anyhow::bail!("expected the end, got {other:?}"),
        }
    }
}
