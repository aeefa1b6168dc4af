//! One step as a value that owns what it computes, so that it may be under way while its caller does something else.

use crate::batch::{Batch, PageKind, Span, Want};

/// A [`Batch`] that is handed over.
#[derive(Clone, Debug, Default)]
pub struct Step {
    tokens: Vec<u32>,
    spans: Vec<Owned>,
    picked: Vec<u32>,
    want: Want,
}

/// A span apart from its pages.
#[derive(Clone, Debug)]
struct Owned {
    span: Span<'static>,
    pages: [Vec<u32>; PageKind::COUNT],
}

impl Owned {
    fn lend(&self) -> Span<'_> {
        Span { pages: self.pages.each_ref().map(Vec::as_slice), ..self.span.clone() }
    }
}

impl Step {
    /// With what a batch lends.
    pub fn of(batch: &Batch<'_>) -> Step {
        let own = |span: &Span<'_>| {
            let Span { start, len, position, rope_len, call, pages, state } = *span;
            let span = Span { start, len, position, rope_len, call, pages: [&[]; PageKind::COUNT], state };
            Owned { span, pages: pages.map(<[u32]>::to_vec) }
        };
        Step {
            tokens: batch.tokens.to_vec(),
            spans: batch.spans.iter().map(own).collect(),
            picked: batch.picked.to_vec(),
            want: batch.want,
        }
    }

    /// Lends it.
    pub fn with<T>(&self, f: impl FnOnce(&Batch<'_>) -> T) -> T {
        let spans: Vec<Span<'_>> = self.spans.iter().map(Owned::lend).collect();
        f(&Batch { tokens: &self.tokens, spans: &spans, picked: &self.picked, want: self.want })
    }
}
