//! Any bytes as a manifest: no panic, and what is accepted keeps its promises.
//!
//! `mkdir -p fuzz/corpus/manifest && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none manifest fuzz/corpus/manifest
//! fuzz/seeds/manifest -- -runs=1000000
//! -dict=fuzz/manifest.dict -max_len=16384` (the sanitizer adds nothing: this code has no unsafe blocks).

#![no_main]

use libfuzzer_sys::fuzz_target;
use tessera_weights::bytes::Bytes;
use tessera_weights::folder::{Folder, infer_scheme};
use tessera_weights::manifest::Manifest;
use tessera_weights::scheme::{GroupFormat, Layout};

/// Folders of more bytes are not joined with shards, which would only cost time.
const MAX_STORED: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else { return };
    for record in manifest.records() {
        let shard = &manifest.shards()[record.shard];
        assert!(record.range().end <= shard.nbytes);
        let size = record.encoding.stored(record.dtype).size();
        assert_eq!(record.nbytes, record.numel() as u64 * size as u64);
        assert_eq!(manifest.record(&record.name), Some(record));
        assert!(!shard.path.contains(['/', '\\', '\0']));
    }
    if manifest.stored_len() > MAX_STORED {
        return;
    }
    let shard_bytes = |len: u64| Some(Bytes::from_vec(vec![0x5a; len as usize]));
    let folder = Folder::from_parts(data, |shard| shard_bytes(shard.nbytes))
        .expect("a manifest that parses, with shards of its lengths, is a folder");
    let _ = infer_scheme(&folder);
    for tensor in folder.tensors() {
        assert_eq!(tensor.to_f32().is_some(), tensor.dtype.is_float());
        let Some((base, _)) = tensor.name.rsplit_once('.') else { continue };
        let (rows, cols) = (tensor.shape[0], tensor.shape[tensor.shape.len() - 1]);
        for layout in [Layout::Nk, Layout::Kn] {
            for cols in [cols, cols.saturating_mul(8)] {
                if let Ok(matrix) = folder.matrix(base, Some(GroupFormat::INT4), layout, rows, cols) {
                    assert!(matrix.check());
                }
            }
        }
    }
});
