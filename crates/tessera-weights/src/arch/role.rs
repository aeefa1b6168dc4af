//! The part that a parameter plays in its decoder, whatever a family calls it.

/// A module of a decoder: its `.weight`, and where the family has one its `.bias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows by token id.
    Embed,
    /// Rows by position.
    Positions,
    /// Rows by the type of the token (BERT).
    TokenTypes,
    /// A norm over the whole row.
    Norm(Place),
    /// Query, key and value heads as one matrix: all q, all k, all v.
    Qkv,
    /// Query heads alone.
    Q,
    /// Key heads alone.
    K,
    /// Value heads alone.
    V,
    /// Norm of the query heads: of each, or of all as one row; its length says which.
    QNorm,
    /// Norm of the key heads.
    KNorm,
    /// The attention's output.
    Out,
    /// Gate and up of an MLP as one matrix: the gate's rows, then up's.
    GateUp,
    /// The gate alone.
    Gate,
    /// Up alone, or the first matrix of an MLP without a gate.
    Up,
    /// Down.
    Down,
    /// Logits of the experts.
    Router,
    /// Added to the experts' scores where they are chosen (DeepSeek V3).
    RouterCorrection,
    /// Gate and up of every expert, `[experts, 2 * width, hidden]`.
    ExpertsGateUp,
    /// Down of every expert, `[experts, hidden, width]`.
    ExpertsDown,
    /// Gate and up of the expert that every row goes through.
    SharedGateUp,
    /// Its down.
    SharedDown,
    /// The factor of that expert, one value a row.
    SharedGate,
    /// Logits.
    Head,
    /// A parameter that only this family has, by MLC's name within the layer. Its decoder asks for it by that.
    Own(&'static str),
}

/// Where a norm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// After the embedding.
    Embed,
    /// Before attention; before both branches where only this one is there and they are parallel.
    PreAttention,
    /// Of attention's result, before it is added.
    PostAttention,
    /// Before the MLP.
    PreMlp,
    /// Of the MLP's result, before it is added.
    PostMlp,
    /// Before the head.
    Final,
}
