//! Callers' addresses: which one counts, and how often it may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use ipnet::{IpNet, Ipv6Net};

/// Addresses remembered at a time. Beyond them, strangers share one bucket.
const REMEMBERED: usize = 100_000;
const MINUTE: Duration = Duration::from_mins(1);

/// The address a request comes from: the socket's, or the nearest one in `X-Forwarded-For` that is not itself a trusted proxy. A
/// header from anybody else is not believed.
pub(crate) fn peer(socket: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut peer = socket.to_canonical();
    let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(','));
    for hop in hops.collect::<Vec<_>>().into_iter().rev() {
        if !is_trusted(peer) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        peer = address.to_canonical();
    }
    peer
}

/// Token buckets per address, of this process alone (spec/kernelhost 2.22). IPv6 callers count by their /64, which one household
/// has anyway.
pub(crate) struct Addresses {
    per_minute: u32,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
    refused: u64,
}

impl Addresses {
    /// 0 for no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: Mutex::default() }
    }

    /// Takes a token, or says after how many seconds there is one.
    pub(crate) fn take(&self, peer: IpAddr, now: Instant) -> Result<(), u64> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let capacity = f64::from(self.per_minute);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = name(peer);
        if buckets.len() >= REMEMBERED && !buckets.contains_key(&name) {
            // Whoever was silent for a minute has a full bucket, which is as good as none.
            buckets.retain(|_, bucket| bucket.refused > 0 || now.duration_since(bucket.at) < MINUTE);
            if buckets.len() >= REMEMBERED {
                name = IpAddr::from([0, 0, 0, 0]);
            }
        }
        let bucket = buckets.entry(name).or_insert(Bucket { tokens: capacity, at: now, refused: 0 });
        let gained = now.duration_since(bucket.at).as_secs_f64() * capacity / 60.0;
        bucket.tokens = (bucket.tokens + gained).min(capacity);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        bucket.refused += 1;
        Err(whole_seconds((1.0 - bucket.tokens) * 60.0 / capacity))
    }

    /// Puts a token back that was taken for nothing.
    pub(crate) fn give_back(&self, peer: IpAddr) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&name(peer)) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.per_minute));
        }
    }

    /// Who was refused how often since the last time this was asked.
    pub(crate) fn refused(&self) -> Vec<(IpAddr, u64)> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = buckets.iter_mut().filter(|(_, bucket)| bucket.refused > 0);
        refused.map(|(address, bucket)| (*address, std::mem::take(&mut bucket.refused))).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60")]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil().clamp(1.0, 60.0) as u64
}

fn name(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).network().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (hyper::header::HeaderName::from_static("x-forwarded-for"), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (socket, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1"][..], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.7"][..], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.7, 10.0.0.2"][..], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1, nonsense"][..], "10.0.0.1"),
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"][..], "198.51.100.1"),
        ] {
            assert_eq!(peer(ip(socket), &headers(forwarded), &trusted), ip(expected), "{socket} {forwarded:?}");
        }
    }

    #[test]
    fn a_minute_brings_a_minutes_worth_and_no_more() {
        let addresses = Addresses::new(60);
        let (start, peer) = (Instant::now(), "203.0.113.9".parse().unwrap());
        assert_eq!((0..100).filter(|_| addresses.take(peer, start).is_ok()).count(), 60);
        assert_eq!(addresses.take(peer, start), Err(1));
        assert_eq!(addresses.refused(), [(peer, 41)]);
        assert_eq!(addresses.refused(), []);
        assert!(addresses.take(peer, start + Duration::from_secs(1)).is_ok());
        assert_eq!((0..100).filter(|_| addresses.take(peer, start + Duration::from_secs(600)).is_ok()).count(), 60);
        assert!(addresses.take("203.0.113.10".parse().unwrap(), start).is_ok(), "a neighbour is unharmed");
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_list() {
        let addresses = Addresses::new(60);
        let start = Instant::now();
        for number in 0..u32::try_from(REMEMBERED + 1000).unwrap() {
            let _taken = addresses.take(IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(addresses.buckets.lock().unwrap().len() <= REMEMBERED + 1);
    }
}
