//! The address of a server, as a person types it.

use std::{fmt, net::IpAddr, str::FromStr};

/// `ws://host:port` or `wss://host[:port]`, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    tls: bool,
    host: String,
    port: u16,
}

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a server address: {why}; write ws://127.0.0.1:PORT or wss://HOST")]
pub struct UrlError {
    text: String,
    why: &'static str,
}

impl ServerUrl {
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

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = |why| UrlError { text: text.to_owned(), why };
        let (tls, rest) = match text.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            _ => return Err(error("it must begin with ws:// or wss://")),
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

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "wss" } else { "ws" }, self.authority())
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
