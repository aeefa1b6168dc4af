//! The README's tables of families are those of the code.

use tessera_engine::decoder;
use tessera_weights::arch;

#[test]
fn the_readme_names_the_families_of_the_code() {
    let readme = include_str!("../../../README.md");
    let (runnable, known) = (decoder::families(), arch::known());
    let only: Vec<&str> = known.into_iter().filter(|name| !runnable.contains(name)).collect();
    for (row, mut names) in [("run", runnable), ("inspected, verified and converted only", only)] {
        names.sort_unstable();
        let line = format!("| {row} | {} |", names.join(", "));
        assert!(readme.lines().any(|l| l == line), "the README has no line\n{line}");
    }
}
