//! `tessera embed`: the vectors of texts, and how alike they are.

use crate::cli::EmbedArgs;
use crate::ledger::Ledger;
use crate::load::{Wanted, load_beside};
use crate::output::{Output, hinted};
use crate::stdin;
use serde::Serialize;
use std::process::ExitCode;
use tessera_engine::embed::embed;
use tessera_engine::generate::CHUNK;
use tessera_engine::tokenizer::Tokenizer;
use tessera_weights::embedding::Embedding;

/// Texts in one step.
const TOGETHER: usize = 8;

#[derive(Serialize)]
struct Embedded {
    #[serde(flatten)]
    embedding: Embedding,
    texts: Vec<Text>,
    /// Of each text to each: the cosine of the angle between their vectors, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    similarities: Option<Vec<Vec<f32>>>,
}

#[derive(Serialize)]
struct Text {
    text: String,
    tokens: usize,
    vector: Vec<f32>,
}

/// Runs the command.
pub fn run(args: EmbedArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let texts = match args.texts.is_empty() {
        false => args.texts,
        true => stdin::text()?.lines().map(str::to_owned).collect(),
    };
    if texts.is_empty() {
        return Err(hinted("there is no text", "give texts as arguments, or one a line on stdin"));
    }
    let ledger = Ledger::new(1, args.compute.memory);
    let wanted = Wanted { sequences: TOGETHER, fewer: true, rows: CHUNK, ledger: &ledger };
    let mut loaded = load_beside(&args.model, &args.compute, &wanted, out)?;
    let tokenizer = Tokenizer::from_folder(loaded.files.folder.path())?;
    let ids = texts.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<Vec<_>, _>>()?;
    let vectors = embed(&mut loaded.model, &ids, TOGETHER)?;
    let embedding = loaded.model.embedding;
    if loaded.files.embeddings.get(loaded.files.semantics).is_none() {
        out.note(format_args!("note: the folder is no embedding model's; the vectors are by {embedding}"));
    }
    let all = || vectors.iter().map(|a| vectors.iter().map(|b| cosine(a, b)).collect()).collect();
    let similarities: Option<Vec<Vec<f32>>> = args.similarities.then(all);
    if out.json {
        let texts = texts.into_iter().zip(&ids).zip(vectors);
        let texts = texts.map(|((text, ids), vector)| Text { text, tokens: ids.len(), vector }).collect();
        out.print_json(&Embedded { embedding, texts, similarities })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(similarities) = &similarities {
        for (row, text) in similarities.iter().zip(&texts) {
            let row: Vec<String> = row.iter().map(|x| format!("{x:6.3}")).collect();
            out.line(format_args!("{}  {text}", row.join(" ")))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for vector in &vectors {
        let values: Vec<String> = vector.iter().map(f32::to_string).collect();
        out.line(values.join(" "))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()) as f32
}
