use super::*;
use proptest::prelude::*;

/// Pages and states as a backend keeps them: of each position, everything up to it.
struct Memory {
    pages: [Vec<[u64; PAGE]>; PageKind::COUNT],
    states: Vec<u64>,
}

fn hash(before: u64, token: u32, class: u32) -> u64 {
    (before ^ (u64::from(token) << 8) ^ u64::from(class) ^ 0x9e37)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(31)
}

/// What each position of a sequence should hold, after a beginning that holds 1.
fn hashes(sequence: &Sequence) -> Vec<u64> {
    let mut all = vec![1];
    for (i, token) in sequence.tokens.iter().enumerate() {
        all.push(hash(all[i], *token, sequence.classes.get(i).copied().unwrap_or(0)));
    }
    all
}

impl Memory {
    fn new(kv: &Kv) -> Memory {
        let of = |kind: PageKind| vec![[0; PAGE]; kv.pool(kind as usize).total()];
        Memory { pages: PageKind::EACH.map(of), states: vec![0; kv.pool(STATE).total()] }
    }

    fn copy(&mut self, copies: &[PageCopy]) {
        for copy in copies {
            let pages = &mut self.pages[copy.kind as usize];
            pages[copy.to as usize] = pages[copy.from as usize];
        }
    }

    /// What a step does.
    fn feed(
        &mut self,
        kv: &mut Kv,
        sequence: &mut Sequence,
        tokens: &[u32],
        class: u32,
        drafts: usize,
    ) -> bool {
        let start = sequence.tokens.len();
        if tokens.is_empty() || kv.grow(sequence, start + tokens.len()).is_err() {
            return false;
        }
        let state = kv.state(sequence, tokens.len(), drafts);
        let mut now = state.and_then(|state| state.from).map_or(1, |slot| self.states[slot as usize]);
        assert!(state.is_none() || now == *hashes(sequence).last().unwrap());
        for (i, token) in tokens.iter().enumerate() {
            sequence.tokens.push(*token);
            if class != 0 {
                sequence.classes.resize(start + i + 1, class);
            }
            now = hash(now, *token, class);
            if let Some(save) = state.and_then(|state| state.save)
                && save.rows == i + 1
            {
                self.states[save.slot as usize] = now;
            }
        }
        if let Some(state) = state {
            self.states[state.to as usize] = now;
        }
        let all = hashes(sequence);
        for (pages, memory) in sequence.pages.iter().zip(&mut self.pages) {
            for position in (start..start + tokens.len()).filter(|_| !pages.is_empty()) {
                memory[pages[position / PAGE] as usize][position % PAGE] = all[position + 1];
            }
        }
        kv.stepped(sequence);
        true
    }

    /// All that the next token sees is as it was written.
    fn check(&self, kv: &Kv, sequence: &Sequence) {
        let (all, len) = (hashes(sequence), sequence.tokens.len());
        for (kind, from) in [(ALL, 0), (WINDOW, (len + 1).saturating_sub(kv.reach.window))] {
            for position in (from..len).filter(|_| kv.reach.uses[kind]) {
                let page = sequence.pages[kind][position / PAGE] as usize;
                assert_eq!(self.pages[kind][page][position % PAGE], all[position + 1], "position {position}");
            }
        }
        if kv.reach.uses[STATE] && len > 0 {
            let base = sequence.base.filter(|base| base.position == len).map(|base| base.slot);
            let slot = base.or(sequence.state).unwrap();
            assert_eq!(self.states[slot as usize], all[len]);
        }
    }
}

/// Every unit is free or held by exactly those who say so.
fn check_pools(kv: &Kv, sequences: &[Sequence]) {
    for kind in [ALL, WINDOW] {
        let pages = sequences.iter().flat_map(|s| s.pages[kind].iter().copied());
        kv.pool(kind).check(pages.filter(|page| *page != GONE));
    }
    let bases = sequences.iter().filter_map(|s| s.base.map(|base| base.slot));
    let saving = sequences.iter().filter_map(|s| s.saving.map(|base| base.slot));
    kv.pool(STATE).check(bases.chain(saving).chain(sequences.iter().filter_map(|s| s.state)));
}

