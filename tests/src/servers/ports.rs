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
    sync::Mutex,
};

const NUMBERS: Range<u16> = 20_000..32_000;

/// Where this process looks next, and what it holds.
static TAKEN: Mutex<Option<(u16, Vec<UdpSocket>)>> = Mutex::new(None);

/// A TCP port of the loopback address that nobody listens on, and that no other call is given, here or in
/// another process, until this one ends.
///
/// # Errors
/// Where all 12,000 are taken.
pub fn free_port() -> io::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Processes begin at different places: a port that was just left may still have callers.
    let (next, held) = taken.get_or_insert_with(|| (place(std::process::id()), Vec::new()));
    for _ in NUMBERS {
        let port = *next;
        *next = if port + 1 == NUMBERS.end { NUMBERS.start } else { port + 1 };
        let Ok(holder) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            held.push(holder);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port of {NUMBERS:?} is free")))
}

/// Where a process begins: 40 numbers from its neighbour.
fn place(process: u32) -> u16 {
    let width = u32::from(NUMBERS.end - NUMBERS.start);
    let offset = u16::try_from(process.wrapping_mul(40) % width).unwrap_or_default();
    NUMBERS.start + offset
}
