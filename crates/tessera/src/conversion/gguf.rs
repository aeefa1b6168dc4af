//! An MLC folder as a GGUF file.

use super::Summary;
use crate::checkpoint::Model;
use crate::interrupt;
use crate::output::{Output, hinted};
use crate::progress::Bar;
use std::ops::ControlFlow;
use std::path::Path;
use tessera_weights::export::{GgufExportError, GgufInputs, export_gguf};
use tessera_weights::quantize::decode;

/// Notes of one kind that are shown; there can be one for each tensor.
const SHOWN: usize = 8;

/// Writes the file `dst`, with weights as the folder has them. `allow_inexact` rounds scales that no 16-bit float is.
pub fn to_gguf(
    model: &Model,
    quant: Option<&str>,
    allow_inexact: bool,
    dst: &Path,
    out: &Output,
) -> anyhow::Result<Summary> {
    let Model::Mlc(mlc) = model else {
        return Err(hinted(
            "--to gguf writes what an MLC folder holds; the source is a checkpoint",
            "convert it to an MLC folder first, with the quantisation that the file is to have",
        ));
    };
    let found = mlc.model()?;
    if let Some(quant) = quant.filter(|quant| *quant != found.scheme.name) {
        return Err(hinted(
            format!("--to gguf keeps the folder's weights, which are {}, not {quant}", found.scheme.name),
            "leave --quant out, or convert the folder to that quantisation first",
        ));
    }
    let root = mlc.folder.path().display();
    let (Some(chat), Some(config)) = (&mlc.description.chat, &mlc.description.config) else {
        return Err(hinted(
            format!("{root}: without mlc-chat-config.json the file cannot say what model it is"),
            "fetch mlc-chat-config.json from where the folder came from",
        ));
    };
    let mut summary = Summary {
        source_kind: "MLC".to_owned(),
        format: "gguf",
        quantization: found.scheme.name.to_owned(),
        files: 1,
        ..Summary::default()
    };
    let name = mlc.folder.path().file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
    let files = mlc.files()?;
    let inputs = GgufInputs { model: found, config, chat, files: &files, name: &name, allow_inexact };
    let bar = Bar::new(out, 0);
    interrupt::watch();
    let report = export_gguf(&mlc.folder, &inputs, dst, &decode, &mut |done, total| {
        bar.show(done, total, "");
        if interrupt::seen() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.end();
    let report = report.map_err(|error| match error {
        GgufExportError::Inexact { .. } => {
            hinted(error.to_string(), "--allow-inexact rounds these scales, and a note says which")
        }
        other => other.into(),
    })?;
    let types: Vec<String> = report.types.iter().map(|(ty, n)| format!("{n} {ty}")).collect();
    summary.quantization = types.join(", ");
    (summary.tensors, summary.bytes) = (report.tensors, report.bytes);
    (summary.quantised, summary.exact) = (report.quantised, report.exact);
    if report.quantised > 0 {
        let what = format!(
            "{} of {} quantised tensors have exactly the folder's values",
            report.exact, report.quantised
        );
        summary.note(out, what);
    }
    let mut notes = report.notes.into_iter();
    for note in notes.by_ref().take(SHOWN) {
        summary.note(out, note);
    }
    if notes.len() > 0 {
        out.note(format_args!("note: and {} more like these (--json has all)", notes.len()));
        summary.notes.extend(notes);
    }
    Ok(summary)
}
