//! Drafts from the text itself: what followed the last few tokens the last time they occurred.
//!
//! A draft costs little when it is right, since a step over a few tokens takes hardly longer than over one.
//! When it is wrong its rows are lost. What may be lost is kept in an account: each right draft pays in, each
//! row takes out what it costs on a small model (on a large one it costs less), and a hundredth of a token is
//! given for each step. So text without repetition cannot become slower by more than that and a few tokens
//! at the start.

/// Longest draft: with the token before it, as many rows as the products take at once.
pub const MAX_DRAFT: usize = 7;
/// Length of a draft that nothing is known about.
const FIRST_DRAFT: usize = 3;
/// Tokens that must recur before what followed them is worth a try; more after a wrong draft.
const LEAST_MATCH: usize = 4;
/// Longer matches are all alike.
const MOST_MATCH: usize = 16;
/// After a match of this length a long draft is worth a try at once.
const SURE_MATCH: usize = 12;
/// Tokens that are searched.
const WINDOW: usize = 1 << 14;

/// What a row of a draft costs, in steps of one token.
const ROW_COST: f32 = 0.75;
/// What is in the account at first: one draft may be wrong.
const FIRST_BALANCE: f32 = FIRST_DRAFT as f32 * ROW_COST + 0.05;
/// What each step adds.
const ALLOWANCE: f32 = 0.01;
/// More is not saved up.
const MOST_BALANCE: f32 = 16.0;

/// Decides when to draft for one sequence, and how much.
#[derive(Clone, Debug)]
pub struct Lookup {
    len: usize,
    match_len: usize,
    balance: f32,
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { len: FIRST_DRAFT, match_len: LEAST_MATCH, balance: FIRST_BALANCE }
    }
}

impl Lookup {
    /// At most `most` tokens that may follow `tokens`; asked once for each step.
    pub fn draft(&mut self, tokens: &[u32], most: usize) -> Vec<u32> {
        self.balance = (self.balance + ALLOWANCE).min(MOST_BALANCE);
        let affordable = (self.balance / ROW_COST) as usize;
        if affordable == 0 || most == 0 {
            return Vec::new();
        }
        let Some((from, match_len)) = follows(tokens, self.match_len) else { return Vec::new() };
        let len = if match_len >= SURE_MATCH { MAX_DRAFT } else { self.len };
        let mut draft = Vec::new();
        for at in from..from + len.min(most).min(affordable) {
            // Text that repeats itself at a short distance goes on in the draft.
            draft.push(tokens.get(at).copied().unwrap_or_else(|| draft[at - tokens.len()]));
        }
        draft
    }

    /// Learns what became of a draft.
    pub fn learn(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        let won = accepted as f32 - ROW_COST * drafted as f32;
        self.balance = (self.balance + won).min(MOST_BALANCE);
        if accepted == 0 {
            self.len = FIRST_DRAFT;
            self.match_len = (self.match_len * 2).min(MOST_MATCH);
        } else if accepted == drafted {
            self.len = (self.len * 2).min(MAX_DRAFT);
            self.match_len = (self.match_len / 2).max(LEAST_MATCH);
        } else {
            self.len = (accepted + 1).max(FIRST_DRAFT);
        }
    }
}

/// Where the text goes on after the longest earlier occurrence of its end, the latest of several, and the
/// length of that occurrence, at least `least`.
fn follows(tokens: &[u32], least: usize) -> Option<(usize, usize)> {
    let (last, before) = tokens.split_last()?;
    let start = before.len().saturating_sub(WINDOW);
    let mut best = None;
    let mut longest = least - 1;
    for (at, _) in before.iter().enumerate().skip(start).rev().filter(|(_, token)| *token == last) {
        let back = before[..at].iter().rev().zip(before.iter().rev());
        let len = 1 + back.take(MOST_MATCH - 1).take_while(|(a, b)| a == b).count();
        if len > longest {
            (longest, best) = (len, Some((at + 1, len)));
            if len == MOST_MATCH {
                break;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_then_the_latest_occurrence_counts() {
        assert_eq!(follows(&[], 1), None);
        assert_eq!(follows(&[1, 2, 3], 1), None);
        assert_eq!(follows(&[5, 1, 9, 5], 2), None);
        assert_eq!(follows(&[5, 1, 9, 5], 1), Some((1, 1)));
        assert_eq!(follows(&[1, 2, 7, 1, 2, 8, 1, 2], 2), Some((5, 2)));
        assert_eq!(follows(&[0, 1, 2, 7, 1, 2, 8, 0, 1, 2], 2), Some((3, 3)));
        // The occurrence may overlap the end.
        assert_eq!(follows(&[4, 4, 4], 2), Some((2, 2)));
    }

    #[test]
    fn a_search_ends_at_the_window() {
        let mut tokens = vec![1, 2, 3];
        tokens.extend((0..WINDOW as u32).map(|i| 100 + i));
        tokens.extend([1, 2]);
        assert_eq!(follows(&tokens, 2), None);
    }

    /// What a policy does to a text whose tokens are known: steps of one token and rows of drafts.
    fn run(prompt: &[u32], answer: &[u32]) -> (usize, usize) {
        let mut lookup = Lookup::default();
        let (mut tokens, mut at, mut steps, mut rows) = (prompt.to_vec(), 0, 0, 0);
        while at < answer.len() {
            let draft = lookup.draft(&tokens, answer.len() - at - 1);
            let right = draft.iter().zip(&answer[at..]).take_while(|(a, b)| a == b).count();
            lookup.learn(draft.len(), right);
            tokens.extend(&answer[at..at + right + 1]);
            at += right + 1;
            steps += 1;
            rows += draft.len();
        }
        (steps, rows)
    }

    #[test]
    fn repetitive_text_takes_few_steps() {
        let part: Vec<u32> = (0..50).collect();
        let (steps, rows) = run(&part, &part.repeat(8));
        assert!(steps < 75 && rows < 450, "{steps} steps, {rows} rows for 400 tokens");
        // One token over and over, too: the draft goes on by itself.
        let (steps, _) = run(&[1, 2, 3], &[7; 400]);
        assert!(steps < 75, "{steps} steps for 400 tokens");
    }

    #[test]
    fn text_that_only_looks_repetitive_costs_a_bounded_number_of_rows() {
        // Five tokens that recur, and then something else each time.
        let answer: Vec<u32> = (0..400u32).flat_map(|i| [1, 2, 3, 4, 5, 1000 + i]).collect();
        let (steps, rows) = run(&[], &answer);
        let cost = steps as f32 + ROW_COST * rows as f32;
        let bound = answer.len() as f32 * (1.0 + ALLOWANCE) + FIRST_BALANCE;
        assert!(cost <= bound, "{steps} steps and {rows} rows for {} tokens", answer.len());
        assert!(rows > 0);
    }
}
