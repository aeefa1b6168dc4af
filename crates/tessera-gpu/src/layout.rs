//! A step's data as one array of words, as kernels read it: a header with the places of the tables, then the tables.

use crate::kernels::PART;
use tessera_compute::batch::{Batch, PAGE, PageKind};
use tessera_compute::program::{Attend, Kv, Op, Program};
use tessera_compute::rope::Pairs;
use tessera_weights::arch::{Mask, PositionScale};

/// Words of the header that kernels name: how many rows there are of each kind, and the first of them.
pub const COUNT_ALL: usize = 0;
/// See [`COUNT_ALL`].
pub const COUNT_PICKED: usize = 1;
/// Where the token of each row is.
pub const TOKENS: usize = 2;
/// Where the position of each row is.
pub const POSITIONS: usize = 3;
const PICKED: usize = 4;
const PAGES: usize = 5;
const SINGLE: usize = 6;
const SPANS: usize = 7;
const SPANS_AT: usize = 8;
/// Rows of the head that are made at once.
pub const COUNT_HEAD: usize = 9;
/// The first of them among the picked rows.
pub const BASE: usize = 10;
/// Holds 0.
pub const ZERO: usize = 11;
/// How many parts the longest of the sequences has; see [`crate::kernels::PART`].
pub const PARTS: usize = 12;
/// The first of the program's own tables.
const OWN: usize = 13;
const NONE: u32 = u32::MAX;

/// What a program looks up for each row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// What rows see: first and one past the last position, and how many there are at the beginning.
    masks: Vec<Mask>,
    /// cos and sin, each with the mask whose first keys are at another distance.
    turns: Vec<(usize, Option<Mask>)>,
    /// Factors of positions.
    positions: Vec<PositionScale>,
}

impl Tables {
    /// Those that a program needs.
    pub fn of(program: &Program) -> Tables {
        let mut tables = Tables::default();
        for op in &program.ops {
            match *op {
                Op::Attend(Attend { mask, rope, .. }) => {
                    add(&mut tables.masks, mask);
                    if let Some(rope) = rope {
                        add(&mut tables.turns, (rope, None));
                        if matches!(mask, Mask::Cache { .. }) {
                            add(&mut tables.turns, (rope, Some(mask)));
                        }
                    }
                }
                Op::ByPosition { scale, .. } => add(&mut tables.positions, scale),
                _ => {}
            }
        }
        tables
    }

    /// The word that says where a mask's table is.
    pub fn seen(&self, mask: Mask) -> usize {
        OWN + self.masks.iter().position(|m| *m == mask).unwrap_or(0)
    }

    /// That of cos and sin.
    pub fn turn(&self, rope: usize, moved: Option<Mask>) -> usize {
        OWN + self.masks.len() + self.turns.iter().position(|t| *t == (rope, moved)).unwrap_or(0)
    }

    /// That of a factor.
    pub fn position(&self, scale: PositionScale) -> usize {
        let before = OWN + self.masks.len() + self.turns.len();
        before + self.positions.iter().position(|p| *p == scale).unwrap_or(0)
    }

    fn header(&self) -> usize {
        OWN + self.masks.len() + self.turns.len() + self.positions.len()
    }

