//! One GET at a time: redirects followed here, so that the token goes to the hub's own host and
//! nowhere else, and every failure sorted into "not reachable", "broke off" and "answered N".

use crate::settings::Settings;
use crate::source::without_secrets;
use crate::{HubError, Result};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use ureq::http::{HeaderMap, Response, Uri, Version, header};
use ureq::{Agent, Body, BodyReader};

const MAX_REDIRECTS: usize = 10;
/// The longest pause before a repetition, also where a server's `Retry-After` asks for more.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Bytes a second; a body that is slower than this throughout a read time-out has stalled.
const SLOWEST: u64 = 1 << 10;
/// Bytes a second, averaged over a whole body, below which its connection is given up and resumed.
const SLOWEST_BODY: u64 = 16 << 10;
const LONGEST_BODY: Duration = Duration::from_secs(24 * 3600);

/// Which bytes of a file are asked for.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    /// From this one on, with the strong entity tag that the bytes before it had.
    From(u64, Option<&'a str>),
    /// From the first number up to the second, without it.
    Between(u64, u64),
    /// All, unless the file still has this strong entity tag.
    Unless(&'a str),
}

/// What went into a request beside its address.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub which: Which<'a>,
    /// The longest body that is of use; the time that it is granted follows from it.
    pub most: u64,
}

/// An answer whose redirects have been followed.
pub(crate) struct Reply {
    pub response: Response<Body>,
    /// SHA-256 that the hub states for a large file, on its own (redirecting) answer.
    pub linked_sha256: Option<String>,
    read_timeout: Duration,
    received: Arc<AtomicU64>,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Whether the answer says where its body ends. Without, a broken transfer looks like a whole one.
    pub fn has_end(&self) -> bool {
        self.stated_len().is_some() || self.is_chunked() && self.response.version() != Version::HTTP_10
    }

    pub fn stated_len(&self) -> Option<u64> {
        let empty = !self.is_chunked() && self.header(header::CONTENT_LENGTH) == Some("0");
        self.response.body().content_length().or(empty.then_some(0))
    }

    fn is_chunked(&self) -> bool {
        self.header(header::TRANSFER_ENCODING).is_some_and(|t| {
            t.rsplit(',').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("chunked"))
        })
    }

    /// The body, which ends with an error when it stalls.
    pub fn into_body(self) -> Steady {
        let inner = self.response.into_body().into_with_config().limit(u64::MAX).reader();
        let (window, received) = (self.read_timeout, self.received);
        Steady { inner, window, since: Instant::now(), got: 0, received }
    }
}

/// A body that must go on coming: a server that sends a byte now and then satisfies every time-out of
/// a single read.
pub(crate) struct Steady {
    inner: BodyReader<'static>,
    window: Duration,
    since: Instant,
    got: u64,
    received: Arc<AtomicU64>,
}

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.got += n as u64;
        self.received.fetch_add(n as u64, Ordering::Relaxed);
        if n > 0 && self.since.elapsed() >= self.window {
            let least = (self.window.as_secs_f64() * SLOWEST as f64) as u64;
            if self.got < least {
                let why = format!(
                    "{} bytes in {:.1} seconds, at least {least} are expected",
                    self.got,
                    self.since.elapsed().as_secs_f64()
                );
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
            }
            (self.since, self.got) = (Instant::now(), 0);
        }
        Ok(n)
    }
}

pub(crate) struct Client<'a> {
    pub settings: &'a Settings,
    agent: Agent,
    /// For loopback addresses, which a proxy cannot reach.
    direct: Agent,
    hub_origin: Option<Origin>,
    received: Arc<AtomicU64>,
}

