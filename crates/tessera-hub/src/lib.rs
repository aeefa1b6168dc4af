//! Fetches, resumes and keeps model folders: the local store and its sources.
//!
//! A [`Source`] is parsed from what the user typed, [`Store::fetch`] brings it into `partial/`, checks
//! it, and [`Store::install`] renames it to `models/<name>`. Nothing else ever writes under `models/`,
//! so what is there is whole.

mod catalogue;
mod check;
mod download;
mod error;
mod fetch;
mod hash;
mod hf;
mod http;
mod mlc;
mod name;
mod pip;
mod record;
mod settings;
mod source;
mod store;
mod wheel;

pub use catalogue::{Catalogue, CatalogueEntry, CatalogueSource};
pub use check::{Kind, check_folder, kind_of};
pub use error::HubError;
pub use fetch::{Event, Fetch, FetchOptions, Fetched, Progress};
pub use hash::{Digest, HashKind, hash_file};
pub use mlc::{MANIFEST_NAMES, ShardFile, shards_of};
pub use name::ModelName;
pub use record::{FileRecord, RECORD_FILE, SourceRecord};
pub use settings::Settings;
pub use source::Source;
pub use store::{Entry, Resolved, Store, default_home};

/// What every fallible function of this crate returns.
pub type Result<T, E = HubError> = std::result::Result<T, E>;