    /// The step of a batch that was checked. `words` is overwritten.
    pub fn write(&self, program: &Program, batch: &Batch<'_>, words: &mut Vec<u32>) {
        let rows = batch.tokens.len();
        words.clear();
        words.resize(self.header(), 0);
        words[COUNT_ALL] = rows as u32;
        words[COUNT_PICKED] = batch.picked.len() as u32;
        words[PARTS] = parts(batch) as u32;
        table(words, TOKENS).extend(batch.tokens);
        table(words, POSITIONS);
        for span in batch.spans {
            words.extend((0..span.len).map(|i| (span.position + i) as u32));
        }
        table(words, PICKED).extend(batch.picked);
        // Lists of pages, then for each row where the lists of its span begin.
        let mut lists = Vec::with_capacity(batch.spans.len());
        for span in batch.spans {
            let at = PageKind::EACH.map(|kind| {
                let at = words.len() as u32;
                words.extend(
                    span.pages[kind as usize].iter().map(|page| if *page == NONE { 0 } else { *page }),
                );
                at
            });
            lists.push(at);
        }
        table(words, PAGES);
        for (span, at) in batch.spans.iter().zip(&lists) {
            (0..span.len).for_each(|_| words.extend(at));
        }
        table(words, SINGLE);
        for span in batch.spans {
            words.extend(std::iter::repeat_n(u32::from(span.call.is_none()), span.len));
        }
        words[SPANS] = batch.spans.len() as u32;
        table(words, SPANS_AT);
        for span in batch.spans {
            let state = span.state;
            let save = state.and_then(|s| s.save);
            words.extend([
                span.start as u32,
                span.len as u32,
                state.and_then(|s| s.from).unwrap_or(NONE),
                state.map_or(0, |s| s.to),
                save.map_or(NONE, |s| s.rows as u32),
                save.map_or(0, |s| s.slot),
                0,
                0,
            ]);
        }
        for (i, &mask) in self.masks.iter().enumerate() {
            table(words, OWN + i);
            for span in batch.spans {
                for row in 0..span.len {
                    let (seen, sinks) = (span.sees(mask, row), span.sinks(mask, row));
                    words.extend([
                        seen.start as u32,
                        seen.end as u32,
                        sinks.map_or(0, |s| s.count as u32),
                        0,
                    ]);
                }
            }
        }
        for (i, &(rope, moved)) in self.turns.iter().enumerate() {
            table(words, OWN + self.masks.len() + i);
            turns(program, rope, moved, batch, words);
        }
        for (i, scale) in self.positions.iter().enumerate() {
            table(words, OWN + self.masks.len() + self.turns.len() + i);
            for span in batch.spans {
                words.extend((0..span.len).map(|i| scale.at(span.position + i).to_bits()));
            }
        }
    }

    /// The two words that say which rows of the head are made.
    pub const fn head(first: usize, count: usize) -> [u32; 2] {
        [count as u32, first as u32]
    }
}

/// Parts of the longest sequence.
pub fn parts(batch: &Batch<'_>) -> usize {
    batch.spans.iter().map(|span| (span.position + span.len).div_ceil(PART)).max().unwrap_or(0)
}

/// cos and signed sin of each dimension that turns, row after row.
fn turns(program: &Program, rope: usize, moved: Option<Mask>, batch: &Batch<'_>, words: &mut Vec<u32>) {
    let rope = &program.ropes[rope];
    let (half, n) = (rope.dim / 2, rope.angles());
    let (mut cos, mut sin) = (vec![0.0f32; n], vec![0.0f32; n]);
    for span in batch.spans {
        let frequencies = rope.frequencies(span.rope_len);
        for row in 0..span.len {
            let back = moved.and_then(|mask| span.sinks(mask, row)).map_or(0, |sinks| sinks.back);
            frequencies.at(span.position + row - back, &mut cos, &mut sin);
            for d in 0..rope.dim {
                let (first, i) = match rope.pairs {
                    Pairs::Halves | Pairs::Apart => (d < half, d % half),
                    Pairs::Neighbours | Pairs::NeighboursApart => (d % 2 == 0, d / 2),
                };
                let i = if !first && rope.pairs.apart() { i + half } else { i };
                let sin = if first { -sin[i] } else { sin[i] };
                words.extend([cos[i].to_bits(), sin.to_bits()]);
            }
        }
    }
}

/// Begins a table whose place the word `at` says.
fn table(words: &mut Vec<u32>, at: usize) -> &mut Vec<u32> {
    words[at] = words.len() as u32;
    words
}

fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}

/// Words of a layer in a page.
pub const fn layer_words(kv: &Kv, halves: bool) -> usize {
    2 * kv.heads * kv.dim * PAGE / if halves { 2 } else { 1 }
}
