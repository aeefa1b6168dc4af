//! The self-test on an adapter that is right, and on backends that are not.

mod support;

use tessera_gpu::{Config, selftest};

#[test]
fn an_adapter_that_is_right_passes() {
    let Some(gpu) = support::device() else { return };
    for halves in [false] {
        let config = Config { halves, ..Config::default() };
        let wrong: Vec<_> = selftest::run(&gpu, config).into_iter().filter(|f| f.wrong.is_some()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
