use super::*;
use proptest::prelude::*;

/// Pages as a backend keeps them: at each position, everything that was before it.
struct Memory(Vec<[u64; PAGE]>);

impl Memory {
    fn hash(before: u64, token: u32, class: u32) -> u64 {
        (before ^ (u64::from(token) << 8) ^ u64::from(class) ^ 0x9e37)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
    }

    fn at(&self, sequence: &Sequence, position: usize) -> u64 {
        self.0[sequence.pages[position / PAGE] as usize][position % PAGE]
    }

    /// What a step does.
    fn feed(&mut self, kv: &mut Kv, sequence: &mut Sequence, tokens: &[u32], class: u32) -> bool {
        let start = sequence.tokens.len();
        if kv.grow(sequence, start + tokens.len()).is_err() {
            return false;
        }
        for (i, token) in tokens.iter().enumerate() {
            let before = (start + i).checked_sub(1).map_or(1, |p| self.at(sequence, p));
            let (page, at) = (sequence.pages[(start + i) / PAGE], (start + i) % PAGE);
            self.0[page as usize][at] = Memory::hash(before, *token, class);
            sequence.tokens.push(*token);
            if class != 0 {
                sequence.classes.push(class);
            }
        }
        true
    }

    fn check(&self, sequence: &Sequence) {
        let mut before = 1;
        for (i, token) in sequence.tokens.iter().enumerate() {
            let class = sequence.classes.get(i).copied().unwrap_or(0);
            before = Memory::hash(before, *token, class);
            assert_eq!(self.at(sequence, i), before, "position {i}");
        }
    }
}

/// Every page is free or held by exactly those who say so.
fn check_pool(kv: &Kv, sequences: &[Sequence]) {
    let mut holders = vec![0; kv.pool.total()];
    for page in sequences.iter().flat_map(|s| &s.pages) {
        holders[*page as usize] += 1;
    }
    let idle = (0..holders.len()).filter(|p| kv.pool.cached[*p] && holders[*p] == 0).count();
    assert_eq!(kv.pool.idle, idle);
    for (page, cached) in kv.pool.cached.iter().enumerate() {
        assert_eq!(kv.pool.holders[page], holders[page] + u32::from(*cached), "page {page}");
    }
    let mut free = kv.pool.free.clone();
    free.sort_unstable();
    let expected: Vec<u32> =
        (0..holders.len()).filter(|p| kv.pool.holders[*p] == 0).map(|p| p as u32).collect();
    assert_eq!(free, expected);
}

#[derive(Clone, Debug)]
enum Action {
    Begin { prompt: usize, len: usize, class: u32 },
    Feed { which: usize, len: usize, token: u32 },
    Remember { which: usize, tail: bool },
    Truncate { which: usize, part: usize },
    Release { which: usize },
    Clear,
}

fn action() -> impl Strategy<Value = Action> {
    let which = 0..6usize;
    prop_oneof![
        4 => (0..4usize, 1..300usize, 0..3u32).prop_map(|(prompt, len, class)| Action::Begin { prompt, len, class }),
        4 => (which.clone(), 1..100usize, 0..3u32).prop_map(|(which, len, token)| Action::Feed { which, len, token }),
        4 => (which.clone(), any::<bool>()).prop_map(|(which, tail)| Action::Remember { which, tail }),
        1 => (which.clone(), 0..100usize).prop_map(|(which, part)| Action::Truncate { which, part }),
        2 => which.prop_map(|which| Action::Release { which }),
        1 => Just(Action::Clear),
    ]
}

