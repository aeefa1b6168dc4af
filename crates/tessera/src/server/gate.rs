//! Who may ask, and how often.

use super::error::{ApiError, ApiResult};
use super::models::lock;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;
use subtle::ConstantTimeEq;

/// Buckets that are kept before full ones are forgotten.
const MAX_BUCKETS: usize = 10_000;

/// API keys. Only their digests are kept, so that they have one length and never show in a log.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// Keys from a text, one a line; empty lines and lines that begin with `#` are no keys.
    pub fn parse(text: &str) -> Keys {
        let keys = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        Keys(keys.map(|key| Sha256::digest(key).into()).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the keys of another set.
    pub fn extend(&mut self, other: Keys) {
        self.0.extend(other.0);
    }

    /// The number of a key. Every key is compared, in a time that does not depend on any of them.
    fn find(&self, key: &str) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (i, known) in self.0.iter().enumerate() {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(i);
            }
        }
        found
    }
}

/// Keys and rates.
pub struct Gate {
    keys: Keys,
    per_minute: Option<u32>,
    buckets: Mutex<HashMap<u64, Bucket>>,
    hasher: RandomState,
}

/// Requests that may still be made, filled evenly up to a minute's worth.
struct Bucket {
    left: f64,
    at: Instant,
}

impl Gate {
    /// With these keys, and so many requests a minute for each.
    pub fn new(keys: Keys, per_minute: Option<u32>) -> Gate {
        Gate { keys, per_minute, buckets: Mutex::default(), hasher: RandomState::new() }
    }

    /// Lets a request in, or not. The number tells keys (addresses, where there are no keys) apart.
    pub fn enter(&self, headers: &HeaderMap, address: IpAddr) -> ApiResult<u64> {
        let flow = if self.keys.is_empty() {
            self.hasher.hash_one(network(address))
        } else {
            let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
            let bearer =
                header.and_then(|h| h.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
            let (_, key) = bearer.ok_or_else(|| {
                ApiError::key("this server needs an API key: send the header `Authorization: Bearer KEY`")
            })?;
            let index = self.keys.find(key.trim());
            self.hasher
                .hash_one(index.ok_or_else(|| ApiError::key("the API key is not one of this server's"))?)
        };
        if let Some(per_minute) = self.per_minute {
            self.take(flow, per_minute, Instant::now())?;
        }
        Ok(flow)
    }

    fn take(&self, flow: u64, per_minute: u32, now: Instant) -> ApiResult<()> {
        let (most, per_second) = (f64::from(per_minute), f64::from(per_minute) / 60.0);
        let mut buckets = lock(&self.buckets);
        let filled = |b: &Bucket| (b.left + (now - b.at).as_secs_f64() * per_second).min(most);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| filled(bucket) < most);
        }
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&flow) {
            // Those that have asked least lose least when they are forgotten.
            let mut all: Vec<(u64, f64)> = buckets.iter().map(|(flow, b)| (*flow, filled(b))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (flow, _) in &all[..MAX_BUCKETS / 2] {
                buckets.remove(flow);
            }
        }
        let bucket = buckets.entry(flow).or_insert(Bucket { left: most, at: now });
        *bucket = Bucket { left: filled(bucket), at: now };
        if bucket.left < 1.0 {
            // A wait that is whole but for rounding is not a second longer.
            let wait = ((1.0 - bucket.left) / per_second - 1e-6).ceil() as u64;
            let message = format!("at most {per_minute} requests a minute; try again in {wait} s");
            return Err(ApiError::rate_limit(message, wait));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

/// What counts as one client: an address, and of IPv6 the network that a client is given as a whole (64 bits).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::time::Duration;

    fn enter(gate: &Gate, header: Option<&str>) -> Result<u64, u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        gate.enter(&headers, IpAddr::from([127, 0, 0, 1])).map_err(|e| e.status.as_u16())
    }

    #[test]
    fn only_keys_of_the_list_get_in() {
        let gate = Gate::new(Keys::parse("# comment\nalpha\n\n  beta \n"), None);
        let (alpha, beta) = (enter(&gate, Some("Bearer alpha")), enter(&gate, Some("Bearer beta")));
        assert!(alpha.is_ok() && beta.is_ok() && alpha != beta);
        let wrong =
            [None, Some("Bearer "), Some("Bearer alph"), Some("Bearer # comment"), Some("Basic alpha")];
        for header in wrong {
            assert_eq!(enter(&gate, header), Err(401), "{header:?}");
        }
        // The scheme's name has no case (RFC 9110, 11.1).
        assert_eq!((enter(&gate, Some("bearer alpha")), enter(&gate, Some("BEARER beta"))), (alpha, beta));
        assert!(enter(&Gate::new(Keys::default(), None), None).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[test]
    fn buckets_have_a_bound_and_the_busiest_are_kept() {
        let gate = Gate::new(Keys::default(), Some(3));
        let now = Instant::now();
        for _ in 0..3 {
            gate.take(u64::MAX, 3, now).unwrap();
        }
        for flow in 0..3 * MAX_BUCKETS as u64 {
            gate.take(flow, 3, now).unwrap();
        }
        assert!(lock(&gate.buckets).len() <= MAX_BUCKETS);
        assert!(gate.take(u64::MAX, 3, now).is_err(), "who asked most is not forgotten");
    }

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let gate = Gate::new(Keys::default(), Some(2));
        let start = Instant::now();
        let take = |flow, after| gate.take(flow, 2, start + Duration::from_secs(after));
        assert!(take(1, 0).is_ok() && take(1, 0).is_ok());
        assert_eq!(take(1, 0).unwrap_err().retry_after, Some(30));
        assert!(take(2, 0).is_ok(), "another key has its own");
        assert_eq!(take(1, 10).unwrap_err().retry_after, Some(20));
        assert!(take(1, 30).is_ok());
        assert!(take(1, 31).is_err());
    }
}
