//! Where the hyper-parameters of a chat config come from.

/// Where the value of a hyper-parameter comes from.
#[derive(Clone, Copy)]
pub(super) enum From {
    /// The key of the same name; left out when it is missing.
    Same,
    /// The key of the same name, or null.
    Null,
    /// The key of the same name, or false.
    False,
    Text(&'static str),
    /// Under either of its names.
    Vocab,
    One,
    Context,
    Prefill,
    RopeTheta,
    RopeScaling,
    KvHeads,
    HeadDim,
    /// GPT-2's width of the MLP, four times the model's unless given.
    Inner,
    Sliding,
    /// The key of the same name, or this whole number.
    Whole(i64),
    /// The key of the same name, or this number.
    Fraction(f64),
    /// The same, from `rope_parameters` where that has it.
    Partial(f64),
    /// `rope_parameters` without the base, which is a field of its own.
    RopeParameters,
}

pub(super) type Field = (&'static str, From);
