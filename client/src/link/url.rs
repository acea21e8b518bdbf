//! The address of a gateway or of a balancer, as a person types it or a balancer names it.

use std::{fmt, net::IpAddr, ops::Deref, str::FromStr};

/// A host, its port, and whether the way there is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    tls: bool,
    host: String,
    port: u16,
}

/// A gateway: `ws://host:port` or `wss://host[:port]`, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUrl(Place);

/// Whom to ask for a gateway: `http://host:port` or `https://host[:port]`, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssignUrl(Place);

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a server address: {why}; write wss://HOST for a gateway, https://HOST for a balancer, \
     or ws://127.0.0.1:PORT and http://127.0.0.1:PORT on this machine"
)]
pub struct UrlError {
    text: String,
    why: &'static str,
}

impl UrlError {
    pub(super) fn new(text: &str, why: &'static str) -> Self {
        Self { text: text.to_owned(), why }
    }
}

impl Place {
    /// Whether the connection is encrypted on the way (messages always are).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as dialled: what the device signs.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether the host can only be this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl Place {
    /// Reads what follows `plain://` or `secure://`.
    fn parse(text: &str, plain: &str, secure: &str, otherwise: &'static str) -> Result<Self, UrlError> {
        let error = |why| UrlError::new(text, why);
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme == plain => (false, rest),
            Some((scheme, rest)) if scheme == secure => (true, rest),
            _ => return Err(error(otherwise)),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', ' ']) {
            return Err(error("only a host and a port may follow"));
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(|| error("a bracket is not closed"))?;
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| error("the address in brackets is not IPv6"))?;
                (host, after.strip_prefix(':'))
            }
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| error("the port is not a number"))?,
            None if tls => 443,
            None => 80,
        };
        if host.is_empty()
            || host.len() > 253
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
        {
            return Err(error("the host is not a name or address"));
        }
        Ok(Self { tls, host: host.to_ascii_lowercase(), port })
    }
}

impl Deref for ServerUrl {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl Deref for AssignUrl {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Place::parse(text, "ws", "wss", "it must begin with ws:// or wss://").map(Self)
    }
}

impl FromStr for AssignUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        Place::parse(text, "http", "https", "it must begin with http:// or https://").map(Self)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "wss" } else { "ws" }, self.authority())
    }
}

impl fmt::Display for AssignUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_people_type() {
        let cases = [
            ("ws://127.0.0.1:4000", "ws://127.0.0.1:4000", true),
            ("ws://localhost:80/", "ws://localhost:80", true),
            ("wss://chat.Example.org", "wss://chat.example.org:443", false),
            ("wss://[::1]:8443", "wss://[::1]:8443", true),
        ];
        for (text, want, loopback) in cases {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.is_loopback()), (want, loopback), "{text}");
        }
        for text in [
            "",
            "http://x",
            "127.0.0.1:1",
            "ws://",
            "ws://a b",
            "wss://u@h",
            "ws://h/p",
            "ws://h:0",
            "ws://h:x",
            "ws://[::1",
        ] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text}");
        }
    }
}
