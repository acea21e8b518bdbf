//! Where an account's server is: gateways, balancers that name gateways, or both.

use super::url::{AssignUrl, Place, ServerUrl, UrlError};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// Limit: addresses that a person may give.
const MAX_ADDRESSES: usize = 16;

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// Is dialled.
    Gateway(ServerUrl),
    /// Is asked which gateway to dial.
    Balancer(AssignUrl),
}

/// One or several addresses of one deployment, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(Vec<Address>);

/// How a gateway is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// As the balancer says; without a balancer, at random.
    #[default]
    Assign,
    /// One after the other, of those that are known.
    RoundRobin,
}

impl Address {
    fn place(&self) -> &Place {
        match self {
            Self::Gateway(url) => url,
            Self::Balancer(url) => url,
        }
    }
}

impl Servers {
    /// Gateways that are dialled without asking.
    pub fn gateways(&self) -> impl Iterator<Item = &ServerUrl> {
        self.0.iter().filter_map(|address| match address {
            Address::Gateway(url) => Some(url),
            Address::Balancer(_) => None,
        })
    }

    /// Who is asked for gateways.
    pub fn balancers(&self) -> impl Iterator<Item = &AssignUrl> {
        self.0.iter().filter_map(|address| match address {
            Address::Balancer(url) => Some(url),
            Address::Gateway(_) => None,
        })
    }

    /// Whether all of it can only be this machine.
    pub fn is_loopback(&self) -> bool {
        self.0.iter().all(|address| address.place().is_loopback())
    }

    /// Whether encryption of the way is expected: gateways that others name must have it then, too.
    pub fn uses_tls(&self) -> bool {
        self.0.iter().any(|address| address.place().tls())
    }

    /// Whether both name the same, in whatever order.
    pub fn same(&self, other: &Self) -> bool {
        let set = |servers: &Self| servers.0.iter().cloned().collect::<BTreeSet<_>>();
        set(self) == set(other)
    }
}

impl FromStr for Servers {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let mut addresses = Vec::new();
        for part in text.split(',').map(str::trim) {
            let address = match part.starts_with("http") {
                true => Address::Balancer(part.parse()?),
                false => Address::Gateway(part.parse().map_err(|error| scheme(part, error))?),
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.len() {
            0..=MAX_ADDRESSES => Ok(Self(addresses)),
            _ => Err(UrlError::new(text, "at most 16 addresses can be given")),
        }
    }
}

/// All schemes are possible here, not only those of gateways.
fn scheme(text: &str, error: UrlError) -> UrlError {
    match text.starts_with("ws://") || text.starts_with("wss://") {
        true => error,
        false => UrlError::new(text, "it must begin with wss://, https://, ws:// or http://"),
    }
}

impl From<ServerUrl> for Servers {
    fn from(url: ServerUrl) -> Self {
        Self(vec![Address::Gateway(url)])
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match address {
                Address::Gateway(url) => url.fmt(f)?,
                Address::Balancer(url) => url.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl Pick {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Pick {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "assign" => Ok(Self::Assign),
            "round-robin" => Ok(Self::RoundRobin),
            other => Err(format!("{other:?} is not a way to pick a gateway: assign or round-robin")),
        }
    }
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assign => "assign",
            Self::RoundRobin => "round-robin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several_addresses_are_read_and_written() {
        for (text, want, gateways, balancers, tls) in [
            ("ws://127.0.0.1:4000", "ws://127.0.0.1:4000", 1, 0, false),
            ("https://chat.example.org", "https://chat.example.org:443", 0, 1, true),
            ("http://localhost:1, ws://localhost:2/", "http://localhost:1,ws://localhost:2", 1, 1, false),
            ("wss://a,wss://b,wss://a:443", "wss://a:443,wss://b:443", 2, 0, true),
        ] {
            let servers: Servers = text.parse().unwrap();
            let found = (servers.to_string(), servers.gateways().count(), servers.balancers().count());
            assert_eq!(found, (want.to_owned(), gateways, balancers), "{text}");
            assert_eq!(servers.uses_tls(), tls, "{text}");
        }
        let many = ["ws://h:1"; 3].join(",") + &(2..20).map(|n| format!(",ws://h:{n}")).collect::<String>();
        for text in ["", ",", "wss://a,", "ftp://a", "https://a/b", "http://", "chat.example.org", &many] {
            assert!(text.parse::<Servers>().is_err(), "{text}");
        }
        let error = "chat.example.org".parse::<Servers>().unwrap_err().to_string();
        assert!(error.contains("https://HOST for a balancer"), "{error}");
        let (one, other): (Servers, Servers) =
            ("wss://a,https://b".parse().unwrap(), "https://b,wss://a".parse().unwrap());
        assert!(one.same(&other) && one != other);
    }
}
