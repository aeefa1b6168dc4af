//! Fetches, resumes and keeps model folders: the local store and its sources.
//!
//! A [`Source`] is parsed from what the user typed, [`Store::fetch`] brings it into `partial/`, checks
//! it, and [`Store::install`] renames it to `models/<name>`. Nothing else ever writes under `models/`
//! but [`Store::mend`], which renames single files into their places, so what is there is whole.

mod altered;
mod catalogue;
mod check;
mod damage;
mod download;
mod error;
mod fetch;
mod hash;
mod hf;
mod home;
mod http;
mod kind;
mod local;
mod mend;
mod mlc;
mod name;
mod origin;
mod part;
mod pip;
mod progress;
mod range;
mod record;
mod settings;
mod source;
mod store;
mod wheel;

pub use altered::{Altered, accept, altered};
pub use catalogue::{Catalogue, CatalogueEntry, CatalogueSource, Optimize};
pub use check::check_folder;
pub use damage::{Damage, Need, damage_of};
pub use error::HubError;
pub use fetch::{Fetch, FetchOptions};
pub use hash::{Digest, HashKind, hash_file};
pub use kind::{Kind, MANIFEST_NAMES, RECORD_FILE, kind_of};
pub use mend::{Mended, Outcome};
pub use mlc::{ShardFile, shards_of};
pub use name::ModelName;
pub use progress::{Event, Fetched, Progress};
pub use record::{FileRecord, SourceRecord};
pub use settings::Settings;
pub use source::{Source, without_secrets};
pub use store::{Entry, Resolved, Store, default_home};

/// What every fallible function of this crate returns.
pub type Result<T, E = HubError> = std::result::Result<T, E>;
