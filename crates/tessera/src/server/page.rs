//! The chat page at `/`: files of `page/`, part of the program, served without anything from outside.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// A file, the path it is served at, and its type.
struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal $name:literal $kind:ident,)*) => {
        &[$(File { path: $path, kind: $kind, bytes: include_bytes!(concat!("page/", $name)) }),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// Other paths are relative to the page, so that a proxy may put the server under a path of its own.
const FILES: &[File] = files! {
    "/" "index.html" HTML,
    "/page/answer.js" "answer.js" JS,
    "/page/api.js" "api.js" JS,
    "/page/dom.js" "dom.js" JS,
    "/page/icon.svg" "icon.svg" SVG,
    "/page/key.js" "key.js" JS,
    "/page/main.js" "main.js" JS,
    "/page/markdown.js" "markdown.js" JS,
    "/page/messages.js" "messages.js" JS,
    "/page/settings.js" "settings.js" JS,
    "/page/sidebar.js" "sidebar.js" JS,
    "/page/store.js" "store.js" JS,
    "/page/style.css" "style.css" CSS,
    "/page/theme.js" "theme.js" JS,
    "/page/thread.js" "thread.js" JS,
    "/page/vendor/highlight.js" "vendor/highlight.js" JS,
    "/page/vendor/highlight.LICENSE" "vendor/highlight.LICENSE" TEXT,
    "/page/vendor/marked.js" "vendor/marked.js" JS,
    "/page/vendor/marked.LICENSE" "vendor/marked.LICENSE" TEXT,
    "/page/vendor/purify.js" "vendor/purify.js" JS,
    "/page/vendor/purify.LICENSE" "vendor/purify.LICENSE" TEXT,
};

/// What a model writes ends up in this page, so the browser is told what it may do at most: scripts and
/// requests of this server only, nothing inline, no frame, and no HTML from text but through DOMPurify.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; font-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types dompurify";

const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    // Without this a browser looks up the names of hosts that an answer links to.
    ("x-dns-prefetch-control", "off"),
    ("cross-origin-opener-policy", "same-origin"),
    // Names do not change between versions: the browser asks each time, and the tag says "the same".
    ("cache-control", "no-cache"),
];

/// Routes of the page's files (GET and HEAD). They need no API key: the page asks for one when the API does.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let tag = tag(file.bytes);
        router.route(file.path, get(move |headers: HeaderMap| async move { respond(file, tag, &headers) }))
    })
}

/// The entity tag of a content, in quotes.
fn tag(bytes: &[u8]) -> [u8; 18] {
    let mut tag = [b'"'; 18];
    for (i, byte) in Sha256::digest(bytes).iter().take(8).enumerate() {
        tag[1 + 2 * i] = b"0123456789abcdef"[usize::from(byte >> 4)];
        tag[2 + 2 * i] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    tag
}

fn respond(file: &'static File, tag: [u8; 18], request: &HeaderMap) -> Response {
    let known = has_tag(request, &tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Bytes::from_static(file.bytes).into_response(),
    };
    let headers = response.headers_mut();
    for &(name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    if let Ok(tag) = HeaderValue::from_bytes(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Whether `If-None-Match` names this content (RFC 9110, 13.1.2: compared weakly).
fn has_tag(request: &HeaderMap, tag: &[u8]) -> bool {
    let mut listed =
        request.get_all(header::IF_NONE_MATCH).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    listed.any(|one| {
        let one = one.trim_ascii();
        one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn text(path: &str) -> &'static str {
        let file = FILES.iter().find(|f| f.path == path).unwrap();
        std::str::from_utf8(file.bytes).unwrap()
    }

    #[test]
    fn every_file_of_the_folder_is_served_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/page");
        let mut found = BTreeSet::new();
        for (under, prefix) in [(folder.clone(), ""), (folder.join("vendor"), "vendor/")] {
            for entry in std::fs::read_dir(under).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let name = entry.file_name().into_string().unwrap();
                    found.insert(if name == "index.html" {
                        "/".into()
                    } else {
                        format!("/page/{prefix}{name}")
                    });
                }
            }
        }
        assert_eq!(found, FILES.iter().map(|f| f.path.to_owned()).collect());
    }

    #[test]
    fn what_the_page_names_is_there() {
        let named: Vec<&str> = text("/").split('"').filter(|part| part.starts_with("page/")).collect();
        assert!(named.len() >= 5, "{named:?}");
        for name in named {
            assert!(FILES.iter().any(|f| f.path == format!("/{name}")), "{name} is not served");
        }
        for file in FILES.iter().filter(|f| f.kind == JS) {
            for import in
                std::str::from_utf8(file.bytes).unwrap().lines().filter(|l| l.starts_with("import "))
            {
                let name = import.rsplit('"').nth(1).unwrap().trim_start_matches("./");
                assert!(
                    FILES.iter().any(|f| f.path == format!("/page/{name}")),
                    "{}: {name} is not served",
                    file.path
                );
            }
        }
    }

    #[test]
    fn nothing_in_the_page_is_inline_or_from_outside() {
        let page = text("/");
        for bad in ["<style", "style=", " onclick", " onload", "://", "href=\"//", "src=\"//"] {
            // The sprite's own namespace is not written in HTML, so no address is needed at all.
            assert!(!page.contains(bad), "{bad}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script src=\"page/").count());
        for bad in ["url(", "@import"] {
            assert!(!text("/page/style.css").contains(bad), "{bad}");
        }
    }

    #[test]
    fn a_tag_says_the_same() {
        let tag = tag(b"content");
        assert!(
            tag.starts_with(b"\"") && tag.ends_with(b"\"") && tag.iter().filter(|b| **b == b'"').count() == 2
        );
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            respond(&FILES[0], tag, &headers).status()
        };
        let tag = std::str::from_utf8(&tag).unwrap();
        for same in [tag, "*", &format!("W/{tag}"), &format!("\"a\", {tag}")] {
            assert_eq!(asked(same), StatusCode::NOT_MODIFIED, "{same}");
        }
        for other in ["\"a\"", "", "\"", &tag[1..]] {
            assert_eq!(asked(other), StatusCode::OK, "{other}");
        }
        assert_eq!(respond(&FILES[0], *b"\"0123456789abcdef\"", &HeaderMap::new()).status(), StatusCode::OK);
    }
}
