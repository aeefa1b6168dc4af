//! The self-test on an adapter that is right, and on backends that are not.

mod support;

use pollster::block_on;
use tessera_compute::backend::{Backend, Executor, LoadError};
use tessera_compute::batch::{PageKind, Pools};
use tessera_compute::program::{Mask, Op, Program};
use tessera_compute::reference::Reference;
use tessera_compute::weights::Weights;
use tessera_gpu::selftest::{Case, cases};
use tessera_gpu::{Config, GpuBackend};

#[test]
fn an_adapter_that_is_right_passes() {
    let Some(gpu) = support::device().map(|gpu| gpu.poisoned()) else { return };
    let plain = Config { halves: false, ..Config::PLAIN };
    let all = |_: &Case| true;
    // What is made otherwise there; forms of weights are read alike.
    let other = |case: &Case| {
        ["feed forward [640, 130]", "attend 513", "attend 1100"]
            .iter()
            .any(|name| case.name.starts_with(name))
    };
    let default = Config { halves: false, ..Config::default() };
    // What halves hold.
    let exact = |case: &Case| case.name.ends_with("Eighths");
    for (config, which) in
        [(default, &all as &dyn Fn(&Case) -> bool), (plain, &other), (Config::default(), &exact)]
    {
        let backend = GpuBackend::new(gpu.clone(), config);
        for case in cases().iter().filter(|case| which(case)) {
            assert_eq!(block_on(case.check(&backend, false)), Ok(()), "{}, {config:?}", case.name);
        }
    }
}

/// Matrices in windows, those whose columns lie together gathered for them.
#[test]
fn bindings_that_are_small_are_enough() {
    let Some(gpu) = support::device() else { return };
    let backend = GpuBackend::new(gpu.narrow(128 << 10), Config::default());
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name.starts_with("linear [1001")).collect();
    assert_eq!(cases.len(), 9);
    for case in cases {
        assert_eq!(block_on(case.check(&backend, false)), Ok(()), "{}", case.name);
    }
}

/// The reference with something wrong in the programs that it runs.
struct Wrong(fn(&mut Op));

impl Backend for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn page_len(&self, program: &Program) -> [usize; PageKind::COUNT] {
        Reference.page_len(program)
    }

    fn workspace_len(&self, program: &Program, rows: usize) -> usize {
        Reference.workspace_len(program, rows)
    }

    fn load(
        &self,
        mut program: Program,
        weights: &mut dyn Weights,
        pools: Pools,
    ) -> Result<Box<dyn Executor>, LoadError> {
        program.ops.iter_mut().for_each(self.0);
        Reference.load(program, weights, pools)
    }
}

#[test]
fn what_is_wrong_is_found() {
    let forgets_to_add: fn(&mut Op) = |op| {
        if let Op::Linear { accumulate, .. } = op {
            *accumulate = false;
        }
    };
    let sees_too_much: fn(&mut Op) = |op| {
        if let Op::Attend(a) = op
            && let Mask::Window(n) = &mut a.mask
        {
            *n += 1;
        }
    };
    let does_not_turn: fn(&mut Op) = |op| {
        if let Op::Attend(a) = op {
            a.rope = None;
        }
    };
    let leaves_the_bias_out: fn(&mut Op) = |op| {
        if let Op::Norm { bias, .. } = op {
            *bias = None;
        }
    };
    for (wrong, begins) in [
        (forgets_to_add, ["linear", "feed"]),
        (sees_too_much, ["attend"; 2]),
        (does_not_turn, ["attend"; 2]),
        (leaves_the_bias_out, ["norm"; 2]),
    ] {
        let found: Vec<String> = cases()
            .iter()
            .filter(|case| block_on(case.check(&Wrong(wrong), false)).is_err())
            .map(|case| case.name.clone())
            .collect();
        assert!(
            !found.is_empty() && found.iter().all(|name| begins.iter().any(|b| name.starts_with(b))),
            "{begins:?}: {found:?}"
        );
    }
    assert!(cases().len() > 90);
}
