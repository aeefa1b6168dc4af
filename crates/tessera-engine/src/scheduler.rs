//! Who runs next, and what is fed in a step: functions of plain values.

use crate::units::{ALL, Amounts, WINDOW};
use std::collections::VecDeque;

/// Prompt tokens in a step beside which others decode: more would make them wait too long.
pub const CHUNK_BESIDE_DECODING: usize = 256;
/// Rows of a step up to which drafts are worth their time: beyond it every row costs its own.
pub const ROWS_WITH_DRAFTS: usize = 8;

/// Items of many flows; the flows take turns.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Never empty inside; the front's turn is next.
    flows: VecDeque<(u64, VecDeque<T>)>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { flows: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    /// Adds an item behind the others of its flow.
    pub fn push(&mut self, flow: u64, item: T) {
        match self.flows.iter_mut().find(|(f, _)| *f == flow) {
            Some((_, items)) => items.push_back(item),
            None => self.flows.push_back((flow, VecDeque::from([item]))),
        }
    }

    /// The item whose turn it is.
    pub fn peek(&self) -> Option<&T> {
        self.flows.front()?.1.front()
    }

    /// Takes the item whose turn it is; its flow's next turn is after all others'.
    pub fn pop(&mut self) -> Option<T> {
        let (flow, mut items) = self.flows.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.flows.push_back((flow, items));
        }
        item
    }

    /// Takes out the items that `wanted` says, in no special order.
    pub fn take_if(&mut self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (_, items) in &mut self.flows {
            let (out, stay): (VecDeque<T>, _) = std::mem::take(items).into_iter().partition(&wanted);
            taken.extend(out);
            *items = stay;
        }
        self.flows.retain(|(_, items)| !items.is_empty());
        taken
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

/// Whether a sequence that needs so much may join `running` others: room for it, and a page for each of the others, so
/// that they can go on for a while.
pub fn admits(running: usize, needed: Amounts, available: Amounts) -> bool {
    let pages = |kind: usize| if needed[kind] == 0 { 0 } else { running };
    let others = Amounts([pages(ALL), pages(WINDOW), 0]);
    running == 0 || (needed + others).fit_in(available)
}

/// A running sequence, as far as planning goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Tokens that it could feed; none while it waits for its mask.
    pub pending: usize,
    /// Whether they are a prompt (or what was known before a preemption).
    pub prefill: bool,
    /// Whether they are fed in one step or not at all.
    pub whole: bool,
}

/// How many tokens each sequence feeds, of `budget` in all. `ready` is in order of admission. Whoever
/// decodes gets a token first; what is left goes to prompts, oldest first.
pub fn plan(ready: &[Ready], budget: usize) -> Vec<usize> {
    let mut shares = vec![0; ready.len()];
    let mut left = budget;
    let decoding = || ready.iter().enumerate().filter(|(_, r)| !r.prefill && r.pending > 0);
    for (i, _) in decoding() {
        shares[i] = left.min(ready[i].pending.min(1));
        left -= shares[i];
    }
    for (i, r) in decoding() {
        let more = left.min(r.pending - shares[i]);
        shares[i] += more;
        left -= more;
    }
    if decoding().next().is_some() {
        left = left.min(CHUNK_BESIDE_DECODING);
    }
    for (i, r) in ready.iter().enumerate().filter(|(_, r)| r.prefill) {
        shares[i] = if r.whole && r.pending > left { 0 } else { left.min(r.pending) };
        left -= shares[i];
    }
    shares
}

/// How many drafts each of the decoding sequences may add to a step with these shares.
pub fn draft_room(ready: &[Ready], shares: &[usize]) -> usize {
    let rows: usize = shares.iter().sum();
    let decoding = ready.iter().filter(|r| !r.prefill && r.pending > 0).count();
    ROWS_WITH_DRAFTS.saturating_sub(rows) / decoding.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_turns() {
        let mut queue = FairQueue::default();
        for (flow, item) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            queue.push(flow, item);
        }
        assert_eq!(queue.peek(), Some(&"a1"));
        assert_eq!(queue.pop(), Some("a1"));
        queue.push(4, "d1");
        assert_eq!(queue.take_if(|item| *item == "c1" || *item == "a2"), ["c1", "a2"]);
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, ["b1", "a3", "d1", "b2"]);
        assert!(queue.is_empty() && queue.peek().is_none());
    }

    #[test]
    fn one_flow_cannot_hold_up_another() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|i| queue.push(1, i));
        queue.push(2, 1000);
        let position = std::iter::from_fn(|| queue.pop()).position(|item| item == 1000);
        assert_eq!(position, Some(1));
    }

    const fn decode(pending: usize) -> Ready {
        Ready { pending, prefill: false, whole: false }
    }

    const fn prefill(pending: usize) -> Ready {
        Ready { pending, prefill: true, whole: false }
    }

    #[test]
    fn whoever_decodes_comes_first_and_prompts_share_what_is_left() {
        assert_eq!(plan(&[prefill(1000), prefill(30)], 512), [512, 0]);
        assert_eq!(plan(&[prefill(100), prefill(1000)], 512), [100, 412]);
        assert_eq!(plan(&[prefill(1000), decode(1), prefill(1000)], 512), [256, 1, 0]);
        assert_eq!(plan(&[prefill(50), decode(3), decode(1), prefill(1000)], 64), [50, 3, 1, 10]);
        // A token for each comes before the tokens that a grammar forces.
        assert_eq!(plan(&[decode(9), decode(9), decode(9)], 5), [3, 1, 1]);
        assert_eq!(plan(&[decode(1), decode(1), decode(1)], 2), [1, 1, 0]);
        // Who waits for a mask feeds nothing.
        assert_eq!(plan(&[decode(0), decode(2), prefill(9)], 5), [0, 2, 3]);
        assert_eq!(plan(&[], 5), [0usize; 0]);
        // What goes in one step waits until there is room for it.
        let whole = |pending| Ready { whole: true, ..prefill(pending) };
        assert_eq!(plan(&[whole(300), whole(300), whole(200)], 512), [300, 0, 200]);
    }

    #[test]
    fn drafts_are_for_small_steps() {
        let room = |ready: &[Ready]| draft_room(ready, &plan(ready, 512));
        assert_eq!(room(&[decode(1)]), 7);
        assert_eq!(room(&[decode(1); 2]), 3);
        assert_eq!(room(&[decode(1); 4]), 1);
        assert_eq!(room(&[decode(1); 5]), 0);
        assert_eq!(room(&[decode(1), prefill(100)]), 0);
    }

    #[test]
    fn a_sequence_joins_when_all_can_go_on() {
        let pages = |n| Amounts([n, 0, 0]);
        assert!(admits(0, pages(100), pages(100)));
        assert!(admits(3, pages(5), pages(8)));
        assert!(!admits(3, pages(6), pages(8)));
        // The others have their states.
        assert!(admits(3, Amounts([5, 2, 1]), Amounts([8, 5, 1])));
        assert!(!admits(3, Amounts([5, 2, 1]), Amounts([8, 4, 1])));
        assert!(!admits(3, Amounts([5, 2, 1]), Amounts([8, 5, 0])));
    }
}