impl<'a> Client<'a> {
    pub fn new(settings: &'a Settings) -> Client<'a> {
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("tessera/", env!("CARGO_PKG_VERSION")))
                // A compressed answer could not be resumed, and shards do not compress.
                .accept_encoding("identity")
                .timeout_resolve(Some(settings.connect_timeout))
                .timeout_connect(Some(settings.connect_timeout))
                .timeout_recv_response(Some(settings.read_timeout))
                .timeout_per_read(Some(settings.read_timeout))
        };
        Client {
            settings,
            agent: config().build().new_agent(),
            direct: config().proxy(None).build().new_agent(),
            hub_origin: settings.hf_endpoint.parse().ok().and_then(|u| origin(&u)),
            received: Arc::default(),
        }
    }

    /// Bytes of all bodies so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// One request, redirects followed, not repeated.
    pub fn get(&self, url: &str, ask: Ask<'_>) -> Result<Reply> {
        let bad = |why: &str| HubError::BadReply { url: without_secrets(url), why: why.to_string() };
        let mut at: Uri = url.parse().map_err(|_| bad("it is not a valid address"))?;
        let mut linked_sha256 = None;
        for _ in 0..=MAX_REDIRECTS {
            let here = origin(&at).ok_or_else(|| bad("it has no host"))?;
            let agent = if is_loopback(&here.host) { &self.direct } else { &self.agent };
            let most = Duration::from_secs(ask.most / SLOWEST_BODY).min(LONGEST_BODY);
            let patience = most + self.settings.read_timeout * 2;
            let mut request = agent.get(at.clone()).config().timeout_recv_body(Some(patience)).build();
            if let (Some(token), true) = (&self.settings.hf_token, self.hub_origin.as_ref() == Some(&here)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            request = match ask.which {
                Which::All => request,
                Which::From(start, None) => request.header(header::RANGE, format!("bytes={start}-")),
                Which::From(start, Some(tag)) => {
                    request.header(header::RANGE, format!("bytes={start}-")).header(header::IF_RANGE, tag)
                }
                Which::Between(start, end) => {
                    request.header(header::RANGE, format!("bytes={start}-{}", end.saturating_sub(1)))
                }
                Which::Unless(tag) => request.header(header::IF_NONE_MATCH, tag),
            };
            let response = request.call().map_err(|e| sort_error(url, &here.host, e))?;
            linked_sha256 = linked_sha256.or_else(|| linked(response.headers()));
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                let coding = response.headers().get(header::CONTENT_ENCODING);
                let coding = coding.map_or("identity".into(), |c| String::from_utf8_lossy(c.as_bytes()));
                if response.status().is_success() && !coding.eq_ignore_ascii_case("identity") {
                    return Err(bad(&format!(
                        "it is sent as {coding:?}, the bytes as they are were asked for"
                    )));
                }
                let (read_timeout, received) = (self.settings.read_timeout, self.received.clone());
                return Ok(Reply { response, linked_sha256, read_timeout, received });
            }
            let target = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
            let target = target.ok_or_else(|| bad("a redirect without an address"))?;
            let next =
                join(&at, target).ok_or_else(|| bad("a redirect to an address that makes no sense"))?;
            if at.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(bad("a redirect from https to an unencrypted address"));
            }
            at = next;
        }
        Err(bad("more than 10 redirects"))
    }

    /// A small file, whole, in memory; `None` where the server says that there is none.
    pub fn get_small(&self, url: &str, limit: u64, retries: u32) -> Result<Option<Vec<u8>>> {
        let mut tried = 0;
        loop {
            let outcome = self.get(url, Ask { which: Which::All, most: limit }).and_then(|reply| match reply
                .status()
            {
                200 => read_small(url, reply, limit).map(Some),
                404 | 410 => Ok(None),
                _ => Err(status_error(url, &reply)),
            });
            match outcome {
                Err(e) if is_transient(&e) && tried < retries => self.pause(tried, &e),
                other => return other,
            }
            tried += 1;
        }
    }

    /// Waits before repetition number `tried`: longer each time, or as long as the server asked for.
    pub fn pause(&self, tried: u32, after: &HubError) {
        let asked = match after {
            HubError::Status { wait: Some(seconds), .. } => Duration::from_secs(*seconds),
            _ => Duration::ZERO,
        };
        let factor = 1u32 << tried.min(10);
        std::thread::sleep(self.settings.backoff.saturating_mul(factor).max(asked).min(MAX_PAUSE));
    }
}

fn read_small(url: &str, reply: Reply, limit: u64) -> Result<Vec<u8>> {
    let stated = reply.stated_len();
    let file = without_secrets(url);
    if stated.is_some_and(|n| n > limit) {
        return Err(HubError::TooLarge { file, limit });
    }
    if !reply.has_end() {
        return Err(no_end(url));
    }
    let mut bytes = Vec::new();
    let read = reply.into_body().take(limit + 1).read_to_end(&mut bytes);
    let got = bytes.len() as u64;
    read.map_err(|e| HubError::Network { url: file.clone(), got, why: e.to_string() })?;
    if got > limit {
        return Err(HubError::TooLarge { file, limit });
    }
    Ok(bytes)
}

/// For an answer whose body ends with the connection, of a file whose length and digest nobody stated.
pub(crate) fn no_end(url: &str) -> HubError {
    let why = "it states no length, so that a broken transfer could not be told from a whole one";
    HubError::BadReply { url: without_secrets(url), why: why.into() }
}

