//! Any bytes as a GGUF file: header, config, tokenizer, and every tensor of what is accepted.
//!
//! ```text
//! mkdir -p fuzz/corpus/gguf && cp crates/tessera-weights/tests/data/gguf/*.gguf fuzz/corpus/gguf
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -s none gguf -- -runs=1000000
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use tessera_weights::bytes::Bytes;
use tessera_weights::gguf::{Gguf, GgufSource, hf_config, tokenizer_files};
use tessera_weights::source::TensorSource;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(Bytes::from_vec(bytes.to_vec())) else { return };
    for tensor in gguf.tensors() {
        assert!(!gguf.data(tensor).is_empty(), "an accepted tensor has its bytes");
    }
    let _ = tokenizer_files(&gguf);
    let _ = hf_config(&gguf);
    if let Ok(source) = GgufSource::new(gguf, "fuzz") {
        for (i, tensor) in source.tensors().iter().enumerate() {
            let values = source.read(i).expect("an accepted tensor can be read");
            assert_eq!(values.len(), tensor.shape.iter().product::<usize>());
        }
    }
});
