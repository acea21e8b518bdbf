//! `fastchat group list` and `fastchat group info`.

use super::shown;
use crate::cli::{
    context::{Context, unexpected},
    output,
};
use fastchat_client::{
    api::{ApiError, GroupView, Request, Response},
    client::Options,
    terminal::clean_line,
};

/// List the groups you are in.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group list\n  fastchat group list --json | jq -r .handle")]
pub(crate) struct ListArgs {}

/// Show a group: its members, their roles, its encryption.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fastchat group info '#team'\n  fastchat group info 3f9a12cd --json")]
pub(crate) struct InfoArgs {
    /// #NAME, or the beginning of the id.
    group: String,
}

pub(super) async fn list(context: &Context, _: ListArgs) -> Result<(), ApiError> {
    let response = ask(context, Request::Groups).await?;
    let Response::Groups { groups } = response else { return Err(unexpected(&response)) };
    if groups.is_empty() && !context.json() {
        output::note("no groups yet: `fastchat group create NAME MEMBER...` founds one");
    }
    for group in &groups {
        context.print(&Response::Group(group.clone()), || line(group));
    }
    Ok(())
}

pub(super) async fn info(context: &Context, args: InfoArgs) -> Result<(), ApiError> {
    match ask(context, Request::GroupInfo { group: args.group }).await? {
        Response::Group(group) => {
            context.print(&Response::Group(group.clone()), || text(&group));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

async fn ask(context: &Context, request: Request) -> Result<Response, ApiError> {
    let options = Options::default();
    let mut client = context.client(options).await?;
    context.glance(&mut client).await?;
    let answer = context.request(&mut client, options, request).await;
    client.close().await;
    answer
}

fn line(group: &GroupView) -> String {
    let state = match (group.request, group.state.as_str()) {
        (true, _) => " (request)".to_owned(),
        (false, "ready") => String::new(),
        (false, state) => format!(" ({state})"),
    };
    let id = &group.conversation[..8];
    let name = if group.name.is_empty() { String::new() } else { format!("#{}", clean_line(&group.name)) };
    format!("{name:<24} {id}  {:>4} members  you: {}{state}", here(group), group.role)
}

/// Members, without those who have left and are still to be taken out.
fn here(group: &GroupView) -> usize {
    group.members.iter().filter(|member| member.trust != "left").count()
}

fn text(group: &GroupView) -> String {
    let kind = if group.post_quantum { "post-quantum" } else { "not post-quantum" };
    let mut lines = vec![
        format!("{}  {}", shown(group), group.conversation),
        format!("  {} members, {} devices", here(group), group.devices),
        format!("  encryption: {} ({kind})", group.encryption),
    ];
    if let Some(picture) = &group.picture {
        lines.push(format!("  picture: {}", clean_line(picture)));
    }
    if group.state != "ready" {
        lines.push(format!("  state: {}", group.state));
    }
    if group.request {
        lines.push("  a request: `fastchat requests accept` or `decline` it".to_owned());
    }
    for member in &group.members {
        let you = if member.own { " (you)" } else { "" };
        let role = if member.role == "member" { String::new() } else { format!("  {}", member.role) };
        let trust = match member.trust.as_str() {
            "unverified" => String::new(),
            _ if member.own => String::new(),
            trust => format!("  {trust}"),
        };
        lines.push(format!("  - {}{you}{role}{trust}", clean_line(&member.name)));
    }
    lines.join("\n")
}
