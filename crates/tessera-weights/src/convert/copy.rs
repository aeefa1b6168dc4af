//! An MLC folder under the manifest's other name: shards byte for byte, nothing decoded.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use md5::{Digest, Md5};

use super::run::check_extra_names;
use super::staging::{Staging, io};
use super::{ConvertError, ConvertReport, ManifestName, OnProgress, Progress};
use crate::files;
use crate::folder::Folder;
use crate::manifest::MAX_MANIFEST_LEN;
use crate::manifest::Shard;

/// Bytes copied between two calls of the progress function.
const STEP: usize = 1 << 20;

/// Copies a folder to `dst` with its manifest (and the b16 manifest, if there is one) under `name`, and
/// `extra_files` beside the shards. Each shard is compared with the manifest's length and MD5 on the way.
pub fn copy_folder(
    folder: &Folder,
    name: ManifestName,
    dst: &Path,
    extra_files: &[(String, Vec<u8>)],
    progress: Option<OnProgress<'_>>,
) -> Result<ConvertReport, ConvertError> {
    check_extra_names(extra_files)?;
    let staging = Staging::beside(dst)?;
    let total = folder.stored_len();
    let mut done = 0;
    for shard in folder.manifest().shards() {
        let mut tell = |len: u64| {
            done += len;
            match progress {
                Some(progress) => progress(&Progress { done, total, tensor: &shard.path }),
                None => ControlFlow::Continue(()),
            }
        };
        copy_shard(shard, folder.path(), staging.path(), &mut tell)?;
    }
    for (file, bytes) in extra_files {
        staging.write(file, bytes)?;
    }
    let old = match folder.manifest_name().starts_with("ndarray") {
        true => ManifestName::NdarrayCache,
        false => ManifestName::TensorCache,
    };
    // The manifest last, so that what an interruption leaves does not open.
    for (from, to) in [(old.b16_file(), name.b16_file()), (old.file(), name.file())] {
        let path = folder.path().join(from);
        if path.is_file() {
            staging.write(to, &files::need(&path, MAX_MANIFEST_LEN).map_err(|e| io(&path, e))?)?;
        }
    }
    let removed = staging.removed().to_vec();
    staging.publish(dst)?;
    Ok(ConvertReport {
        removed,
        shards: folder.manifest().shards().len(),
        tensors: folder.manifest().records().len(),
        bytes: total,
        ..ConvertReport::default()
    })
}

fn copy_shard(
    shard: &Shard,
    from: &Path,
    to: &Path,
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), ConvertError> {
    let (from, to) = (from.join(&shard.path), to.join(&shard.path));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|e| io(parent, e))?;
    }
    let mut reader = BufReader::new(files::open(&from).map_err(|e| io(&from, e))?);
    let mut writer = BufWriter::new(File::create_new(&to).map_err(|e| io(&to, e))?);
    let (mut md5, mut len) = (Md5::new(), 0u64);
    let mut buffer = vec![0; STEP];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| io(&from, e))?;
        if n == 0 {
            break;
        }
        md5.update(&buffer[..n]);
        writer.write_all(&buffer[..n]).map_err(|e| io(&to, e))?;
        len += n as u64;
        if tell(n as u64).is_break() {
            return Err(ConvertError::Stopped { tensor: format!("the end of {}", shard.path) });
        }
    }
    let file = writer.into_inner().map_err(|e| io(&to, e.into_error()))?;
    file.sync_all().map_err(|e| io(&to, e))?;
    let wrong = |field, expected, found| {
        Err(ConvertError::WrongShard { file: shard.path.clone(), field, expected, found })
    };
    if len != shard.nbytes {
        return wrong("nbytes", shard.nbytes.to_string(), len.to_string());
    }
    let found: String = md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match &shard.md5sum {
        Some(expected) if *expected != found => wrong("md5sum", expected.to_string(), found),
        _ => Ok(()),
    }
}
