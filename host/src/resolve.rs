//! From a name to its addresses, as a value that is handed in: a test can say what a name resolves to, and change its mind. And from
//! addresses to a connection, once they were checked.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;

/// A name's addresses. The system's resolver outside of tests.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// All addresses of a host name.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolution<'a>;
}

/// A resolution under way.
pub type Resolution<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// What the operating system answers, `/etc/hosts` included.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolution<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoConnection {
    /// There was nothing to connect to.
    NoAddress,
    /// The last address that was tried refused.
    Refused(io::ErrorKind),
    /// The last address that was tried kept silent.
    Timeout,
}

/// Connects to one of the addresses, tried in their order. They are what the caller has checked: nothing is resolved again.
pub async fn dial(addresses: &[IpAddr], port: u16, within: Duration) -> Result<TcpStream, NoConnection> {
    // A silent address must leave time for the next one.
    let tries = addresses.len().clamp(1, ADDRESSES_MAX);
    let each = within / u32::try_from(tries).unwrap_or(1);
    let mut last = NoConnection::NoAddress;
    for address in addresses.iter().take(tries) {
        match tokio::time::timeout(each, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = NoConnection::Refused(error.kind()),
            Err(_) => last = NoConnection::Timeout,
        }
    }
    Err(last)
}
