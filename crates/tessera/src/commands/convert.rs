//! `tessera convert`: any kind of model to an MLC folder, or an MLC folder to safetensors or to GGUF.

use crate::checkpoint;
use crate::cli::{ConvertArgs, Format, Level, ManifestName as Manifest};
use crate::conversion::{self, Optimize, Settings};
use crate::models;
use crate::output::{Bytes, Output, hinted};
use crate::progress::use_threads;
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;
use tessera_weights::convert::{ManifestName, SHARD_CAP};

/// Converts, or prints the manifest that would be written.
pub fn run(args: ConvertArgs, out: &Output) -> anyhow::Result<ExitCode> {
    use_threads(args.threads, out)?;
    let settings = Settings {
        quant: args.quant.clone(),
        shard_size: args.shard_size,
        manifest: match args.manifest {
            Manifest::NdarrayCache => ManifestName::NdarrayCache,
            Manifest::TensorCache => ManifestName::TensorCache,
        },
        conv_template: args.conv_template.clone(),
        whole_f32: args.whole_f32,
        optimize: match args.optimize {
            Level::None => Optimize::None,
            Level::Scales => Optimize::Scales,
            Level::Calibrated => Optimize::Calibrated,
        },
        calibration: args.calibration.clone(),
        adapters: args.lora.clone(),
    };
    let src = match args.src.to_str() {
        Some(name) if !args.src.exists() => models::locate(name)?,
        _ => args.src.clone(),
    };
    refuse_unused(&args)?;
    let model = checkpoint::open(&src, args.dry_run)?;
    if args.dry_run {
        if args.to != Format::Mlc {
            return Err(hinted(
                "--dry-run prints a manifest, which only an MLC folder has",
                "leave --to out",
            ));
        }
        out.line(conversion::dry_run(&model, &settings)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // clap asks for DST unless it is a dry run.
    let dst = args.dst.as_deref().ok_or_else(|| anyhow::anyhow!("DST is missing"))?;
    let start = Instant::now();
    let summary = match args.to {
        Format::Mlc => conversion::to_mlc(&model, &settings, dst, out)?,
        Format::Safetensors => conversion::to_safetensors(&model, args.quant.as_deref(), dst, out)?,
        Format::Gguf => conversion::to_gguf(&model, args.quant.as_deref(), args.allow_inexact, dst, out)?,
    };
    let seconds = start.elapsed().as_secs_f64();
    let mb_per_s = summary.bytes as f64 / 1e6 / seconds.max(1e-9);
    if out.json {
        let mut value = serde_json::to_value(&summary)?;
        value["path"] = json!(dst.display().to_string());
        value["seconds"] = json!(seconds);
        value["mb_per_s"] = json!(mb_per_s);
        out.print_json(&value)?;
    } else {
        out.line(format_args!(
            "{}: {} tensors in {} file(s), {}, {} ({seconds:.1} s, {mb_per_s:.0} MB/s)",
            dst.display(),
            summary.tensors,
            summary.files,
            Bytes(summary.bytes),
            summary.quantization,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Options that would do nothing for what is written.
fn refuse_unused(args: &ConvertArgs) -> anyhow::Result<()> {
    let of_folders = [
        ("--shard-size", args.shard_size != SHARD_CAP),
        ("--manifest", args.manifest != Manifest::TensorCache),
        ("--whole-f32", args.whole_f32),
        ("--optimize", args.optimize != Level::None),
        ("--calibration", args.calibration.is_some()),
        ("--lora", !args.lora.is_empty()),
        ("--conv-template", args.conv_template.is_some()),
    ];
    let given = of_folders.iter().find(|(_, given)| *given && args.to != Format::Mlc);
    if let Some((flag, _)) = given {
        return Err(hinted(
            format!("{flag} is about an MLC folder, which is not what --to writes"),
            "write an MLC folder with it first, and convert that",
        ));
    }
    if args.allow_inexact && args.to != Format::Gguf {
        return Err(hinted("--allow-inexact is about --to gguf", "leave it out"));
    }
    Ok(())
}
