//! An MLC folder as a Hugging Face folder.

use super::Summary;
use crate::checkpoint::Model;
use crate::interrupt;
use crate::output::{Output, hinted};
use crate::progress::Bar;
use std::ops::ControlFlow;
use std::path::Path;
use tessera_weights::convert::Staging;
use tessera_weights::export::{ExportOptions, export_safetensors, hf_config, plan_export};
use tessera_weights::quantize::decode;
use tessera_weights::scheme::Scheme;

/// Writes safetensors, `config.json` and the tokenizer's files. `quant` may name a plain type, q0f16,
/// q0bf16 or q0f32; without it the folder's own is written.
pub fn to_safetensors(
    model: &Model,
    quant: Option<&str>,
    dst: &Path,
    out: &Output,
) -> anyhow::Result<Summary> {
    let Model::Mlc(mlc) = model else {
        return Err(hinted(
            "--to safetensors writes what an MLC folder holds; the source is a checkpoint already",
            "give an MLC folder",
        ));
    };
    let scheme = quant.map(Scheme::find).transpose()?;
    if let Some(scheme) = scheme.filter(|s| s.group.is_some()) {
        return Err(hinted(
            format!("safetensors hold plain numbers, not {}", scheme.name),
            "leave --quant out, or say q0f16, q0bf16 or q0f32",
        ));
    }
    let Some(chat) = mlc.description.chat.as_ref().filter(|c| !c.model_config.is_empty()) else {
        return Err(hinted(
            format!(
                "{}: without mlc-chat-config.json no config.json can be written",
                mlc.folder.path().display()
            ),
            "fetch mlc-chat-config.json from where the folder came from",
        ));
    };
    let found = mlc.model()?;
    let dtype = scheme.unwrap_or(found.scheme).dtype;
    let plan = plan_export(&found.model_type, &found.params, found.scheme)?;
    let name = format!(
        "q0{}",
        if dtype.name() == "bfloat16" {
            "bf16"
        } else if dtype.name() == "float16" {
            "f16"
        } else {
            "f32"
        }
    );
    let mut summary = Summary {
        source_kind: "MLC".to_owned(),
        format: "safetensors",
        quantization: name,
        tensors: plan.len(),
        ..Summary::default()
    };
    if found.scheme.group.is_some() {
        summary.note(
            out,
            format!("the source is quantised ({}); the checkpoint has those values", found.scheme.name),
        );
    }
    let staging = Staging::beside(dst)?;
    summary.removed(staging.removed(), out);
    let bar = Bar::new(out, 0);
    interrupt::watch();
    let written = export_safetensors(
        &mlc.folder,
        &plan,
        &ExportOptions::new(dtype, found.scheme.group),
        staging.path(),
        &decode,
        &mut |done, total| {
            bar.show(done, total, "");
            if interrupt::seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    bar.end();
    let written = written?;
    summary.files = written.iter().filter(|p| p.extension().is_some_and(|e| e == "safetensors")).count();
    summary.bytes = written.iter().filter_map(|p| std::fs::metadata(p).ok()).map(|m| m.len()).sum();
    let config = hf_config(&found.model_type, chat, &found.sizes, dtype);
    staging.write("config.json", format!("{config:#}\n").as_bytes())?;
    for (name, bytes) in &mlc.files()? {
        staging.write(name, bytes)?;
    }
    staging.publish(dst)?;
    Ok(summary)
}
