//! What is kept of a sequence: pages behind a window that are gone, and states that are put somewhere on the way.

use super::programs::{Kind, SHAPE, decoder, load, pools};
use super::random::{Random, bits};
use tessera_compute::backend::{Backend, Executor, StepError};
use tessera_compute::batch::{Batch, BatchError, GONE, Output, PAGE, PageKind, Save, Span, StateUse, Want};
use tessera_compute::cpu::{Cpu, KvType};
use tessera_compute::program::{Mask, Op, Program};
use tessera_compute::reference::Reference;
use tessera_compute::step::Step;
use tessera_compute::weights::InMemory;
use tessera_weights::dtype::DType;

const WINDOW: usize = 20;

/// Its second layer sees a window.
fn windowed() -> (Program, InMemory) {
    let (mut program, weights) = decoder(Kind::Dense(DType::F32), &SHAPE);
    let attends = program.ops.iter_mut().filter_map(|op| match op {
        Op::Attend(a) => Some(a),
        _ => None,
    });
    attends.filter(|a| a.layer == 1).for_each(|a| a.mask = Mask::Window(WINDOW));
    program.check().unwrap();
    assert_eq!(program.page_kinds(), [PageKind::All, PageKind::Window]);
    (program, weights)
}

fn backends() -> [Box<dyn Backend>; 3] {
    let cpu = |kv| Box::new(Cpu { threads: 2, kv, ..Cpu::default() });
    [Box::new(Reference), cpu(KvType::F16), cpu(KvType::Q8)]
}

fn tokens(n: usize) -> Vec<u32> {
    let mut r = Random(5);
    (0..n).map(|_| r.bits() % 101).collect()
}

/// The logits of the last of these tokens.
fn step(
    e: &mut dyn Executor,
    tokens: &[u32],
    position: usize,
    pages: [&[u32]; 2],
    state: StateUse,
) -> Result<Vec<u32>, StepError> {
    let span = Span {
        start: 0,
        len: tokens.len(),
        position,
        rope_len: 70,
        call: Some(0),
        pages,
        state: Some(state),
    };
    let picked = [tokens.len() as u32 - 1];
    let mut out = Output::default();
    let batch = Batch { tokens, spans: &[span], picked: &picked, want: Want::Logits };
    e.step(Step::of(&batch), &mut out)?;
    Ok(bits(&out.logits))
}

const fn state(from: Option<u32>, to: u32) -> StateUse {
    StateUse { from, to, save: None }
}

#[test]
fn pages_behind_a_window_are_not_looked_at_and_others_must_be_there() {
    let tokens = tokens(2 * PAGE + 30);
    let (before, rest) = tokens.split_at(PAGE + 40);
    for backend in backends() {
        let run = |pages: [&[u32]; 2]| {
            let mut e = load(&*backend, windowed(), pools(4));
            step(&mut *e, before, 0, [&[2, 0]; 2], state(None, 0)).unwrap();
            step(&mut *e, rest, before.len(), pages, state(Some(0), 0))
        };
        let all: &[u32] = &[2, 0, 3];
        // The first row sees from PAGE + 21 on.
        let expected = run([all; 2]).unwrap();
        assert_eq!(run([all, &[GONE, 0, 3]]).unwrap(), expected, "{}", backend.name());
        // The page of another sequence.
        assert_eq!(run([all, &[1, 0, 3]]).unwrap(), expected, "{}", backend.name());
        assert!(run([all, &[2, GONE, 3]]).is_err());
        assert!(run([all, &[GONE, 0, GONE]]).is_err());
        assert!(run([&[GONE, 0, 3], all]).is_err());
        assert!(run([all, &[4, 0, 3]]).is_err());
    }
}

#[test]
fn kinds_of_pages_do_not_share_memory() {
    let (tokens, (windowed, weights)) = (tokens(PAGE + 9), windowed());
    for backend in backends() {
        let [all, window] = backend.page_len(&windowed);
        let plain = backend.page_len(&decoder(Kind::Dense(DType::F32), &SHAPE).0);
        assert_eq!(plain, [all + window, 0]);
        let mut few = pools(2);
        few.pages = [3, 2];
        let mut e = load(&*backend, (windowed.clone(), weights.clone()), few);
        assert_eq!(e.kv_len(), 3 * all + 2 * window + 2 * 4 * windowed.state_len());
        let expected = step(&mut *e, &tokens, 0, [&[0, 1], &[1, 0]], state(None, 0)).unwrap();
        // The same in other pages, and copied on the way.
        let mut e = load(&*backend, (windowed.clone(), weights.clone()), few);
        let (first, last) = tokens.split_at(PAGE - 1);
        step(&mut *e, first, 0, [&[1], &[0]], state(None, 0)).unwrap();
        e.copy_page(PageKind::All, 1, 2);
        e.copy_page(PageKind::Window, 0, 1);
        let again = step(&mut *e, last, first.len(), [&[2, 0], &[1, 0]], state(Some(0), 1)).unwrap();
        assert_eq!(again, expected, "{}", backend.name());
    }
}

#[test]
fn a_state_that_was_put_aside_is_the_one_at_that_row() {
    let tokens = tokens(PAGE + 30);
    for backend in backends() {
        let load = || {
            let mut pools = pools(4);
            pools.states = 4;
            load(&*backend, decoder(Kind::Dense(DType::F32), &SHAPE), pools)
        };
        let pages = [&[0, 1][..]; 2];
        let expected = step(&mut *load(), &tokens, 0, pages, state(None, 0)).unwrap();
        for rows in [1, 2, PAGE, tokens.len() - 1] {
            let mut e = load();
            let save = Some(Save { rows, slot: 1 });
            let kept = step(&mut *e, &tokens, 0, pages, StateUse { save, ..state(None, 0) }).unwrap();
            assert_eq!(kept, expected);
            // Twice, since what was put aside stays.
            for to in [2, 3] {
                let rest = step(&mut *e, &tokens[rows..], rows, pages, state(Some(1), to)).unwrap();
                assert_eq!(rest, expected, "{} {rows}", backend.name());
            }
        }
        let mut e = load();
        for (rows, slot) in [(0, 1), (tokens.len() + 1, 1), (1, 0), (1, 4)] {
            let save = Some(Save { rows, slot });
            let refused = step(&mut *e, &tokens, 0, pages, StateUse { save, ..state(None, 0) }).unwrap_err();
            assert!(matches!(refused, StepError::Batch(BatchError::BadState { .. })), "{refused}");
        }
    }
}
