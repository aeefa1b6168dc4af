//! A client of an OpenAI-compatible server: the list of models, and streamed answers.

use crate::output::hinted;
use anyhow::Context;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Response, Uri};

/// Where the key comes from. It is sent to the address of `--server` and nowhere else.
pub const KEY_VARIABLE: &str = "TESSERA_API_KEY";

/// The longest line of a stream: one event with the log-probabilities of a long chunk stays far below.
const MAX_LINE: u64 = 16 << 20;
/// What is read of an answer that is an error or a list.
const MAX_BODY: u64 = 4 << 20;
const CONNECT: Duration = Duration::from_secs(10);

/// What the server said no to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServerError {
    /// It answered with a status other than 200.
    #[error("the server answered {status}: {message}{}", about(.param))]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
        /// The field of the request that it means.
        param: Option<String>,
        /// Its `Retry-After`.
        retry_after: Option<String>,
    },
    /// It failed after the answer had begun.
    #[error("the server failed in the middle of the answer: {message}{}", about(.param))]
    Broke {
        /// The server's own words.
        message: String,
        /// The field of the request that it means.
        param: Option<String>,
    },
    /// The connection ended without `[DONE]`.
    #[error("the connection ended before the answer was complete")]
    CutOff,
}

fn about(param: &Option<String>) -> String {
    param.as_ref().map_or(String::new(), |p| format!(" (field {p})"))
}

/// A server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    /// Without a slash at the end.
    base: String,
    key: Option<String>,
}