/// The error for a status that is no success.
pub(crate) fn status_error(url: &str, reply: &Reply) -> HubError {
    let status = reply.status();
    let wait = reply.header(header::RETRY_AFTER).and_then(|v| retry_after(v, SystemTime::now()));
    HubError::Status { url: without_secrets(url), status, login: matches!(status, 401 | 403), wait }
}

/// Seconds until the time that `Retry-After` names, as a number of seconds or as a date.
fn retry_after(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let wait = httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default();
    Some(wait.as_secs_f64().ceil() as u64)
}

/// Whether asking again may help.
pub(crate) fn is_transient(error: &HubError) -> bool {
    match error {
        HubError::Network { .. } | HubError::Unreachable { .. } => true,
        HubError::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
        _ => false,
    }
}

/// The hub states `X-Linked-Etag: "<sha256>"` for files kept in git-LFS or Xet. For other files the
/// value is a git object name, which is shorter.
fn linked(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-linked-etag")?.to_str().ok()?.trim_start_matches("W/").trim_matches('"');
    crate::Digest::parse(crate::HashKind::Sha256, value).map(|d| d.hex)
}

fn sort_error(url: &str, host: &str, error: ureq::Error) -> HubError {
    use std::io::ErrorKind as K;
    let why = match &error {
        ureq::Error::Timeout(which) => format!("no answer in time ({which})"),
        // Its text repeats the address, secrets included.
        ureq::Error::BadUri(_) => "it is not a valid address".to_string(),
        other => other.to_string(),
    };
    let unreachable = match &error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => true,
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::ConnectProxyFailed(_) => true,
        // Failed look-ups have no kind of their own, so these are the errors of a connection that
        // was there once; all others mean that there never was one.
        ureq::Error::Io(e) => !matches!(
            e.kind(),
            K::ConnectionReset
                | K::ConnectionAborted
                | K::BrokenPipe
                | K::UnexpectedEof
                | K::TimedOut
                | K::WouldBlock
                | K::InvalidData
        ),
        _ => false,
    };
    if unreachable {
        return HubError::Unreachable { host: host.to_string(), why };
    }
    HubError::Network { url: without_secrets(url), got: 0, why }
}

#[derive(PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = match (uri.port_u16(), scheme.as_str()) {
        (Some(port), _) => port,
        (None, "https") => 443,
        (None, "http") => 80,
        (None, _) => return None,
    };
    Some(Origin { scheme, host: uri.host()?.to_ascii_lowercase(), port })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Resolves a `Location` against the address that gave it (RFC 3986, without `..` folding: servers
/// do that themselves).
fn join(base: &Uri, target: &str) -> Option<Uri> {
    let target = target.split('#').next().unwrap_or(target);
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let text = if target.contains("://") {
        target.to_string()
    } else if let Some(rest) = target.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else if target.is_empty() {
        return Some(base.clone());
    } else if target.starts_with('?') {
        format!("{scheme}://{authority}{}{target}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{target}")
    };
    let uri: Uri = text.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_targets() {
        let base: Uri = "https://h.example:8443/a/b?x=1".parse().unwrap();
        let to = |t: &str| join(&base, t).map(|u| u.to_string());
        assert_eq!(to("/c").as_deref(), Some("https://h.example:8443/c"));
        assert_eq!(to("c").as_deref(), Some("https://h.example:8443/a/c"));
        assert_eq!(to("?y").as_deref(), Some("https://h.example:8443/a/b?y"));
        assert_eq!(to("#z").as_deref(), Some("https://h.example:8443/a/b?x=1"));
        assert_eq!(to("//o.example/c").as_deref(), Some("https://o.example/c"));
        assert_eq!(to("http://o.example/c?y").as_deref(), Some("http://o.example/c?y"));
        assert_eq!(to("file:///etc/passwd"), None);
    }

    #[test]
    fn failures_are_sorted() {
        let sort = |e: std::io::Error| sort_error("http://h.example/x", "h.example", ureq::Error::Io(e));
        let lookup = std::io::Error::other("failed to lookup address information");
        assert!(matches!(sort(lookup), HubError::Unreachable { host, .. } if host == "h.example"));
        let refused = std::io::ErrorKind::ConnectionRefused.into();
        assert!(matches!(sort(refused), HubError::Unreachable { .. }));
        let reset = std::io::ErrorKind::ConnectionReset.into();
        assert!(matches!(sort(reset), HubError::Network { .. }));
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let read = |v| retry_after(v, now);
        assert_eq!((read("7"), read(" 0 ")), (Some(7), Some(0)));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "a time that has passed");
        assert_eq!((read("soon"), read("-1"), read("1.5")), (None, None, None));
    }

    #[test]
    fn loopback() {
        assert!(is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("localhost"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example"));
    }
}