#[derive(Clone, Debug)]
enum Action {
    Begin { prompt: usize, len: usize, class: u32 },
    Feed { which: usize, len: usize, token: u32 },
    Draft { which: usize, drafts: usize, right: usize },
    Remember { which: usize, tail: bool },
    Offer { which: usize },
    Truncate { which: usize, part: usize },
    Fail { which: usize, gone: bool },
    Release { which: usize },
    Clear,
}

fn action() -> impl Strategy<Value = Action> {
    let which = 0..6usize;
    prop_oneof![
        4 => (0..4usize, 1..300usize, 0..3u32).prop_map(|(prompt, len, class)| Action::Begin { prompt, len, class }),
        4 => (which.clone(), 1..100usize, 0..3u32).prop_map(|(which, len, token)| Action::Feed { which, len, token }),
        2 => (which.clone(), 1..8usize, 0..8usize).prop_map(|(which, drafts, right)| Action::Draft { which, drafts, right }),
        4 => (which.clone(), any::<bool>()).prop_map(|(which, tail)| Action::Remember { which, tail }),
        1 => which.clone().prop_map(|which| Action::Offer { which }),
        1 => (which.clone(), 0..100usize).prop_map(|(which, part)| Action::Truncate { which, part }),
        1 => (which.clone(), any::<bool>()).prop_map(|(which, gone)| Action::Fail { which, gone }),
        2 => which.prop_map(|which| Action::Release { which }),
        1 => Just(Action::Clear),
    ]
}

/// Pages of both kinds, states and the window of a model.
fn shape() -> impl Strategy<Value = ([usize; UNITS], usize)> {
    prop_oneof![
        2 => Just(([24, 0, 0], usize::MAX)),
        1 => Just(([24, 16, 0], 70)),
        1 => Just(([24, 16, 0], 64)),
        1 => Just(([0, 24, 0], 100)),
        1 => Just(([24, 0, 8], usize::MAX)),
        1 => Just(([24, 16, 8], 90)),
        1 => Just(([0, 0, 8], usize::MAX)),
    ]
}

fn kv([all, windows, states]: [usize; UNITS], window: usize) -> Kv {
    Kv::new(Pools { pages: [all, windows], states }, window, 300)
}

/// One that keeps pages of the one kind.
fn plain(total: usize) -> Kv {
    kv([total, 0, 0], usize::MAX)
}