impl Client {
    /// For the address that was typed, with or without `/v1`, and the key of the environment.
    pub fn new(address: &str) -> anyhow::Result<Client> {
        let base = address.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/');
        let bad =
            |why: &str| hinted(format!("--server {address}: {why}"), "write it as http://127.0.0.1:8080");
        let uri: Uri = base.parse().map_err(|_| bad("this is no address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad("the address must begin with http:// or https://"));
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| bad("the address has no host"))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("tessera/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            // A bench at 64 keeps 64 connections.
            .max_idle_connections_per_host(1024)
            .timeout_connect(Some(CONNECT));
        // A proxy cannot reach this machine's own addresses.
        let config = if is_loopback(host) { config.proxy(None) } else { config };
        let key = match std::env::var(KEY_VARIABLE) {
            Ok(key) if key.is_empty() => None,
            Ok(key) if key.bytes().all(|b| b.is_ascii_graphic()) => Some(key),
            Ok(_) => anyhow::bail!("{KEY_VARIABLE} holds characters that no key can have"),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => anyhow::bail!("{KEY_VARIABLE} is not UTF-8"),
        };
        Ok(Client { agent: config.build().new_agent(), base: base.to_owned(), key })
    }

    /// The address.
    pub fn address(&self) -> &str {
        &self.base
    }

    /// Names of the models that are served.
    pub fn models(&self) -> anyhow::Result<Vec<String>> {
        let url = format!("{}/v1/models", self.base);
        let mut request = self.agent.get(&url);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = accepted(request.call().map_err(|e| self.unreachable(&e))?)?;
        let list: Value = serde_json::from_slice(&read(body)?).with_context(|| format!("{url}: no JSON"))?;
        let models = list["data"].as_array().with_context(|| format!("{url}: it has no list `data`"))?;
        Ok(models.iter().filter_map(|m| m["id"].as_str().map(str::to_owned)).collect())
    }

    /// The model that was named, or the only one that is served.
    pub fn model(&self, named: Option<&str>) -> anyhow::Result<String> {
        if let Some(name) = named {
            return Ok(name.to_owned());
        }
        let mut models = self.models()?;
        match models.len() {
            1 => Ok(models.remove(0)),
            0 => anyhow::bail!("{} serves no model", self.base),
            n => Err(hinted(
                format!("{} serves {n} models: {}", self.base, models.join(", ")),
                "name one of them",
            )),
        }
    }

    /// Asks for a streamed answer to `body` at `/v1/chat/completions`.
    pub fn stream(&self, body: &Value) -> anyhow::Result<Events> {
        let url = format!("{}/v1/chat/completions", self.base);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = accepted(request.send(&serde_json::to_vec(body)?).map_err(|e| self.unreachable(&e))?)?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        anyhow::ensure!(
            kind.starts_with("text/event-stream"),
            "{url}: the answer is {kind:?}, not text/event-stream"
        );
        Ok(Events { lines: BufReader::new(Box::new(response.into_body().into_reader())), done: false })
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        hinted(format!("{}: {error}", self.base), "is the server running? `tessera serve MODEL` starts one")
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The response, if it is a success; else what the server says about it.
fn accepted(response: Response<ureq::Body>) -> anyhow::Result<Response<ureq::Body>> {
    let status = response.status().as_u16();
    if status == 200 {
        return Ok(response);
    }
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after");
    let redirect = header("location");
    let body = read(response).unwrap_or_default();
    let json: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = match (json["error"]["message"].as_str(), redirect) {
        (Some(message), _) => message.to_owned(),
        // Following would send the key somewhere else.
        (None, Some(to)) => format!("it redirects to {to}; give that address"),
        (None, None) => String::from_utf8_lossy(&body).trim().chars().take(300).collect(),
    };
    let param = json["error"]["param"].as_str().map(str::to_owned);
    let error = ServerError::Refused { status, message, param, retry_after };
    match status {
        401 => Err(hinted(
            error.to_string(),
            format!("the API key belongs into the environment variable {KEY_VARIABLE}"),
        )),
        _ => Err(error.into()),
    }
}

fn read(response: Response<ureq::Body>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(MAX_BODY + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_BODY, "the server's answer has more than {MAX_BODY} bytes");
    Ok(bytes)
}

/// The events of a stream, as JSON. Ends after `[DONE]`; any other end is an error. Dropping it closes the
/// connection, which cancels the request.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    done: bool,
}

impl Iterator for Events {
    type Item = anyhow::Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.event().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Events {
    fn event(&mut self) -> anyhow::Result<Option<Value>> {
        let mut data = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            // A connection that breaks is one that ends too early.
            let read = (&mut self.lines).take(MAX_LINE + 1).read_until(b'\n', &mut line);
            if read.is_err() || line.last() != Some(&b'\n') {
                anyhow::ensure!(
                    line.len() as u64 <= MAX_LINE,
                    "an event of the server is longer than {MAX_LINE} bytes"
                );
                return Err(ServerError::CutOff.into());
            }
            let text = line.trim_ascii_end();
            if let Some(part) = text.strip_prefix(b"data:") {
                if !data.is_empty() {
                    data.push(b'\n');
                }
                anyhow::ensure!(
                    (data.len() + part.len()) as u64 <= MAX_LINE,
                    "an event of the server is longer than {MAX_LINE} bytes"
                );
                data.extend_from_slice(part.strip_prefix(b" ").unwrap_or(part));
            } else if text.is_empty() && !data.is_empty() {
                break;
            }
        }
        if data == b"[DONE]" {
            return Ok(None);
        }
        let event: Value = serde_json::from_slice(&data).context("an event of the server is no JSON")?;
        if let Some(error) = event.get("error") {
            let words = |name: &str| error[name].as_str().map(str::to_owned);
            let message = words("message").unwrap_or_else(|| error.to_string());
            return Err(ServerError::Broke { message, param: words("param") }.into());
        }
        Ok(Some(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<Result<Value, String>> {
        let lines =
            BufReader::new(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())) as Box<dyn Read + Send>);
        Events { lines, done: false }.map(|e| e.map_err(|e| e.to_string())).collect()
    }

    #[test]
    fn a_stream_ends_with_done_or_with_an_error() {
        let two = events(
            "data: {\"a\":1}\n\n: ping\n\nevent: x\r\ndata:{\"b\":\r\ndata: 2}\r\n\r\ndata: [DONE]\n\n",
        );
        assert_eq!(two, [Ok(serde_json::json!({"a": 1})), Ok(serde_json::json!({"b": 2}))]);
        for cut in ["", "data: {\"a\":1}", "data: {\"a\":1}\n", ": ping\n\n"] {
            assert_eq!(events(cut), [Err(ServerError::CutOff.to_string())], "{cut:?}");
        }
        let broke =
            events("data: {\"error\":{\"message\":\"no memory\",\"param\":\"n\"}}\n\ndata: [DONE]\n\n");
        assert_eq!(
            broke,
            [Err("the server failed in the middle of the answer: no memory (field n)".to_owned())]
        );
        assert!(events("data: {\n\n")[0].as_ref().unwrap_err().contains("no JSON"));
    }

    #[test]
    fn addresses() {
        for good in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/"] {
            assert_eq!(Client::new(good).unwrap().address(), "http://127.0.0.1:8080");
        }
        assert_eq!(Client::new("https://h.example/llm/v1").unwrap().address(), "https://h.example/llm");
        for bad in ["", "127.0.0.1:8080", "ftp://h.example", "http://", "/v1", "http://a b"] {
            assert!(Client::new(bad).is_err(), "{bad:?}");
        }
        assert!(is_loopback("localhost") && is_loopback("[::1]") && is_loopback("127.9.9.9"));
        assert!(!is_loopback("localhost.example") && !is_loopback("10.0.0.1"));
    }
}
