//! Where the bytes of files are.

use super::{ConfigError, Settings, secrets::secret, wrong};
use axum::http::Uri;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Where the bytes of files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// With everything else.
    Store,
    /// In a folder, which all gateways of a fleet share.
    Folder(PathBuf),
    /// In object storage that speaks S3.
    S3(S3),
}

/// Object storage that speaks S3.
#[derive(Clone, PartialEq, Eq)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    /// `https://host:port`; absent: Amazon's of the region.
    pub endpoint: Option<String>,
    /// The region; servers of one's own take any.
    pub region: String,
    /// Access key and secret key; absent: from the environment or the machine's role.
    pub keys: Option<(String, String)>,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.as_ref().map(|_| "(hidden)");
        let Self { bucket, prefix, endpoint, region, .. } = self;
        write!(f, "s3://{bucket}/{prefix} at {endpoint:?} in {region}, keys {keys:?}")
    }
}

impl Settings {
    pub(super) fn storage(&self) -> Result<Storage, ConfigError> {
        let url = self.blob_storage.as_deref().unwrap_or("store");
        if let Some(place) = url.strip_prefix("s3://") {
            return self.s3(place).map(Storage::S3);
        }
        let of_s3 = [
            ("blob_s3_endpoint", self.blob_s3_endpoint.is_some()),
            ("blob_s3_region", self.blob_s3_region.is_some()),
            ("blob_s3_access_key_file", self.blob_s3_access_key_file.is_some()),
            ("blob_s3_secret_key_file", self.blob_s3_secret_key_file.is_some()),
            ("blob_s3_allow_http", self.blob_s3_allow_http.is_some()),
        ];
        if let Some((key, _)) = of_s3.into_iter().find(|(_, set)| *set) {
            return wrong(key, "goes with blob_storage = s3://bucket/prefix, and that is not set");
        }
        if url == "store" {
            return Ok(Storage::Store);
        }
        match url.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path)) {
            Some(path) if path.starts_with('/') => folder(path.as_ref()),
            // What was given is not repeated: it may hold a login.
            _ => wrong("blob_storage", "is store, file:///absolute/folder or s3://bucket/prefix"),
        }
    }

    fn s3(&self, place: &str) -> Result<S3, ConfigError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let plain = |c: u8| c.is_ascii_alphanumeric() || b".-_/".contains(&c);
        let whole = prefix.trim_end_matches('/');
        let odd = !whole.is_empty() && whole.split('/').any(|part| matches!(part, "" | "." | ".."));
        if bucket.is_empty() || !place.bytes().all(plain) || odd {
            return wrong("blob_storage", "names a bucket, and perhaps a prefix: s3://bucket/prefix");
        }
        let region = self.blob_s3_region.clone().unwrap_or_else(|| "us-east-1".into());
        if region.is_empty() || !region.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return wrong("blob_s3_region", "is a name such as eu-central-1");
        }
        let endpoint = self.blob_s3_endpoint.as_deref().map(|url| self.endpoint(url)).transpose()?;
        let keys = match (&self.blob_s3_access_key_file, &self.blob_s3_secret_key_file) {
            (Some(access), Some(key)) => {
                Some((secret("blob_s3_access_key_file", access)?, secret("blob_s3_secret_key_file", key)?))
            }
            (None, None) => None,
            (Some(_), None) => return wrong("blob_s3_secret_key_file", "is missing: the two go together"),
            (None, Some(_)) => return wrong("blob_s3_access_key_file", "is missing: the two go together"),
        };
        Ok(S3 { bucket: bucket.to_owned(), prefix: whole.to_owned(), endpoint, region, keys })
    }

    /// Sealed parts may be seen; who they belong to, and what else the keys open, not.
    fn endpoint(&self, text: &str) -> Result<String, ConfigError> {
        const KEY: &str = "blob_s3_endpoint";
        let url: Option<Uri> = text.parse().ok().filter(|url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some_and(|host| !host.is_empty())
                && !text.contains(['@', '?', '#'])
        });
        let Some(url) = url else {
            return wrong(KEY, "is a URL such as https://s3.example.org, without a login");
        };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let plain = url.scheme_str() == Some("http");
        if plain && !loopback && !self.blob_s3_allow_http.unwrap_or(false) {
            return wrong(
                KEY,
                "is http:// to another machine, which everybody on the way can read and alter: give https://, or say blob_s3_allow_http if the way is safe",
            );
        }
        Ok(text.trim_end_matches('/').to_owned())
    }
}

/// It is there before a gateway is: where a disk is not mounted, files would go beside it.
fn folder(path: &Path) -> Result<Storage, ConfigError> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Storage::Folder(path.to_owned())),
        Ok(_) => wrong("blob_storage", format!("{} is not a folder", path.display())),
        Err(error) => {
            wrong("blob_storage", format!("{}: {error}; make it, or mount its disk", path.display()))
        }
    }
}
