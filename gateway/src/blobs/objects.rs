//! Object storage: a folder, or a server that speaks S3.
//!
//! A part is one object, `<prefix>/<deployment>/<conversation>/<blob>/<part>-<SHA-256>`. Every call has a
//! deadline, few retries, and is counted. What is not named like a part is nobody's here, and stays.

use super::KeepError;
use crate::{
    config::{S3, Storage},
    metrics,
    store::blobs::BlobKey,
};
use bytes::Bytes;
use fastchat_protocol::ConversationId;
use futures_util::{StreamExt, stream::BoxStream};
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Limit: one object put, fetched or removed, with retries.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Limit: one try of it, of [`TRIES`].
const TRY: Duration = Duration::from_secs(8);
const TRIES: usize = 3;
/// Limit: all objects of one blob listed and removed, or of one conversation looked through.
pub(super) const LIST_DEADLINE: Duration = Duration::from_secs(120);

/// Variables of the environment that say who asks, where no files do. All others of Amazon's that the
/// crate knows are settings of a gateway, or nobody's.
const CREDENTIALS: [AmazonS3ConfigKey; 11] = [
    AmazonS3ConfigKey::AccessKeyId,
    AmazonS3ConfigKey::SecretAccessKey,
    AmazonS3ConfigKey::Token,
    AmazonS3ConfigKey::WebIdentityTokenFile,
    AmazonS3ConfigKey::RoleArn,
    AmazonS3ConfigKey::RoleSessionName,
    AmazonS3ConfigKey::StsEndpoint,
    AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    AmazonS3ConfigKey::ContainerCredentialsFullUri,
    AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    AmazonS3ConfigKey::MetadataEndpoint,
];

/// What is asked of object storage.
#[derive(Debug, Clone, Copy)]
pub enum Operation {
    /// A part is put.
    Put,
    /// A part is fetched.
    Get,
    /// Parts are removed.
    Remove,
    /// Names are listed.
    List,
}

/// Where objects are.
#[derive(Clone)]
pub struct Objects {
    objects: Arc<dyn ObjectStore>,
    /// As a folder, whose files are synced before a part counts as put.
    folder: Option<Arc<LocalFileSystem>>,
    root: Path,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the client: it holds keys.
        f.debug_struct("Objects").field("root", &self.root).finish_non_exhaustive()
    }
}

/// An object that is named like a part.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) key: BlobKey,
    pub(super) number: u32,
    pub(super) hash: [u8; 32],
    pub(super) modified_ms: u64,
}

impl Objects {
    /// Opens what is set; `None` if bytes go into the store. Nobody is asked yet.
    pub fn open(storage: &Storage, deployment: &str) -> object_store::Result<Option<Self>> {
        match storage {
            Storage::Store => Ok(None),
            Storage::Folder(folder) => Self::folder(folder, deployment).map(Some),
            Storage::S3(s3) => Self::s3(s3, deployment).map(Some),
        }
    }