/// Prompts that agree for a while: prompt `n` differs from the others at every multiple of 50 + 40 n.
fn prompt(n: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| if i > 0 && i % (50 + 40 * n) == 0 { 10 + n as u32 } else { i as u32 % 5 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn pages_hold_what_sequences_say_and_all_come_back(actions in prop::collection::vec(action(), 1..60)) {
        let total = 24;
        let mut kv = Kv::new(total);
        kv.keep_prefixes(true);
        let mut memory = Memory(vec![[0; PAGE]; total]);
        let mut sequences: Vec<Sequence> = Vec::new();
        for action in actions {
            let n = sequences.len();
            match action {
                Action::Begin { prompt: p, len, class } => {
                    let tokens = prompt(p, len);
                    let expected = kv.cached(&tokens, class);
                    let (mut sequence, copy) = kv.begin(&tokens, class);
                    if let Some(PageCopy { from, to }) = copy {
                        memory.0[to as usize] = memory.0[from as usize];
                    }
                    // A part is left out when there is no page to copy it to.
                    prop_assert!(sequence.tokens.len() == expected || expected - sequence.tokens.len() < PAGE);
                    memory.check(&sequence);
                    let rest = tokens[sequence.tokens.len()..].to_vec();
                    memory.feed(&mut kv, &mut sequence, &rest, class);
                    sequences.push(sequence);
                }
                Action::Feed { which, len, token } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let class = sequence.classes.last().copied().unwrap_or(0);
                    memory.feed(&mut kv, sequence, &vec![token; len], class);
                }
                Action::Remember { which, tail } if n > 0 => {
                    kv.remember(&mut sequences[which % n], tail);
                }
                Action::Truncate { which, part } if n > 0 => {
                    let sequence = &mut sequences[which % n];
                    let len = sequence.tokens.len() * part / 100;
                    kv.truncate(sequence, len);
                    prop_assert!(sequence.tokens.len() <= len && len - sequence.tokens.len() < PAGE);
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
            check_pool(&kv, &sequences);
            sequences.iter().for_each(|s| memory.check(s));
        }
        for sequence in sequences {
            kv.release(sequence);
        }
        prop_assert_eq!(kv.available(), total);
        let mut all = Sequence::default();
        kv.grow(&mut all, total * PAGE).unwrap();
        prop_assert_eq!(kv.available(), 0);
        kv.release(all);
        prop_assert_eq!(kv.pool().free(), total);
    }
}

#[test]
fn a_page_is_owned_once_and_too_few_is_an_error() {
    let mut kv = Kv::new(4);
    let (mut a, mut b) = (Sequence::default(), Sequence::default());
    kv.grow(&mut a, PAGE + 1).unwrap();
    kv.grow(&mut b, PAGE).unwrap();
    let mut all = [a.pages(), b.pages()].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 3);
    assert_eq!(kv.grow(&mut b, 3 * PAGE), Err(OutOfPages { needed: 2, free: 1, total: 4 }));
    a.tokens = vec![0; PAGE + 1];
    kv.truncate(&mut a, PAGE);
    assert_eq!((a.pages().len(), kv.pool().free()), (1, 2));
    kv.release(a);
    kv.release(b);
    assert_eq!(kv.pool().free(), 4);
}

fn filled(kv: &mut Kv, tokens: &[u32]) -> Sequence {
    let mut sequence = Sequence::default();
    kv.grow(&mut sequence, tokens.len()).unwrap();
    sequence.tokens = tokens.to_vec();
    sequence
}

#[test]
fn full_pages_are_shared_and_the_last_one_is_copied() {
    let mut kv = Kv::new(8);
    kv.keep_prefixes(true);
    let tokens = prompt(0, 2 * PAGE + 20);
    let mut first = filled(&mut kv, &tokens);
    kv.remember(&mut first, true);
    // The first one is still there and goes on writing in its last page.
    let mut longer = tokens.clone();
    longer.extend([7, 7, 7]);
    let (second, copy) = kv.begin(&longer, 0);
    assert_eq!(second.tokens.len(), 2 * PAGE + 20);
    assert_eq!(second.pages[..2], first.pages[..2]);
    assert_eq!(copy, Some(PageCopy { from: first.pages[2], to: second.pages[2] }));
    // Another class of length shares nothing.
    assert_eq!(kv.cached(&longer, 1), 0);
    // Seven common tokens are not worth a copy.
    assert_eq!(kv.cached(&tokens[..7], 0), 0);
    assert_eq!(kv.cached(&tokens[..8], 0), 8);
    kv.release(first);
    kv.release(second);
    assert_eq!((kv.pool().free(), kv.pool().idle()), (5, 3));
}

#[test]
fn the_least_recently_used_leaf_goes_first_and_never_a_held_page() {
    let mut kv = Kv::new(4);
    kv.keep_prefixes(true);
    let (a, b) = (vec![1; 2 * PAGE], vec![2; PAGE]);
    for tokens in [&a, &b] {
        let mut sequence = filled(&mut kv, tokens);
        kv.remember(&mut sequence, true);
        kv.release(sequence);
    }
    assert_eq!((kv.pool().free(), kv.pool().idle()), (1, 3));
    // `a` is used again, so `b` goes first, then the end of `a`.
    let (again, _) = kv.begin(&a, 0);
    assert_eq!(again.tokens.len(), 2 * PAGE);
    kv.release(again);
    let (held, _) = kv.begin(&a[..PAGE + 1], 0);
    assert_eq!(held.tokens.len(), PAGE);
    let mut other = Sequence::default();
    kv.grow(&mut other, 2 * PAGE).unwrap();
    assert_eq!((kv.cached(&a, 0), kv.cached(&b, 0)), (2 * PAGE, 0));
    kv.grow(&mut other, 3 * PAGE).unwrap();
    assert_eq!(kv.cached(&a, 0), PAGE);
    let error = kv.grow(&mut other, 4 * PAGE).unwrap_err();
    assert_eq!(error, OutOfPages { needed: 1, free: 0, total: 4 });
    kv.release(held);
    kv.release(other);
}

#[test]
fn two_who_computed_the_same_keep_one_page() {
    let mut kv = Kv::new(4);
    kv.keep_prefixes(true);
    let tokens = vec![3; PAGE];
    let (mut a, mut b) = (filled(&mut kv, &tokens), filled(&mut kv, &tokens));
    kv.remember(&mut a, false);
    kv.remember(&mut b, false);
    assert_eq!(a.pages, b.pages);
    assert_eq!(kv.pool().free(), 3);
    kv.release(a);
    kv.release(b);
    assert_eq!(kv.available(), 4);
}