/// Prompts that agree for a while: prompt `n` differs from the others at every multiple of 50 + 40 n.
fn prompt(n: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| if i > 0 && i % (50 + 40 * n) == 0 { 10 + n as u32 } else { i as u32 % 5 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn units_hold_what_sequences_say_and_all_come_back(
        (totals, window) in shape(),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        let mut kv = kv(totals, window);
        kv.keep_prefixes(true);
        let mut memory = Memory::new(&kv);
        let mut sequences: Vec<Sequence> = Vec::new();
        let plain = totals[WINDOW..] == [0, 0];
        for action in actions {
            let n = sequences.len();
            match action {
                Action::Begin { prompt: p, len, class } => {
                    let tokens = prompt(p, len);
                    let expected = kv.cached(&tokens, class);
                    let (mut sequence, copies) = kv.begin(&tokens, len, class);
                    memory.copy(&copies);
                    // A part is left out when there is no page to copy it to.
                    let held = sequence.tokens.len();
                    prop_assert!(held == expected || !plain && held < expected || expected - held < PAGE);
                    memory.check(&kv, &sequence);
                    // As the engine does, in steps that end where states are put aside.
                    while sequence.tokens.len() < len {
                        let from = sequence.tokens.len();
                        let n = kv.step_limit(&sequence, len - from);
                        if !memory.feed(&mut kv, &mut sequence, &tokens[from..from + n], class, 0) {
                            break;
                        }
                        kv.remember(&mut sequence, false);
                    }
                    sequences.push(sequence);
                }
                Action::Feed { which, len, token } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let class = sequence.classes.last().copied().unwrap_or(0);
                    memory.feed(&mut kv, sequence, &vec![token; len], class, 0);
                }
                Action::Draft { which, drafts, right } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let class = sequence.classes.last().copied().unwrap_or(0);
                    let held = sequence.tokens.len();
                    let room = kv.missing(sequence, held + 1 + drafts) + kv.saved();
                    if room.fit_in(kv.available())
                        && memory.feed(&mut kv, sequence, &vec![1; 1 + drafts], class, drafts)
                    {
                        let kept = held + 1 + right.min(drafts);
                        kv.truncate(sequence, kept);
                        // What was no guess stays.
                        let least = if totals[STATE] == 0 || right >= drafts { kept } else { held + 1 };
                        prop_assert_eq!(sequence.tokens.len(), least);
                    }
                }
                Action::Remember { which, tail } if n > 0 => {
                    kv.remember(&mut sequences[which % n], tail);
                }
                Action::Offer { which } if n > 0 => kv.offer(&mut sequences[which % n]),
                Action::Truncate { which, part } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let len = sequence.tokens.len() * part / 100;
                    kv.truncate(sequence, len);
                    prop_assert!(sequence.tokens.len() <= len);
                    prop_assert!(!plain || len - sequence.tokens.len() < PAGE);
                }
                // A step that fails, or a panic in it, after which the sequence is only given back.
                Action::Fail { which, gone } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let held = sequence.tokens.len();
                    if kv.grow(sequence, held + 3).is_ok() {
                        if let Some(state) = kv.state(sequence, 3, 2) {
                            memory.states[state.to as usize] = 0;
                        }
                        if gone {
                            kv.release(std::mem::take(sequence));
                        } else {
                            kv.failed(sequence);
                            prop_assert!(totals[STATE] > 0 || sequence.tokens.len() == held);
                        }
                    }
                }
                Action::Release { which } if n > 0 => {
                    let sequence = sequences.swap_remove(which % n);
                    kv.release(sequence);
                }
                Action::Clear => {
                    kv.keep_prefixes(false);
                    kv.keep_prefixes(true);
                }
                _ => {}
            }
            check_pools(&kv, &sequences);
            sequences.iter().for_each(|s| memory.check(&kv, s));
        }
        for sequence in sequences {
            kv.release(sequence);
        }
        prop_assert_eq!(kv.available(), Amounts(totals));
        let mut all = Vec::new();
        while let Some(unit) = [ALL, WINDOW, STATE].into_iter().find_map(|kind| Some((kind, kv.take(kind)?))) {
            all.push(unit);
        }
        prop_assert_eq!(all.len(), totals.iter().sum::<usize>());
        prop_assert!(kv.cache.is_empty());
        all.into_iter().for_each(|(kind, unit)| kv.pools[kind].drop_hold(unit));
        prop_assert_eq!(kv.available(), Amounts(totals));
    }
}

fn out_of(needed: usize, free: usize, total: usize) -> OutOfUnits {
    let of = |n| Amounts([n, 0, 0]);
    OutOfUnits { needed: of(needed), free: of(free), total: of(total) }
}

#[test]
fn a_page_is_owned_once_and_too_few_is_an_error() {
    let mut kv = plain(4);
    let (mut a, mut b) = (Sequence::default(), Sequence::default());
    kv.grow(&mut a, PAGE + 1).unwrap();
    kv.grow(&mut b, PAGE).unwrap();
    let mut all = [a.pages()[ALL], b.pages()[ALL]].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 3);
    assert_eq!(kv.grow(&mut b, 3 * PAGE), Err(out_of(2, 1, 4)));
    a.tokens = vec![0; PAGE + 1];
    kv.truncate(&mut a, PAGE);
    assert_eq!((a.pages()[ALL].len(), kv.pool(ALL).free()), (1, 2));
    kv.release(a);
    kv.release(b);
    assert_eq!(kv.pool(ALL).free(), 4);
}

fn filled(kv: &mut Kv, tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::default();
    kv.grow(&mut sequence, tokens.len()).unwrap();
    sequence.tokens = tokens.to_vec();
    sequence
}

#[test]
fn full_pages_are_shared_and_the_last_one_is_copied() {
    let mut kv = plain(8);
    kv.keep_prefixes(true);
    let tokens = prompt(0, 2 * PAGE + 20);
    let mut first = filled(&mut kv, &tokens);
    kv.remember(&mut first, true);
    // The first one is still there and goes on writing in its last page.
    let mut longer = tokens.clone();
    longer.extend([7, 7, 7]);
    let (second, copies) = kv.begin(&longer, longer.len(), 0);
    assert_eq!(second.tokens.len(), 2 * PAGE + 20);
    assert_eq!(second.pages[ALL][..2], first.pages[ALL][..2]);
    let (from, to) = (first.pages[ALL][2], second.pages[ALL][2]);
    assert_eq!(copies, [PageCopy { kind: PageKind::All, from, to }]);
    // Another class of length shares nothing.
    assert_eq!(kv.cached(&longer, 1), 0);
    // Seven common tokens are not worth a copy.
    assert_eq!(kv.cached(&tokens[..7], 0), 0);
    assert_eq!(kv.cached(&tokens[..8], 0), 8);
    kv.release(first);
    kv.release(second);
    assert_eq!((kv.pool(ALL).free(), kv.pool(ALL).idle()), (5, 3));
}

