//! `tessera serve`: the models of this machine over HTTP.

use crate::cli::{LogFormat, ServeArgs, Template};
use crate::ledger::Ledger;
use crate::load::{Loaded, Wanted, load_beside};
use crate::models;
use crate::output::{Output, hinted};
use anyhow::Context;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tessera::server::{self, Config, Keys, LoadedModel};
use tessera_engine::engine::EngineOptions;
use tessera_engine::template::TemplateChoice;
use tessera_engine::text::Text;

/// Longest file with keys.
const MAX_KEYS: u64 = 1 << 20;

/// Runs the command.
pub fn run(args: ServeArgs, out: &Output) -> anyhow::Result<ExitCode> {
    let models = names(&args.models)?;
    // What cannot be found should not wait for the first request to be missed.
    for (_, source) in &models {
        models::resolve(source, out)?;
    }
    let config = Config {
        address: SocketAddr::new(args.host, args.port),
        models,
        engine: EngineOptions {
            max_sequences: args.max_sequences as usize,
            max_batch_tokens: args.max_batch_tokens as usize,
            queue: args.queue as usize,
            prefix_cache: !args.no_prefix_cache,
            ..EngineOptions::default()
        },
        keys: keys(&args)?,
        cors: args.cors.clone(),
        allow_host: args.allow_host.clone(),
        max_body: usize::try_from(args.max_body)?,
        rate_limit: args.rate_limit,
        timeout: args.timeout,
        idle_unload: args.idle_unload,
        grace: args.grace,
        max_connections: args.max_connections as usize,
        write_timeout: args.write_timeout,
        read_timeout: args.read_timeout,
    };
    descriptors(config.max_connections, out);
    let level = match (out.quiet, out.verbose) {
        (true, _) => tracing::Level::WARN,
        (_, 0) => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let format = match args.log {
        LogFormat::Text => server::LogFormat::Text,
        LogFormat::Json => server::LogFormat::Json,
    };
    server::start_logs(format, level);
    let (names, printer) = (config.models.clone(), out.clone());
    let json = out.json;
    let loader = loader(args, out.clone());
    server::serve(config, loader, move |address| {
        let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        // A closed stdout is no reason not to serve.
        let _ = if json {
            printer.print_json(&serde_json::json!({"url": format!("http://{address}"), "models": names}))
        } else {
            printer.line(format_args!("http://{address} serves {}", names.join(", ")))
        };
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Raises the limit of open files to what the connections need, as far as the system lets a process do so.
#[cfg(unix)]
fn descriptors(connections: usize, out: &Output) {
    const OTHERS: usize = 256;
    let wanted = (connections + OTHERS) as libc::rlim_t;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and lives longer than the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 || limit.rlim_cur >= wanted {
        return;
    }
    limit.rlim_cur = wanted.min(limit.rlim_max);
    // SAFETY: as above; the call only reads it.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    if !raised || limit.rlim_cur < wanted {
        let connections = connections.min((limit.rlim_cur as usize).saturating_sub(OTHERS));
        out.note(format_args!(
            "note: the system lets this process open {} files: connections beyond some {connections} have to wait",
            limit.rlim_cur
        ));
    }
}

#[cfg(not(unix))]
fn descriptors(_connections: usize, _out: &Output) {}

/// `NAME=MODEL`, or a model whose name is that of the store, or of its folder.
fn names(given: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut models: Vec<(String, String)> = Vec::new();
    for text in given {
        let (name, source) = match text.split_once('=') {
            Some((name, source)) if !std::path::Path::new(text).exists() => {
                (name.to_owned(), source.to_owned())
            }
            _ => (plain_name(text), text.clone()),
        };
        anyhow::ensure!(!name.is_empty() && !source.is_empty(), "{text}: expected MODEL or NAME=MODEL");
        if models.iter().any(|(known, _)| *known == name) {
            return Err(hinted(
                format!("two models would have the name {name}"),
                "give one of them another: NAME=MODEL",
            ));
        }
        models.push((name, source));
    }
    Ok(models)
}

/// The last part of a path; a name of the store has no other.
fn plain_name(source: &str) -> String {
    let path = std::path::Path::new(source);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().map_or_else(|| source.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn keys(args: &ServeArgs) -> anyhow::Result<Keys> {
    const VARIABLE: &str = "TESSERA_API_KEY";
    let mut keys = Keys::default();
    if let Some(path) = &args.api_key_file {
        let shown = path.display();
        let bytes =
            tessera_weights::files::named(path, MAX_KEYS).with_context(|| format!("cannot read {shown}"))?;
        let text = String::from_utf8(bytes).with_context(|| format!("cannot read {shown}"))?;
        keys = Keys::parse(&text);
        // A server that was meant to be closed must not be open to everybody.
        anyhow::ensure!(!keys.is_empty(), "{shown}: there is no key in it");
    }
    match std::env::var(VARIABLE) {
        Ok(text) => {
            let more = Keys::parse(&text);
            anyhow::ensure!(!more.is_empty(), "{VARIABLE} is set and there is no key in it");
            keys.extend(more);
        }
        Err(std::env::VarError::NotPresent) => {}
        Err(error) => anyhow::bail!("{VARIABLE}: {error}"),
    }
    Ok(keys)
}

fn loader(args: ServeArgs, out: Output) -> Arc<server::Load> {
    let ledger = Ledger::new(args.models.len(), args.compute.memory);
    Arc::new(move |source| {
        let open = || -> anyhow::Result<LoadedModel> {
            // Requests that run at once share the memory for keys and values: where there is too little for all of
            // them at full length, they wait for each other.
            let (sequences, rows) = (args.max_sequences as usize, args.max_batch_tokens as usize);
            let wanted = Wanted { sequences, fewer: true, rows, ledger: &ledger };
            let Loaded { files, model, .. } = load_beside(source, &args.compute, &wanted, &out)?;
            let choice = match args.template {
                Template::Auto => TemplateChoice::Auto,
                Template::Conv => TemplateChoice::Conv,
                Template::Jinja => TemplateChoice::Jinja,
            };
            Ok(LoadedModel { model, text: Text::open(&files, choice)? })
        };
        open().map_err(|error| format!("{error:#}"))
    })
}
