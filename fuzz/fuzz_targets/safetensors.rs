//! Any bytes as a safetensors file: what is accepted has every tensor whole, and refuses only its dtype.
//!
//! ```text
//! mkdir -p fuzz/corpus/safetensors
//! RUSTC_BOOTSTRAP=1 cargo fuzz run -s none safetensors fuzz/corpus/safetensors fuzz/seeds/safetensors -- \
//!     -runs=1000000 -dict=fuzz/safetensors.dict -max_len=4096
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use tessera_weights::bytes::Bytes;
use tessera_weights::dtype::DType;
use tessera_weights::hf::HfFolder;
use tessera_weights::source::TensorSource;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = HfFolder::of_file("model.safetensors", Bytes::from_vec(data.to_vec())) else { return };
    let mut last: Option<&str> = None;
    for (i, tensor) in source.tensors().iter().enumerate() {
        assert!(last.is_none_or(|l| l < tensor.name.as_str()), "names are sorted, and none comes twice");
        last = Some(&tensor.name);
        assert_eq!(source.file(i), "model.safetensors");
        match source.read(i) {
            Ok(values) => assert_eq!(values.len(), tensor.shape.iter().product::<usize>()),
            Err(e) => assert!(
                !matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16),
                "a float tensor of an accepted file can be read: {e}"
            ),
        }
    }
});
