//! Texts to vectors, without a server: a few at once, each as if it were alone.

use crate::generate::CHUNK;
use crate::kv::Sequence;
use crate::model::{Feed, Model, StepError};
use crate::pool::{Broken, Pool, normalize};
use tessera_compute::batch::Want;

/// Why a text has no vector.
#[derive(Debug, thiserror::Error)]
#[error("text {}: {what}", text + 1)]
pub struct EmbedError {
    /// Which text, from 0.
    pub text: usize,
    /// What is wrong.
    #[source]
    pub what: EmbedFault,
}

/// What is wrong with a text, or with the model.
#[derive(Debug, thiserror::Error)]
pub enum EmbedFault {
    /// Nothing to embed.
    #[error("it has no tokens")]
    Empty,
    /// The step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A number that is not finite.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// All zeros, where the length was to be made 1.
    #[error("its vector has no direction")]
    NoDirection,
}

/// The vectors of `texts` (token ids) as the model's folder says, at most `together` in one step.
///
/// # Errors
/// The first text that has none: empty, longer than the context, or with numbers that are not finite.
pub fn embed(model: &mut Model, texts: &[Vec<u32>], together: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
    let mut out = Vec::with_capacity(texts.len());
    while out.len() < texts.len() {
        let begin = out.len();
        let mut rows = 0;
        let fits = |text: &&Vec<u32>| {
            rows += text.len();
            rows <= CHUNK
        };
        let n = texts[begin..].iter().take(together).take_while(fits).count().max(1);
        out.extend(group(model, &texts[begin..begin + n], begin)?);
    }
    Ok(out)
}

/// The vectors of a few texts; `begin` is the first one's number.
fn group(model: &mut Model, texts: &[Vec<u32>], begin: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
    let failed = |(i, what): (usize, EmbedFault)| EmbedError { text: begin + i, what };
    let context = model.context();
    for (i, text) in texts.iter().enumerate() {
        match text.len() {
            0 => return Err(failed((i, EmbedFault::Empty))),
            asked if asked > context => {
                return Err(failed((i, StepError::Context { asked, context }.into())));
            }
            _ => {}
        }
    }
    let mut sequences: Vec<Sequence> = texts.iter().map(|_| Sequence::default()).collect();
    let vectors = pooled(model, texts, &mut sequences);
    sequences.into_iter().for_each(|sequence| model.release(sequence));
    let mut vectors = vectors.map_err(failed)?;
    if model.embedding.normalize
        && let Some(i) = vectors.iter_mut().position(|vector| !normalize(vector))
    {
        return Err(failed((i, EmbedFault::NoDirection)));
    }
    Ok(vectors)
}

/// Feeds the texts and pools their hidden states; an error has the text's place. An encoder's are fed at once, those of a
/// decoder are more than one chunk only where one is alone.
fn pooled(
    model: &mut Model,
    texts: &[Vec<u32>],
    sequences: &mut [Sequence],
) -> Result<Vec<Vec<f32>>, (usize, EmbedFault)> {
    let mut pools: Vec<Pool> = texts.iter().map(|t| Pool::new(model.embedding.pooling, t.len())).collect();
    let mut vectors = vec![Vec::new(); texts.len()];
    let chunk = if model.is_encoder() { usize::MAX } else { CHUNK };
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    let mut from = 0;
    while from < longest {
        let end = longest.min(from.saturating_add(chunk));
        let (mut feeds, mut fed) = (Vec::new(), Vec::new());
        for (i, (text, sequence)) in texts.iter().zip(sequences.iter_mut()).enumerate() {
            let tokens = &text[from.min(text.len())..end.min(text.len())];
            if !tokens.is_empty() {
                let pick = pools[i].pick(from, tokens.len());
                feeds.push(Feed { sequence, tokens, call: 0..text.len(), drafts: 0, pick });
                fed.push((i, pick.rows(from..from + tokens.len())));
            }
        }
        let hidden = &model.forward(&mut feeds, Want::Hidden).map_err(|e| (0, e.into()))?.hidden;
        let count: usize = fed.iter().map(|(_, rows)| rows.len()).sum();
        let mut rows = hidden.chunks_exact((hidden.len() / count.max(1)).max(1));
        for (i, positions) in fed {
            for (position, row) in positions.zip(rows.by_ref()) {
                if let Some(vector) = pools[i].take(position, row).map_err(|e| (i, e.into()))? {
                    vectors[i] = vector;
                }
            }
        }
        from = end;
    }
    Ok(vectors)
}
