//! Every way in which a GGUF file can be wrong, or beyond what is read here.

/// A GGUF file that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file could not be opened or mapped.
    #[error("{file}: {error}")]
    Io {
        /// The file's path.
        file: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// An error of a named file.
    #[error("{file}: {error}")]
    File {
        /// The file's path.
        file: String,
        /// What is wrong in it.
        error: Box<GgufError>,
    },
    /// The metadata ask for sizes that no model of the family can have.
    #[error(transparent)]
    Arch(#[from] crate::arch::ArchError),
    /// A part of a model in several files that is not the one that belongs there.
    #[error("{file}: {what}; it is not the part of this model, fetch it again")]
    Part {
        /// The part's path.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}, expected \"GGUF\"")]
    Magic {
        /// The bytes at the start, four at most.
        found: Vec<u8>,
    },
    /// A version of the format that is not read.
    #[error("GGUF version {found} is not supported, expected 2 or 3")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A file written for big-endian machines.
    #[error(
        "big-endian GGUF files are not supported (version field {found:#010x}); convert it to little endian"
    )]
    BigEndian {
        /// The version field as read in little endian.
        found: u32,
    },
    /// The file ends inside something.
    #[error("the file ends inside {what}: {needed} bytes needed at offset {at}, {left} left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Offset in the file.
        at: u64,
        /// Bytes that must follow.
        needed: u64,
        /// Bytes that do.
        left: u64,
    },
    /// A count or a length beyond what is sane.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: String,
        /// Its value.
        found: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A string that is not UTF-8.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// Which string.
        what: String,
    },
    /// An unknown type of a metadata value.
    #[error("metadata key {key}: value type {found} is unknown, expected 0 to 12")]
    ValueType {
        /// The key.
        key: String,
        /// The type's number.
        found: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("metadata key {key}: a boolean is {found}, expected 0 or 1")]
    Bool {
        /// The key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// The same metadata key twice.
    #[error("metadata key {key} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The same tensor name twice.
    #[error("tensor {tensor} occurs twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// `general.alignment` is not a power of two.
    #[error("general.alignment is {found}, expected a power of two up to {limit}")]
    Alignment {
        /// Its value.
        found: u64,
        /// The largest accepted.
        limit: u64,
    },
    /// A tensor's type number that ggml does not define.
    #[error("tensor {tensor}: type number {found} is unknown")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The number.
        found: u32,
    },
    /// A tensor of a type that ggml defines and that is not decoded here.
    #[error("tensor {tensor}: type {found} is not supported, expected one of {expected}")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// ggml's name of the type.
        found: &'static str,
        /// The types that are.
        expected: String,
    },
    /// A shape that cannot be.
    #[error("tensor {tensor}: dimensions {dims:?}: {what}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// GGUF's order: innermost first.
        dims: Vec<u64>,
        /// What is wrong.
        what: String,
    },
    /// A tensor that does not start at a multiple of the alignment.
    #[error("tensor {tensor}: offset {offset} is not a multiple of the alignment {alignment}")]
    Unaligned {
        /// The tensor.
        tensor: String,
        /// Offset in the data section.
        offset: u64,
        /// `general.alignment`.
        alignment: u64,
    },
    /// A tensor whose bytes are not all in the file.
    #[error(
        "tensor {tensor}: {len} bytes at offset {offset} of the data section end after it ({data_len} bytes)"
    )]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// Offset in the data section.
        offset: u64,
        /// Bytes that its shape and type need.
        len: u64,
        /// Bytes of the data section.
        data_len: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensor {tensor} begins at offset {offset}, inside tensor {other} which ends at {end}")]
    Overlap {
        /// The later tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// The earlier tensor.
        other: String,
        /// Where that one ends.
        end: u64,
    },
    /// A metadata key that must be there and is not.
    #[error("metadata key {key} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value of another type than the key needs.
    #[error("metadata key {key} is {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it is.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A metadata value that makes no sense or that is not supported.
    #[error("metadata key {key} is {found}: {what}")]
    BadValue {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// Why that cannot be used.
        what: String,
    },
    /// A key of the model that is not understood, so that ignoring it might change the model.
    #[error("metadata key {key} (value {found}) is not understood; ignoring it could change the model")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value.
        found: String,
    },
    /// A tensor that the model needs and that is not there.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// The name.
        tensor: String,
    },
    /// A tensor that is no part of a llama model.
    #[error("tensor {tensor} is not part of a llama model: {what}")]
    UnknownTensor {
        /// The name.
        tensor: String,
        /// What it seems to be.
        what: &'static str,
    },
    /// A tensor whose shape is not the one that the metadata asks for.
    #[error("tensor {tensor}: shape {found:?}, expected {expected:?} from the metadata")]
    TensorShape {
        /// The name.
        tensor: String,
        /// Its shape, outermost first.
        found: Vec<u64>,
        /// The shape that fits the metadata.
        expected: Vec<u64>,
    },
    /// `rope_freqs.weight` holds factors of no known kind of RoPE scaling.
    #[error("tensor rope_freqs.weight: {what}")]
    RopeFactors {
        /// What does not fit.
        what: String,
    },
    /// The tokenizer cannot be rebuilt.
    #[error("tokenizer: {what}")]
    Tokenizer {
        /// What is wrong, with the values.
        what: String,
    },
}
