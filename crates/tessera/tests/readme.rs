//! The README's table of families is that of the code.

use tessera_weights::arch;

#[test]
fn the_readme_names_the_families_of_the_code() {
    let mut names = arch::known();
    names.sort_unstable();
    let line = format!("| run | {} |", names.join(", "));
    let readme = include_str!("../../../README.md");
    assert!(readme.lines().any(|l| l == line), "the README has no line\n{line}");
}
