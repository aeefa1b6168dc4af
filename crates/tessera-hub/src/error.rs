//! The ways in which a fetch or a look into the store can fail.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store or of one of its sources. [`HubError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum HubError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot copy {} to {}: {source}", from.display(), to.display())]
    Copy { from: PathBuf, to: PathBuf, source: io::Error },
    #[error("{}: {why}; only regular files inside the folder are copied", path.display())]
    NotInside { path: PathBuf, why: String },
    #[error("\"{name}\" is not a model name: {why}")]
    BadName { name: String, why: &'static str },
    #[error("\"{spec}\" is not a model source: {why}")]
    BadSource { spec: String, why: String },
    #[error("{name}: not in the store")]
    NotInStore { name: String, known: bool },
    #[error("{}: no model here (no tensor-cache.json, ndarray-cache.json, config.json or .gguf file)", path.display())]
    NotAModel { path: PathBuf },
    #[error("{name}: another tessera is using this name in the store")]
    Busy { name: String },
    #[error("{name}: already in the store at {}", path.display())]
    Exists { name: String, path: PathBuf },
    #[error("{host}: cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("{url}: the transfer broke off after {got} bytes: {why}")]
    Network { url: String, got: u64, why: String },
    #[error("{url}: the server answered {status}{}", asks_to_wait(*wait))]
    Status { url: String, status: u16, login: bool, wait: Option<u64> },
    #[error("{url}: {why}")]
    BadReply { url: String, why: String },
    #[error("{file}: {kind} is {found}, expected {expected}")]
    WrongHash { file: String, kind: &'static str, expected: String, found: String },
    #[error("{file}: {found} bytes, expected {expected}")]
    WrongSize { file: String, expected: u64, found: u64 },
    #[error("{file}: more than {limit} bytes, which is the limit for this kind of file")]
    TooLarge { file: String, limit: u64 },
    #[error("{file}: a web page came instead of the file")]
    Html { file: String },
    #[error("{file}: a git-LFS pointer, not the file that it points to")]
    LfsPointer { file: String },
    #[error("{file}: {why}")]
    BadManifest { file: String, why: String },
    #[error("{file}: {why}")]
    BadWheel { file: String, why: String },
    #[error("{command}: {why}")]
    Pip { command: String, why: String },
    #[error("{file}: {why}")]
    BadCatalogue { file: String, why: String },
    #[error("{repo}: {why}")]
    NoModelInRepo { repo: String, why: String },
    #[error("{name}: none of its {tried} sources could be fetched; the last one: {last}")]
    NoSource { name: String, tried: usize, last: Box<HubError> },
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::StorageFull | K::QuotaExceeded | K::FileTooLarge)
}

fn asks_to_wait(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |s| format!(" and asks to wait {s} seconds"))
}

impl HubError {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> HubError {
        move |source| HubError::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// Whether another source may succeed where this one failed. Damaged data is not in this class:
    /// it is reported, never papered over by going elsewhere.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            HubError::Unreachable { .. }
                | HubError::Network { .. }
                | HubError::Status { .. }
                | HubError::NoModelInRepo { .. }
                | HubError::Pip { .. }
        )
    }

    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            HubError::NotInStore { name, known: true } => format!("run `tessera pull {name}`"),
            HubError::NotInStore { name, known: false } => format!(
                "run `tessera pull {name}` if it is a source (org/repo, a URL, pip://...), or give the path of a folder; `tessera list` shows what is here"
            ),
            HubError::Io { source, .. } | HubError::Copy { source, .. } if is_full(source) => {
                "make room on the disk of the store, or set TESSERA_HOME to a folder on another one".into()
            }
            HubError::NotInside { .. } => {
                "put the file itself into the folder (`cp -rL` copies a folder with what its links lead to)".into()
            }
            HubError::Status { wait: Some(_), status: 429 | 503, .. } => "wait, then run the same command again".into(),
            HubError::NotAModel { .. } => "give the folder that holds the manifest and the shards".into(),
            HubError::Busy { .. } => "wait for the other one to end, then try again".into(),
            HubError::Exists { name, .. } => {
                format!("`tessera pull --force` fetches it again; `tessera rm {name}` removes it")
            }
            HubError::Unreachable { .. } => {
                "check the network and the proxy settings (HTTPS_PROXY, HF_ENDPOINT)".into()
            }
            HubError::Network { .. } => {
                "run the same command again: it goes on where it stopped if the file can be told from a newer one"
                    .into()
            },
            HubError::Status { login: true, .. } => {
                "set HF_TOKEN to a token that may read this repository, and check its name".into()
            }
            HubError::Status { status: 404, .. } => "check the name and the revision".into(),
            HubError::WrongHash { .. } => {
                "the damaged copy was removed; fetch it again, and if it happens again the source itself is wrong"
                    .into()
            }
            HubError::Html { .. } => "the address needs a login, or is the page about the file".into(),
            HubError::LfsPointer { .. } => {
                "the copy was made without git-lfs; fetch from the hub itself, or run `git lfs pull` there".into()
            }
            HubError::Pip { .. } => {
                "this source needs Python 3 with pip; set TESSERA_PIP to the command that runs yours".into()
            }
            HubError::NoSource { last, .. } => return last.hint(),
            _ => return None,
        })
    }
}
