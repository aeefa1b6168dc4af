//! `tessera bench --server`: many requests at once against a running server, timed as a client sees them.

use super::spread::Spread;
use crate::cli::BenchArgs;
use crate::client::Client;
use crate::interrupt;
use crate::output::Output;
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What one request took, in seconds.
struct Sample {
    first: f64,
    total: f64,
    /// Between the first and the last chunk.
    decode: f64,
    /// Between chunks: what a reader sees as stuttering.
    gaps: Vec<f64>,
    usage: Usage,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    prompt: u64,
    cached: u64,
    completion: u64,
}

/// Everything that a request is made from.
struct Load {
    client: Client,
    model: String,
    /// Another for each run: words that the server has seen would come from its cache.
    run: u64,
    shared_words: usize,
    own_words: usize,
    gen_tokens: u32,
    ignore_eos: bool,
    schema: Option<Value>,
}

/// Runs the command.
pub fn run(args: &BenchArgs, address: &str, out: &Output) -> anyhow::Result<ExitCode> {
    let client = Client::new(address)?;
    let model = client.model(args.model.as_deref())?;
    anyhow::ensure!(args.gen_tokens > 0, "nothing to measure: --gen-tokens is 0");
    anyhow::ensure!(
        args.shared_prefix <= args.prompt_tokens,
        "--shared-prefix {} is more than --prompt-tokens {}",
        args.shared_prefix,
        args.prompt_tokens
    );
    let schema = args.schema.as_deref().map(read_schema).transpose()?;
    let requests = args.requests.unwrap_or(args.concurrency.saturating_mul(4)) as usize;
    interrupt::watch();
    let ignore_eos = schema.is_none();
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let mut load = Load {
        client,
        model,
        run,
        shared_words: 0,
        own_words: 0,
        gen_tokens: args.gen_tokens,
        ignore_eos,
        schema,
    };
    calibrate(&mut load, args, out)?;

    let progress = out.progress(requests as u64, "requests");
    let next = AtomicUsize::new(0);
    let samples = Mutex::new(Vec::new());
    let failures = Mutex::new(BTreeMap::<String, usize>::new());
    let begun = Instant::now();
    let ask = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= requests || interrupt::seen() {
                return;
            }
            match load.ask(index) {
                Ok(Some(sample)) => lock(&samples).push(sample),
                Ok(None) => return, // Ctrl-C
                Err(error) => *lock(&failures).entry(format!("{error:#}")).or_default() += 1,
            }
            progress.inc(1);
        }
    };
    let clients = (args.concurrency as usize).min(requests);
    let started = std::thread::scope(|scope| {
        for started in 0..clients {
            let spawned = std::thread::Builder::new().spawn_scoped(scope, ask);
            if let Err(error) = spawned {
                // What fewer clients measure is not what was asked for.
                next.store(requests, Ordering::Relaxed);
                return Err(anyhow::anyhow!(
                    "{clients} clients need a thread each, there are {started}: {error}"
                ));
            }
        }
        Ok(())
    });
    started?;
    let seconds = begun.elapsed().as_secs_f64();
    progress.finish_and_clear();
    let samples = samples.into_inner().unwrap_or_else(|p| p.into_inner());
    let failures = failures.into_inner().unwrap_or_else(|p| p.into_inner());
    report(args, &load, requests, seconds, &samples, &failures, out)?;
    Ok(match (failures.is_empty(), interrupt::seen()) {
        (_, true) => ExitCode::from(130),
        (true, _) => ExitCode::SUCCESS,
        (false, _) => ExitCode::from(1),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked has still left whole values.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Longest schema that is read, that of the largest body.
const MAX_SCHEMA: u64 = 4 << 20;

fn read_schema(path: &std::path::Path) -> anyhow::Result<Value> {
    let text = tessera_weights::files::named(path, MAX_SCHEMA)
        .with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{}: no JSON", path.display()))
}

/// How many words make the wanted number of tokens is the server's to say: two prompts give the tokens of a word
/// and of the template around them.
fn calibrate(load: &mut Load, args: &BenchArgs, out: &Output) -> anyhow::Result<()> {
    let gen_tokens = std::mem::replace(&mut load.gen_tokens, 1);
    let mut tokens = [0.0; 2];
    let words = [16usize, 80];
    for (tokens, words) in tokens.iter_mut().zip(words) {
        load.own_words = words;
        let usage = match load.ask(usize::MAX - words) {
            // Other servers do not know the field; then answers may end early, and the counts show it.
            Err(error) if load.ignore_eos && names_field(&error, "ignore_eos") => {
                out.note("note: the server refuses ignore_eos, so a model may end its answers early");
                load.ignore_eos = false;
                load.ask(usize::MAX - words)
            }
            other => other,
        };
        let sample = usage?.context("stopped")?;
        anyhow::ensure!(
            sample.usage.prompt > 0,
            "the server's stream has no usage; it ignores stream_options.include_usage"
        );
        *tokens = sample.usage.prompt as f64;
    }
    let per_word = (tokens[1] - tokens[0]) / (words[1] - words[0]) as f64;
    anyhow::ensure!(per_word > 0.0, "80 words are {} prompt tokens and 16 words {}", tokens[1], tokens[0]);
    let template = tokens[0] - per_word * words[0] as f64;
    // The template comes first, so it is part of what is shared.
    let of = |tokens: f64| (tokens / per_word).round().max(0.0) as usize;
    let wanted = f64::from(args.prompt_tokens);
    anyhow::ensure!(
        wanted >= template + per_word,
        "--prompt-tokens {} is less than the chat template and one word, {} tokens",
        args.prompt_tokens,
        (template + per_word).ceil()
    );
    load.shared_words = of(f64::from(args.shared_prefix) - template);
    load.own_words = of(wanted - template).saturating_sub(load.shared_words).max(1);
    load.gen_tokens = gen_tokens;
    Ok(())
}

fn names_field(error: &anyhow::Error, field: &str) -> bool {
    use crate::client::ServerError::Refused;
    matches!(error.downcast_ref(), Some(Refused { status: 400 | 422, message, param, .. })
        if param.as_deref() == Some(field) || message.contains(field))
}

/// Short words of everyday, each a token or two in any vocabulary.
const WORDS: [&str; 32] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
];

/// `n` words that follow from the seed (SplitMix64).
fn words(mut seed: u64, n: usize, text: &mut String) {
    for _ in 0..n {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        text.push_str(WORDS[(mixed >> 59) as usize]);
        text.push(' ');
    }
}

impl Load {
    /// Prompts are the same up to the end of the shared part.
    fn body(&self, index: usize) -> Value {
        let mut prompt = String::new();
        words(self.run, self.shared_words, &mut prompt);
        // Seeds far apart: SplitMix64 walks by a fixed step, and neighbours would walk the same way.
        let own = (1 + index as u64).wrapping_mul(0xd134_2543_de82_ef95);
        words(self.run.wrapping_add(own), self.own_words, &mut prompt);
        let mut body = json!({
            "model": self.model, "messages": [{ "role": "user", "content": prompt.trim_end() }], "temperature": 0,
            "max_completion_tokens": self.gen_tokens, "stream": true, "stream_options": { "include_usage": true },
        });
        if self.ignore_eos {
            body["ignore_eos"] = json!(true);
        }
        if let Some(schema) = &self.schema {
            let schema = json!({ "name": "bench", "strict": true, "schema": schema });
            body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
        }
        body
    }

    /// One request; `None` if Ctrl-C ended it.
    fn ask(&self, index: usize) -> anyhow::Result<Option<Sample>> {
        let body = self.body(index);
        let begun = Instant::now();
        let mut arrivals: Vec<f64> = Vec::new();
        let mut usage = Usage::default();
        for event in self.client.stream(&body)? {
            if interrupt::seen() {
                return Ok(None);
            }
            let event = event?;
            let delta = &event["choices"][0]["delta"];
            // The first chunk of some servers has a role and no token.
            if ["content", "reasoning_content"]
                .iter()
                .any(|name| delta[name].as_str().is_some_and(|t| !t.is_empty()))
            {
                arrivals.push(begun.elapsed().as_secs_f64());
            }
            if let Some(counted) = event.get("usage").filter(|u| u.is_object()) {
                usage = Usage {
                    prompt: counted["prompt_tokens"].as_u64().unwrap_or(0),
                    cached: counted["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
                    completion: counted["completion_tokens"].as_u64().unwrap_or(0),
                };
            }
        }
        let total = begun.elapsed().as_secs_f64();
        // Text may be empty to the end, as with a lone end token.
        let (first, last) = (*arrivals.first().unwrap_or(&total), *arrivals.last().unwrap_or(&total));
        let gaps = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        Ok(Some(Sample { first, total, decode: last - first, gaps, usage }))
    }
}

fn report(
    args: &BenchArgs,
    load: &Load,
    requests: usize,
    seconds: f64,
    samples: &[Sample],
    failures: &BTreeMap<String, usize>,
    out: &Output,
) -> anyhow::Result<()> {
    let spread = |of: &dyn Fn(&Sample) -> Option<f64>| {
        Spread::new(samples.iter().filter_map(of).map(|s| s * 1e3).collect())
    };
    let first = spread(&|s| Some(s.first));
    let token = spread(&|s| (s.usage.completion > 1).then(|| s.decode / (s.usage.completion - 1) as f64));
    let gap = Spread::new(samples.iter().flat_map(|s| &s.gaps).map(|g| g * 1e3).collect());
    let total = spread(&|s| Some(s.total));
    let sum = |of: fn(&Usage) -> u64| samples.iter().map(|s| of(&s.usage)).sum::<u64>();
    let (prompt, cached, completion) = (sum(|u| u.prompt), sum(|u| u.cached), sum(|u| u.completion));
    let failed: usize = failures.values().sum();
    let rate = |n: u64| n as f64 / seconds;
    if out.json {
        let failures: Vec<_> =
            failures.iter().map(|(message, n)| json!({ "message": message, "count": n })).collect();
        return out.print_json(&json!({
            "server": load.client.address(), "model": load.model, "concurrency": args.concurrency, "requests": requests,
            "completed": samples.len(), "failed": failed, "failures": failures, "seconds": seconds,
            "ignore_eos": load.ignore_eos, "shared_prefix": args.shared_prefix, "schema": load.schema.is_some(),
            "prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": completion,
            "requests_per_s": rate(samples.len() as u64), "output_tokens_per_s": rate(completion),
            "prompt_tokens_per_s": rate(prompt),
            "ttft_ms": first.json(), "time_per_token_ms": token.json(), "gap_ms": gap.json(), "total_ms": total.json(),
        }));
    }
    out.line(format_args!("{} at {}, {} at once", load.model, load.client.address(), args.concurrency))?;
    out.line(format_args!(
        "{} of {requests} requests in {seconds:.2} s: {:.2} requests/s, {:.1} tokens/s out, {:.1} tokens/s in",
        samples.len(),
        rate(samples.len() as u64),
        rate(completion),
        rate(prompt)
    ))?;
    let each = |n: u64| n as f64 / samples.len().max(1) as f64;
    out.line(format_args!(
        "a request has {:.1} prompt tokens, {:.1} of them from the cache, and {:.1} generated",
        each(prompt),
        each(cached),
        each(completion)
    ))?;
    for (message, n) in failures {
        out.line(format_args!("{n} failed: {message}"))?;
    }
    let rows = [
        ("first token", &first),
        ("time per token", &token),
        ("between chunks", &gap),
        ("whole request", &total),
    ];
    let table: Vec<_> = rows
        .iter()
        .map(|(name, spread)| std::iter::once((*name).to_owned()).chain(spread.cells()).collect())
        .collect();
    out.line("")?;
    out.table(&["ms", "p50", "p90", "p99", "max"], &[1, 2, 3, 4], &table)?;
    for (name, spread) in [("first token, ms", &first), ("time per token, ms", &token)] {
        if !spread.is_empty() {
            out.text(format_args!("\n{name}\n{}", spread.histogram()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_what_they_should_and_no_more() {
        let client = Client::new("http://127.0.0.1:9").unwrap();
        let load = Load {
            client,
            model: "m".into(),
            run: 7,
            shared_words: 20,
            own_words: 10,
            gen_tokens: 1,
            ignore_eos: true,
            schema: None,
        };
        let prompt = |i| load.body(i)["messages"][0]["content"].as_str().unwrap().to_owned();
        let (a, b) = (prompt(0), prompt(1));
        let common = a.split(' ').zip(b.split(' ')).take_while(|(a, b)| a == b).count();
        assert_eq!(a.split(' ').count(), 30);
        assert!((20..24).contains(&common), "{common}");
        assert_eq!(a, prompt(0));
    }
}