    /// The folder is not made here: where a disk is not mounted, files would go beside it.
    fn folder(folder: &FilePath, deployment: &str) -> object_store::Result<Self> {
        let local = Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true));
        let objects = Arc::clone(&local) as Arc<dyn ObjectStore>;
        Ok(Self { objects, folder: Some(local), root: Path::default().join(deployment) })
    }

    fn s3(s3: &S3, deployment: &str) -> object_store::Result<Self> {
        let options = ClientOptions::new()
            .with_timeout(TRY)
            .with_connect_timeout(Duration::from_secs(5))
            .with_allow_http(s3.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")));
        let retry =
            RetryConfig { max_retries: TRIES - 1, retry_timeout: DEADLINE - TRY, ..RetryConfig::default() };
        let builder = match &s3.keys {
            Some((access, key)) => {
                AmazonS3Builder::new().with_access_key_id(access).with_secret_access_key(key)
            }
            None => from_environment(AmazonS3Builder::new()),
        };
        let builder = builder
            .with_bucket_name(&s3.bucket)
            .with_region(&s3.region)
            .with_client_options(options)
            .with_retry(retry);
        let builder = match &s3.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint),
            None => builder,
        };
        let root = Path::from(s3.prefix.as_str()).join(deployment);
        Ok(Self { objects: Arc::new(builder.build()?), folder: None, root })
    }

    pub(super) async fn put(
        &self,
        key: BlobKey,
        number: u32,
        hash: &[u8; 32],
        bytes: Bytes,
    ) -> Result<(), KeepError> {
        let path = self.part(key, number, hash);
        let put = async {
            self.objects.put(&path, bytes.into()).await?;
            match &self.folder {
                Some(folder) => sync(folder.path_to_filesystem(&path)?).await,
                None => Ok(()),
            }
        };
        within(Operation::Put, DEADLINE, async { Ok(put.await?) }).await
    }

    /// A part's bytes; `None` if there is no such object. Longer than it should be, it is not read.
    pub(super) async fn get(
        &self,
        key: BlobKey,
        number: u32,
        hash: &[u8; 32],
        size_bytes: u64,
    ) -> Result<Bytes, KeepError> {
        let path = self.part(key, number, hash);
        let lost = |why| KeepError::Lost { why, blob: key, part: number };
        within(Operation::Get, DEADLINE, async {
            let found = match self.objects.get(&path).await {
                Err(error) if is_missing(&error) => return Err(lost("is gone")),
                found => found?,
            };
            if found.meta.size != size_bytes {
                return Err(lost("has another length"));
            }
            Ok(found.bytes().await?)
        })
        .await
    }

    pub(super) async fn remove_part(
        &self,
        key: BlobKey,
        number: u32,
        hash: &[u8; 32],
    ) -> Result<(), KeepError> {
        let path = self.part(key, number, hash);
        within(Operation::Remove, DEADLINE, async { Ok(gone(self.objects.delete(&path).await)?) }).await
    }

    /// All objects of a blob, also those that no row knows.
    pub(super) async fn remove(&self, key: BlobKey) -> Result<(), KeepError> {
        let blob = self.blob(key);
        within(Operation::Remove, LIST_DEADLINE, async {
            let listed = self.objects.list(Some(&blob)).map(|one| one.map(|object| object.location));
            let mut removed = self.objects.delete_stream(listed.boxed());
            while let Some(one) = removed.next().await {
                gone(one.map(drop))?;
            }
            match &self.folder {
                Some(folder) => Ok(clear(folder.path_to_filesystem(&blob)?).await?),
                None => Ok(()),
            }
        })
        .await
    }

    /// Conversations beside which there is something.
    pub(super) async fn conversations(&self) -> Result<Vec<ConversationId>, KeepError> {
        within(Operation::List, LIST_DEADLINE, async {
            let folders = match self.objects.list_with_delimiter(Some(&self.root)).await {
                Err(error) if is_missing(&error) => return Ok(Vec::new()),
                listed => listed?.common_prefixes,
            };
            Ok(folders.iter().filter_map(|path| path.filename()?.parse().ok()).collect())
        })
        .await
    }

    /// What is beside a conversation, blob by blob.
    pub(super) fn beside(
        &self,
        conversation: ConversationId,
    ) -> BoxStream<'static, object_store::Result<Option<Found>>> {
        let listed = self.objects.list(Some(&self.root.clone().join(conversation.to_string())));
        listed.map(|object| Ok(found(&object?))).boxed()
    }

    /// Whether the storage answers, for the log at the start.
    pub async fn ask(&self) -> Result<(), KeepError> {
        within(Operation::List, DEADLINE, async {
            self.objects.list(Some(&self.root)).next().await.transpose()?;
            Ok(())
        })
        .await
    }

    fn blob(&self, key: BlobKey) -> Path {
        self.root.clone().join(key.conversation.to_string()).join(key.blob.to_string())
    }

    fn part(&self, key: BlobKey, number: u32, hash: &[u8; 32]) -> Path {
        self.blob(key).join(format!("{number}-{}", hex::encode(hash)))
    }
}

fn from_environment(builder: AmazonS3Builder) -> AmazonS3Builder {
    CREDENTIALS.into_iter().fold(builder, |builder, key| match std::env::var(key.as_ref().to_uppercase()) {
        Ok(value) => builder.with_config(key, value),
        Err(_) => builder,
    })
}

/// Reads what [`Objects::part`] writes.
fn found(object: &ObjectMeta) -> Option<Found> {
    let mut names = object.location.parts().collect::<Vec<_>>().into_iter().rev();
    let (part, blob, conversation) = (names.next()?, names.next()?, names.next()?);
    let (number, hash) = part.as_ref().split_once('-')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(hash, &mut bytes).ok()?;
    let key =
        BlobKey { conversation: conversation.as_ref().parse().ok()?, blob: blob.as_ref().parse().ok()? };
    let modified_ms = u64::try_from(object.last_modified.timestamp_millis()).unwrap_or_default();
    Some(Found { key, number: number.parse().ok()?, hash: bytes, modified_ms })
}

/// The object is not there, and not the whole bucket: that would be an outage.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { source, .. } if !source.to_string().contains("NoSuchBucket"))
}

/// What is not there need not be removed.
fn gone(removed: object_store::Result<()>) -> object_store::Result<()> {
    match removed {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

/// On the disk, with its name: the row that follows must not outlive it.
async fn sync(file: PathBuf) -> object_store::Result<()> {
    blocking(move || {
        std::fs::File::open(&file)?.sync_all()?;
        // The new folder is a name in the one above, and so on; three levels are new at most.
        for folder in file.ancestors().skip(1).take(4) {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    })
    .await
}

/// What a crash in the middle of a file has left, which no listing shows.
async fn clear(folder: PathBuf) -> object_store::Result<()> {
    blocking(move || match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
    .await
}

async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> object_store::Result<()> {
    let worked = tokio::task::spawn_blocking(work).await;
    let worked = worked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    worked.map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
}

/// Ends in time, and is counted.
pub(super) async fn within<T>(
    operation: Operation,
    deadline: Duration,
    work: impl Future<Output = Result<T, KeepError>>,
) -> Result<T, KeepError> {
    let begun = Instant::now();
    let worked = timeout(deadline, work).await.unwrap_or(Err(KeepError::Late));
    metrics::blob_storage(operation, begun.elapsed(), worked.as_ref().err().map(KeepError::label));
    worked
}
