//! `tessera convert --lora` from outside; that the merge is right is shown in the weights crate's `tests/lora.rs`.

mod common;

use common::{Home, data};

fn adapter(name: &str) -> String {
    data().join("lora").join(name).to_str().unwrap().to_owned()
}

#[test]
fn adapters_are_merged_in_their_order() {
    let home = Home::new();
    home.checkpoint("llama-gqa-f32", true);
    let several = [
        adapter("several/adapter"),
        format!("{}=0.5", adapter("several/adapter1")),
        format!("{}=-1", adapter("several/adapter2")),
    ];
    let lora: Vec<&str> = several.iter().flat_map(|a| ["--lora", a]).collect();
    let args = ["convert", "hf", "out", "--quant", "q0f32", "--whole-f32", "--json"];
    let summary = home.tessera(&[&args[..], &lora].concat()).ok().json();
    let notes = summary["notes"].as_array().unwrap();
    let said = |words: &str| notes.iter().any(|note| note.as_str().unwrap().contains(words));
    assert!(said("several/adapter: merged into 4 tensors"), "{notes:?}");
    assert!(said("several/adapter1: merged into 4 tensors times 0.5"), "{notes:?}");
    assert!(said("several/adapter2: merged into 2 tensors times -1"), "{notes:?}");
    home.tessera(&["verify", "out"]).ok();
    // Through a folder of the same numbers it is the same.
    home.tessera(&["convert", "hf", "plain", "--quant", "q0f32", "--whole-f32"]).ok();
    let args = ["convert", "plain", "indirect", "--quant", "q0f32", "--whole-f32"];
    home.tessera(&[&args[..], &lora].concat()).ok();
    let shard = |folder: &str| std::fs::read(home.path(folder).join("params_shard_0.bin")).unwrap();
    assert!(shard("out") == shard("indirect") && shard("out") != shard("plain"));
}

#[test]
fn a_quantised_folder_keeps_its_scheme_and_says_what_that_costs() {
    let home = Home::new();
    home.checkpoint("llama-gqa-f32", true);
    home.tessera(&["convert", "hf", "mlc", "--quant", "q4f16_1"]).ok();
    let run = home.tessera(&["convert", "mlc", "out", "--lora", &adapter("plain/adapter")]).ok();
    assert!(run.stderr.contains("quantising twice") && run.stdout.contains("q4f16_1"), "{}", run.stderr);
    home.tessera(&["verify", "out"]).ok();
    let shard = |folder: &str| std::fs::read(home.path(folder).join("params_shard_0.bin")).unwrap();
    assert!(shard("out").len() == shard("mlc").len() && shard("out") != shard("mlc"));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let home = Home::new();
    home.checkpoint("llama-gqa-f32", true);
    let convert = |adapter: &str, more: &[&str]| {
        let args = ["convert", "hf", "out", "--quant", "q4f16_1", "--lora", adapter];
        home.tessera(&[&args[..], more].concat())
    };
    convert(&adapter("conv1d/adapter"), &[]).fails(&["has no place", "c_attn"]);
    convert(&adapter("fused/adapter"), &[]).fails(&["has no place", "gate_up_proj"]);
    convert(&adapter("plain"), &[]).fails(&["adapter_config.json"]);
    convert(&adapter("patterns/adapter=0.5"), &[]).fails(&["trained whole"]);
    convert(&adapter("plain/adapter"), &["--to", "safetensors"]).fails(&["--lora is about an MLC folder"]);
    assert_eq!(convert("x=y=z", &[]).code, Some(2));
    assert!(!home.path("out").exists());
}
