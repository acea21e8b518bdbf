//! Groups, message requests, blocking and presence: requests with their answers' types.

use super::{Client, unexpected};
use crate::api::{
    ApiError, ErrorKind, GroupChange, GroupView, PersonView, PictureChange, PictureView, Request,
    RequestView, Response, UnreadView,
};
use std::time::Duration;

impl Client {
    /// Founds a group and waits until the server has it, with its name. An error of kind `Timeout`
    /// means that it waits on this device.
    pub async fn create_group(
        &self,
        name: &str,
        members: &[&str],
        picture: Option<PictureView>,
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        let request = Request::GroupCreate {
            id: hex::encode(rand::random::<[u8; 16]>()),
            name: name.to_owned(),
            members: owned(members),
            picture,
            leave_post_quantum: false,
            wait_ms: ms(wait),
        };
        self.group_answer(request).await
    }

    /// The groups this account is in.
    pub async fn groups(&self) -> Result<Vec<GroupView>, ApiError> {
        match self.request(Request::Groups).await? {
            Response::Groups { groups } => Ok(groups),
            other => Err(unexpected(&other)),
        }
    }

    /// A group and its members. `group`: `#` and its name, or the beginning of its id.
    pub async fn group(&self, group: &str) -> Result<GroupView, ApiError> {
        self.group_answer(Request::GroupInfo { group: group.to_owned() }).await
    }

    /// Changes a group's members and waits until the server has that.
    pub async fn change_group(
        &self,
        group: &str,
        change: GroupChange,
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        self.group_answer(Request::GroupChange { group: group.to_owned(), change, wait_ms: ms(wait) }).await
    }

    /// Adds people to a group.
    pub async fn add_members(
        &self,
        group: &str,
        members: &[&str],
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        let change = GroupChange::Add { members: owned(members), leave_post_quantum: false, history: 0 };
        self.change_group(group, change, wait).await
    }

    /// Hands the last messages from before they came to members of a group.
    pub async fn share_history(
        &self,
        group: &str,
        members: &[&str],
        last: u32,
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        let (group, members, wait_ms) = (group.to_owned(), owned(members), ms(wait));
        self.group_answer(Request::GroupShare { group, members, last, wait_ms }).await
    }

    /// Takes people out of a group.
    pub async fn remove_members(
        &self,
        group: &str,
        members: &[&str],
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        self.change_group(group, GroupChange::Remove { members: owned(members) }, wait).await
    }

    /// Leaves a group.
    pub async fn leave_group(&self, group: &str, wait: Duration) -> Result<(), ApiError> {
        let request =
            Request::GroupChange { group: group.to_owned(), change: GroupChange::Leave, wait_ms: ms(wait) };
        self.done(request).await
    }

    /// Gives a group another name or picture.
    pub async fn group_profile(
        &self,
        group: &str,
        name: Option<&str>,
        picture: Option<PictureChange>,
        wait: Duration,
    ) -> Result<GroupView, ApiError> {
        let (group, name) = (group.to_owned(), name.map(str::to_owned));
        self.group_answer(Request::GroupProfile { group, name, picture, wait_ms: ms(wait) }).await
    }

    /// A group's picture.
    pub async fn group_picture(&self, group: &str) -> Result<Option<PictureView>, ApiError> {
        match self.request(Request::GroupPicture { group: group.to_owned() }).await? {
            Response::Picture { picture } => Ok(picture),
            other => Err(unexpected(&other)),
        }
    }

    /// How much nobody has seen, by where it is.
    pub async fn unread(&self) -> Result<UnreadView, ApiError> {
        match self.request(Request::Conversations).await? {
            Response::Conversations { unread, .. } => Ok(unread),
            other => Err(unexpected(&other)),
        }
    }

    /// What waits for a yes.
    pub async fn requests(&self) -> Result<Vec<RequestView>, ApiError> {
        match self.request(Request::Requests).await? {
            Response::Requests { requests } => Ok(requests),
            other => Err(unexpected(&other)),
        }
    }

    /// Says yes or no to what waits. Yes holds at once, even if nobody can be told in time.
    pub async fn answer_request(&self, with: &str, accept: bool, wait: Duration) -> Result<(), ApiError> {
        let request = Request::RequestAnswer { with: with.to_owned(), accept, wait_ms: ms(wait) };
        match self.request(request).await? {
            Response::Waiting(waiting) if !accept => Err(ApiError::new(ErrorKind::Timeout, waiting.reason)),
            Response::Waiting(_) | Response::Sent(_) | Response::Done | Response::Group(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets who may write without being asked for (`ask` or `open`); what is in force.
    pub async fn request_policy(&self, policy: Option<&str>) -> Result<String, ApiError> {
        match self.request(Request::RequestPolicy { policy: policy.map(str::to_owned) }).await? {
            Response::Policy { policy } => Ok(policy),
            other => Err(unexpected(&other)),
        }
    }

    /// Blocks an account, or no longer.
    pub async fn block(&self, name: &str, blocked: bool, wait: Duration) -> Result<(), ApiError> {
        self.done(Request::Block { name: name.to_owned(), blocked, wait_ms: ms(wait) }).await
    }

    /// The blocked accounts.
    pub async fn blocked(&self) -> Result<Vec<String>, ApiError> {
        match self.request(Request::Blocked).await? {
            Response::Names { names } => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    /// Who is online of those with whom there is a conversation.
    pub async fn online(&self, wait: Duration) -> Result<Vec<PersonView>, ApiError> {
        match self.request(Request::Online { wait_ms: ms(wait), watch_s: 0 }).await? {
            Response::Online { people } => Ok(people),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether others may learn that this account is online.
    pub async fn set_visible(&self, visible: bool, wait: Duration) -> Result<(), ApiError> {
        self.done(Request::SetVisible { visible, wait_ms: ms(wait) }).await
    }

    async fn group_answer(&self, request: Request) -> Result<GroupView, ApiError> {
        match self.request(request).await? {
            Response::Group(group) => Ok(group),
            Response::Waiting(waiting) => Err(ApiError::new(ErrorKind::Timeout, waiting.reason)),
            other => Err(unexpected(&other)),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ApiError> {
        match self.request(request).await? {
            Response::Done | Response::Group(_) => Ok(()),
            Response::Waiting(waiting) => Err(ApiError::new(ErrorKind::Timeout, waiting.reason)),
            other => Err(unexpected(&other)),
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ms(wait: Duration) -> u64 {
    wait.as_millis() as u64
}
