//! Which names a request may be sent to. A page of another site can have its name resolve to this machine
//! once it is loaded (DNS rebinding) and is then no other site for the browser; but the browser still sends
//! the name, which is none of this machine's.

use super::error::{ApiError, ApiResult};
use super::{App, ServeError};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// Names that requests may be sent to, besides addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: Vec<String>,
    any: bool,
}

impl Hosts {
    /// This machine's name, and those of `--allow-host`; `*` lets every name in.
    pub fn new(allowed: &[String]) -> Result<Hosts, ServeError> {
        let mut hosts = Hosts { names: own_name().into_iter().collect(), any: false };
        for name in allowed {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            match name.as_str() {
                "*" => hosts.any = true,
                name if !name.is_empty() && name.chars().all(plain) => hosts.names.push(name.to_owned()),
                _ => {
                    let what = format!("expected a host name without scheme and port, or *; found {name:?}");
                    return Err(ServeError::Option { option: "--allow-host", what });
                }
            }
        }
        Ok(hosts)
    }

    /// Whether a host, without its port, is this machine.
    fn allows(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        // A last dot says that the name is whole.
        let name = host.strip_suffix('.').unwrap_or(host);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let below_localhost = name.len() > 10 && name[name.len() - 10..].eq_ignore_ascii_case(".localhost");
        // Names under .local are found on the local network only.
        let local = |own: &str| name.len() == own.len() + 6 && is(&format!("{own}.local"));
        self.any
            || bare.parse::<IpAddr>().is_ok()
            || is("localhost")
            || below_localhost
            || self.names.iter().any(|own| is(own) || local(own))
    }

    /// Whether a request may be answered.
    fn check(&self, request: &Request) -> ApiResult<()> {
        let refuse = |status, code, message: String| Err(ApiError::request(status, code, message));
        let bad = |message: &str| refuse(StatusCode::BAD_REQUEST, "bad_host", message.to_owned());
        let mut given = request.headers().get_all(header::HOST).iter();
        let stated = match (request.uri().authority(), given.next(), given.next()) {
            (_, _, Some(_)) => return bad("the request has more than one Host header"),
            (Some(authority), ..) => Some(authority.host().to_owned()),
            (None, Some(value), None) => match host_of(value) {
                Some(host) => Some(host),
                None => return bad("the Host header is not a host with or without a port"),
            },
            (None, None, None) => None,
        };
        match stated {
            // A browser always sends one.
            None if request.version() < Version::HTTP_11 => Ok(()),
            None => bad("the request has no Host header, which HTTP/1.1 asks for"),
            Some(host) if self.allows(&host) => Ok(()),
            Some(host) => refuse(
                StatusCode::FORBIDDEN,
                "host_not_allowed",
                format!(
                    "this server does not answer to the host {host:?}; start it with --allow-host {host} if it is \
                     one of its names"
                ),
            ),
        }
    }
}

/// The host of a header's value. An empty one is allowed by HTTP and names nobody.
fn host_of(value: &HeaderValue) -> Option<String> {
    let authority = Authority::try_from(value.as_bytes()).ok()?;
    (!authority.as_str().contains('@')).then(|| authority.host().to_owned())
}

/// What the machine calls itself.
#[cfg(unix)]
fn own_name() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is as long as is said, and its last byte, which the call may leave alone, is 0.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    (!failed && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(not(unix))]
fn own_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok().filter(|name| !name.is_empty())
}

/// Before everything that is served.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_named_hosts_are_this_machine() {
        let hosts = Hosts { names: vec!["box".to_owned(), "llm.example.org".to_owned()], any: false };
        for host in
            ["127.0.0.1", "10.1.2.3", "[::1]", "localhost", "LOCALHOST", "localhost.", "a.localhost", "box"]
        {
            assert!(hosts.allows(host), "{host}");
        }
        assert!(hosts.allows("box.local") && hosts.allows("LLM.example.org"));
        for host in [
            "evil.com",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "boxlocal",
            "xlocalhost",
            "",
            "box.evil",
            "é.é",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
        assert!(Hosts::new(&["*".to_owned()]).unwrap().allows("evil.com"));
        assert!(Hosts::new(&["http://a".to_owned()]).is_err());
    }
}