#[test]
fn the_least_recently_used_leaf_goes_first_and_never_a_held_page() {
    let mut kv = plain(4);
    kv.keep_prefixes(true);
    let (a, b) = (vec![1; 2 * PAGE], vec![2; PAGE]);
    for tokens in [&a, &b] {
        let mut sequence = filled(&mut kv, tokens);
        kv.remember(&mut sequence, true);
        kv.release(sequence);
    }
    assert_eq!((kv.pool(ALL).free(), kv.pool(ALL).idle()), (1, 3));
    // `a` is used again, so `b` goes first, then the end of `a`.
    let (again, _) = kv.begin(&a, a.len(), 0);
    assert_eq!(again.tokens.len(), 2 * PAGE);
    kv.release(again);
    let (held, _) = kv.begin(&a[..PAGE + 1], PAGE + 1, 0);
    assert_eq!(held.tokens.len(), PAGE);
    let mut other = Sequence::default();
    kv.grow(&mut other, 2 * PAGE).unwrap();
    assert_eq!((kv.cached(&a, 0), kv.cached(&b, 0)), (2 * PAGE, 0));
    kv.grow(&mut other, 3 * PAGE).unwrap();
    assert_eq!(kv.cached(&a, 0), PAGE);
    let error = kv.grow(&mut other, 4 * PAGE).unwrap_err();
    assert_eq!(error, out_of(1, 0, 4));
    kv.release(held);
    kv.release(other);
}

#[test]
fn two_who_computed_the_same_keep_one_page() {
    let mut kv = plain(4);
    kv.keep_prefixes(true);
    let tokens = vec![3; PAGE];
    let (mut a, mut b) = (filled(&mut kv, &tokens), filled(&mut kv, &tokens));
    kv.remember(&mut a, false);
    kv.remember(&mut b, false);
    assert_eq!(a.pages, b.pages);
    assert_eq!(kv.pool(ALL).free(), 3);
    kv.release(a);
    kv.release(b);
    assert_eq!(kv.available()[ALL], 4);
}

/// Pages that hold nothing lead to states all the same, and do not go while something is behind them.
#[test]
fn states_alone_are_found_turn_after_turn() {
    let mut kv = kv([0, 0, 6], usize::MAX);
    kv.keep_prefixes(true);
    let mut memory = Memory::new(&kv);
    let tokens = prompt(0, 400);
    // The end of a prompt, that of its answer, and what is there of it then.
    for (prompt_len, end, found) in [(100, 148, 0), (230, 250, 148), (300, 330, 250), (331, 331, 330)] {
        let (mut sequence, copies) = kv.begin(&tokens[..prompt_len - 1], prompt_len, 0);
        assert_eq!((sequence.tokens.len(), copies.len()), (found, 0));
        while sequence.tokens.len() < end {
            let held = sequence.tokens.len();
            let n = kv.step_limit(&sequence, if held < prompt_len { prompt_len - held } else { 1 });
            assert!(memory.feed(&mut kv, &mut sequence, &tokens[held..held + n], 0, 0));
            kv.remember(&mut sequence, false);
        }
        kv.offer(&mut sequence);
        kv.release(sequence);
        check_pools(&kv, &[]);
    }
    // What a running sequence began with may be given up meanwhile: what it offers then is found nevertheless.
    let (mut sequence, _) = kv.begin(&tokens[..330], 331, 0);
    for end in [380, 390] {
        let held = sequence.tokens.len();
        assert!(memory.feed(&mut kv, &mut sequence, &tokens[held..end], 0, 0));
    }
    let held: Vec<u32> = std::iter::from_fn(|| kv.take(STATE)).collect();
    assert!(kv.cache.is_empty());
    held.into_iter().for_each(|slot| kv.pools[STATE].drop_hold(slot));
    kv.offer(&mut sequence);
    kv.release(sequence);
    assert_eq!(kv.cached(&tokens, 0), 390);
}
