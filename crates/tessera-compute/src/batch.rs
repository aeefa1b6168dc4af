//! What one step computes: which tokens of which sequences, at which positions, over which pages.

use std::ops::Range;
use tessera_weights::arch::{Mask, Sinks};

/// Positions in one KV page. Attention merges its results page by page in ascending order, on every
/// backend and for any batch, so this number is part of the arithmetic.
pub const PAGE: usize = 64;

/// What a layer's pages are kept for. A page of a kind holds the keys and values of all layers of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Layers that may see every position of the sequence.
    All,
    /// Layers that see a window: a page behind it is not kept.
    Window,
}

impl PageKind {
    /// How many there are; what is of each kind is in the order of [`PageKind::EACH`].
    pub const COUNT: usize = 2;
    /// One after another.
    pub const EACH: [PageKind; PageKind::COUNT] = [PageKind::All, PageKind::Window];
}

/// Stands for a page behind the window in [`Span::pages`].
pub const GONE: u32 = u32::MAX;

/// Consecutive new tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// First row of the span in [`Batch::tokens`]; spans lie one after another.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Position of the first row in its sequence: how many tokens the pages already hold.
    pub position: usize,
    /// Length that decides a RoPE scaling which depends on the length of the sequence (`dynamic`,
    /// `longrope`): the whole prompt's for prompt tokens, `position + 1` for a generated one. It
    /// does not depend on how the prompt was cut into chunks.
    pub rope_len: usize,
    /// Position where the call began that these tokens are part of: 0 for a prompt's, however it was cut into chunks;
    /// `None` if each is a call of its own. See [`Mask::CallWindow`].
    pub call: Option<usize>,
    /// Of each kind the sequence's pages in order; page `i` holds positions `i * PAGE ..`. Those that none of the rows
    /// sees may be [`GONE`]; of a kind that no layer has there is none.
    pub pages: [&'a [u32]; PageKind::COUNT],
    /// Where the state of a recurrence is, in programs that have one.
    pub state: Option<StateUse>,
}

impl Span<'_> {
    /// Which positions its row `i` sees.
    pub fn sees(&self, mask: Mask, i: usize) -> Range<usize> {
        mask.sees(self.position + i, self.position + self.len, self.call)
    }

    /// Which it sees besides; see [`Mask::sinks`].
    pub fn sinks(&self, mask: Mask, i: usize) -> Option<Sinks> {
        mask.sinks(self.position + i, self.call)
    }
}

/// A sequence's state before and after a step. Both may be one slot; no other span of the step uses the second. Several
/// spans may begin from one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateUse {
    /// The slot that holds it; `None` at the sequence's beginning, where it is zero.
    pub from: Option<u32>,
    /// The slot that will hold it.
    pub to: u32,
    /// Where it is put besides on the way.
    pub save: Option<Save>,
}

/// A state in the middle of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Save {
    /// After how many of the span's rows; at least one.
    pub rows: usize,
    /// The slot that will hold it, which nothing else of the step uses.
    pub slot: u32,
}

/// What a device keeps of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// KV pages of [`PAGE`] positions, of each kind.
    pub pages: [usize; PageKind::COUNT],
    /// Slots of states, in programs that have one: each of [`Program::state_len`](crate::program::Program::state_len) values.
    pub states: usize,
}

/// What the indices of a batch may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the embedding.
    pub vocab: usize,
    /// Pages of the pool of each kind; `None` where no layer is of it.
    pub pages: [Option<usize>; PageKind::COUNT],
    /// How many positions the layers of [`PageKind::Window`] see at most.
    pub window: usize,
    /// See [`crate::program::Program::positions`].
    pub positions: usize,
    /// Slots of states; `None` where the program has no state.
    pub states: Option<usize>,
    /// Whether there are logits.
    pub logits: bool,
    /// Whether every sequence is one span.
    pub whole: bool,
}

/// What a step should return for the picked rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// All logits.
    #[default]
    Logits,
    /// Only the id of the largest logit, the lowest id among equals.
    Greedy,
    /// The input of the head, after the final norm; the head is not computed.
    Hidden,
}

/// One step over ragged sequences.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// Token ids of all rows, span after span.
    pub tokens: &'a [u32],
    /// The sequences that the rows belong to.
    pub spans: &'a [Span<'a>],
    /// Rows whose logits are wanted, ascending.
    pub picked: &'a [u32],
    /// What to return for them.
    pub want: Want,
}

/// What a step returned. The vectors are reused between steps.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `[picked, vocab]`, empty unless [`Want::Logits`].
    pub logits: Vec<f32>,
    /// `[picked]`, empty unless [`Want::Greedy`]. `None` where a logit is NaN or +inf, or none is finite.
    pub tokens: Vec<Option<u32>>,
    /// `[picked, width of the head's input]`, empty unless [`Want::Hidden`].
    pub hidden: Vec<f32>,
}

impl Output {
    /// Forgets the last step.
    pub fn clear(&mut self) {
        self.logits.clear();
        self.tokens.clear();
        self.hidden.clear();
    }
}

