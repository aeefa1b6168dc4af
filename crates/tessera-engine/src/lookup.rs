//! Drafts from the text itself: what followed the last few tokens the last time they occurred.
//!
//! A draft costs little when it is right, since a step over a few tokens takes hardly longer than over one.
//! When it is wrong that little is lost, so wrong drafts are followed by a pause that doubles: text without
//! repetition is drafted for so rarely that it does not get slower.

/// Longest draft: with the token before it, as many rows as the products take at once.
pub const MAX_DRAFT: usize = 7;
/// Length of a draft that nothing is known about.
const FIRST_DRAFT: usize = 3;
/// Fewest tokens that must recur before what followed them is worth a try.
const LEAST_MATCH: usize = 2;
/// Matches longer than this are all alike.
const MOST_MATCH: usize = 16;
/// Tokens that are searched.
const WINDOW: usize = 1 << 14;
/// Steps without drafts after a wrong one.
const FIRST_PAUSE: usize = 8;
/// Longest pause.
const LAST_PAUSE: usize = 256;

/// Decides when to draft for one sequence, and how much.
#[derive(Clone, Debug)]
pub struct Lookup {
    len: usize,
    pause: usize,
    wait: usize,
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { len: FIRST_DRAFT, pause: 0, wait: 0 }
    }
}

impl Lookup {
    /// At most `most` tokens that may follow `tokens`.
    pub fn draft<'a>(&mut self, tokens: &'a [u32], most: usize) -> &'a [u32] {
        if self.wait > 0 {
            self.wait -= 1;
            return &[];
        }
        let Some(from) = follows(tokens) else { return &[] };
        &tokens[from..tokens.len().min(from + self.len.min(most))]
    }

    /// Learns what became of a draft.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        if accepted == 0 {
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
            self.wait = self.pause;
            self.len = FIRST_DRAFT;
        } else if accepted == drafted {
            self.pause /= 2;
            self.len = (self.len * 2).min(MAX_DRAFT);
        } else {
            self.len = (accepted + 1).max(FIRST_DRAFT);
        }
    }
}

/// Where the text goes on after the longest earlier occurrence of its end, the latest of several.
fn follows(tokens: &[u32]) -> Option<usize> {
    let (last, before) = tokens.split_last()?;
    let start = before.len().saturating_sub(WINDOW);
    let mut best = (LEAST_MATCH - 1, None);
    for (at, _) in before.iter().enumerate().skip(start).rev().filter(|(_, token)| *token == last) {
        let back = before[..at].iter().rev().zip(before.iter().rev());
        let len = 1 + back.take(MOST_MATCH - 1).take_while(|(a, b)| a == b).count();
        if len > best.0 {
            best = (len, Some(at + 1));
            if len == MOST_MATCH {
                break;
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_then_the_latest_occurrence_counts() {
        assert_eq!(follows(&[]), None);
        assert_eq!(follows(&[1, 2, 3]), None);
        // One token is not enough.
        assert_eq!(follows(&[5, 1, 9, 5]), None);
        assert_eq!(follows(&[1, 2, 7, 1, 2, 8, 1, 2]), Some(5));
        assert_eq!(follows(&[0, 1, 2, 7, 1, 2, 8, 0, 1, 2]), Some(3));
        // The occurrence may overlap the end.
        assert_eq!(follows(&[4, 4, 4]), Some(2));
    }

    #[test]
    fn a_search_ends_at_the_window() {
        let mut tokens = vec![1, 2, 3];
        tokens.extend((0..WINDOW as u32).map(|i| 100 + i));
        tokens.extend([1, 2]);
        assert_eq!(follows(&tokens), None);
    }

    #[test]
    fn wrong_drafts_become_rare_and_right_ones_long() {
        let mut lookup = Lookup::default();
        let text: Vec<u32> = (0..40).map(|i| i % 10).collect();
        assert_eq!(lookup.draft(&text, 100), [0, 1, 2]);
        lookup.learn(3, 3);
        assert_eq!(lookup.draft(&text, 100).len(), 6);
        lookup.learn(6, 6);
        assert_eq!(lookup.draft(&text, 100).len(), MAX_DRAFT);
        assert_eq!(lookup.draft(&text, 5), [0, 1, 2, 3, 4]);

        let mut drafts = 0;
        for _ in 0..1000 {
            let draft = lookup.draft(&text, 3).len();
            drafts += usize::from(draft > 0);
            lookup.learn(draft, 0);
        }
        assert!(drafts <= 9, "{drafts} wrong drafts in 1000 steps");
    }
}
