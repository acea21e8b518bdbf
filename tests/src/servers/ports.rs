//! Ports for servers that are told where to listen.
//!
//! A server that takes port 0 needs none of this. Others (Postgres, NATS with routes, a gateway that is
//! started again where it was) have to be given a number, and between our look and their `bind`:
//!
//! - another test can get the same number. So whoever takes one holds the UDP port of that number, which
//!   none of our servers uses, until its process ends. The kernel forgets it with the process.
//! - a connection to somewhere can get it as its own end. So numbers are below those that Linux
//!   (32768 on) and macOS (49152 on) give to connections and to port 0, by default.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

const NUMBERS: Range<u16> = 20_000..32_000;

/// A TCP port of the loopback address that nobody listens on, and that no other call is given, here or in
/// another process, until this one ends.
///
/// # Errors
/// Where all 12,000 are taken.
pub fn free_port() -> io::Result<u16> {
    // Processes begin 40 numbers from each other: a port that was just left may still have callers.
    let begin = std::process::id() as usize % (NUMBERS.len() / 40) * 40;
    for port in NUMBERS.cycle().skip(begin).take(NUMBERS.len()) {
        let Ok(holder) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            // Open until the process ends.
            std::mem::forget(holder);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port of {NUMBERS:?} is free")))
}