/// A batch that does not fit the program or the pool of pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The batch has no rows.
    #[error("the batch has no tokens")]
    Empty,
    /// Spans do not lie one after another or do not cover the rows.
    #[error("span {span} covers rows {start}..{end} of {rows}")]
    BadSpan {
        /// Index of the span.
        span: usize,
        /// Its first row.
        start: usize,
        /// One past its last row.
        end: usize,
        /// Rows of the batch.
        rows: usize,
    },
    /// A span has too few pages, or one that is not in the pool.
    #[error("span {span} reaches position {position} with {pages} pages of {PAGE}, the pool has {pool}")]
    BadPages {
        /// Index of the span.
        span: usize,
        /// Positions held after the step.
        position: usize,
        /// Pages given.
        pages: usize,
        /// Pages in the pool.
        pool: usize,
    },
    /// A span goes on where the program has no positions.
    #[error("span {span} reaches position {position}, the program has {positions}")]
    BadPosition {
        /// Index of the span.
        span: usize,
        /// Positions held after the step.
        position: usize,
        /// See [`crate::program::Program::positions`].
        positions: usize,
    },
    /// A part of a sequence, where every token sees all others.
    #[error("span {span} begins at position {position}, every token of this model sees all of its sequence")]
    Part {
        /// Index of the span.
        span: usize,
        /// Its first position.
        position: usize,
    },
    /// What a program without logits does not make.
    #[error("the program ends in a hidden state, logits were asked for")]
    NoLogits,
    /// A span has no state, one at a wrong position, or one that is not its own.
    #[error("span {span} at position {position} has the state {state:?} of {states:?} slots")]
    BadState {
        /// Index of the span.
        span: usize,
        /// Its first position.
        position: usize,
        /// What it has.
        state: Option<StateUse>,
        /// Slots that there are.
        states: Option<usize>,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {token} is outside the vocabulary of {vocab}")]
    BadToken {
        /// The id.
        token: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// Picked rows are not ascending rows of the batch.
    #[error("picked row {row} is out of order or not one of the {rows} rows")]
    BadPick {
        /// The row.
        row: u32,
        /// Rows of the batch.
        rows: usize,
    },
}

impl Batch<'_> {
    /// Position of a row in its sequence.
    pub fn position(&self, row: usize) -> usize {
        let after = self.spans.partition_point(|span| span.start <= row);
        let span = &self.spans[after.saturating_sub(1)];
        span.position + (row - span.start)
    }

    /// Whether a row is a call of its own: see [`Span::call`].
    pub fn is_single(&self, row: usize) -> bool {
        let after = self.spans.partition_point(|span| span.start <= row);
        self.spans[after.saturating_sub(1)].call.is_none()
    }

    /// Whether the span has the state that it should have, and writes one that no other span uses.
    fn fits(&self, span: usize, states: Option<usize>) -> bool {
        let s = &self.spans[span];
        match (s.state, states) {
            (Some(StateUse { from, to, save }), Some(states)) => {
                let mut others = self.spans.iter().enumerate().filter(|(i, _)| *i != span);
                let saved = save.map(|save| save.slot);
                let own = |slot: Option<u32>| slot.is_some() && (slot == Some(to) || slot == saved);
                let used = |other: &Span<'_>| {
                    other.state.is_some_and(|o| own(o.from) || own(Some(o.to)) || own(o.save.map(|s| s.slot)))
                };
                from.is_none() == (s.position == 0)
                    && from.into_iter().chain([to]).chain(saved).all(|slot| (slot as usize) < states)
                    && save.is_none_or(|save| (1..=s.len).contains(&save.rows))
                    && (saved.is_none() || saved != Some(to) && saved != from)
                    && !others.any(|(_, other)| used(other))
            }
            (_, states) => states.is_none(),
        }
    }

    /// Checks everything that a backend indexes by: tokens of a vocabulary, pages of a pool, learned positions, states.
    pub fn check(&self, limits: Limits) -> Result<(), BatchError> {
        let Limits { vocab, pages: pools, window, positions, states, logits, whole } = limits;
        if !logits && self.want != Want::Hidden {
            return Err(BatchError::NoLogits);
        }
        let rows = self.tokens.len();
        if rows == 0 {
            return Err(BatchError::Empty);
        }
        let mut next = 0;
        for (i, s) in self.spans.iter().enumerate() {
            let end = s.start.saturating_add(s.len);
            if s.start != next || s.len == 0 || end > rows {
                return Err(BatchError::BadSpan { span: i, start: s.start, end, rows });
            }
            next = end;
            let position = s.position.saturating_add(s.len);
            if position > positions {
                return Err(BatchError::BadPosition { span: i, position, positions });
            }
            if whole && s.position > 0 {
                return Err(BatchError::Part { span: i, position: s.position });
            }
            let first = (s.position + 1).saturating_sub(window) / PAGE;
            for ((pages, pool), seen_from) in s.pages.iter().zip(pools).zip([0, first]) {
                let Some(pool) = pool else { continue };
                let enough = pages.len().saturating_mul(PAGE) >= position;
                let is = |(i, p): (usize, &u32)| (*p as usize) < pool || *p == GONE && i < seen_from;
                if !enough || !pages.iter().enumerate().all(is) {
                    return Err(BatchError::BadPages { span: i, position, pages: pages.len(), pool });
                }
            }
            if !self.fits(i, states) {
                return Err(BatchError::BadState { span: i, position: s.position, state: s.state, states });
            }
        }
        if next != rows {
            return Err(BatchError::BadSpan { span: self.spans.len(), start: next, end: next, rows });
        }
        if let Some(&token) = self.tokens.iter().find(|&&t| t as usize >= vocab) {
            return Err(BatchError::BadToken { token, vocab });
        }
        let mut least = 0;
        for &row in self.picked {
            if (row as usize) < least || row as usize >= rows {
                return Err(BatchError::BadPick { row, rows });
            }
            least = row as usize + 1;
        }
        Ok(())
    }
}
