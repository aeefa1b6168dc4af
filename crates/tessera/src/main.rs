//! The `tessera` program: parse, dispatch, report.

mod checkpoint;
mod cli;
mod client;
mod commands;
mod conversion;
mod faults;
#[cfg(feature = "gpu")]
mod gpu;
mod hints;
mod interrupt;
mod ledger;
mod load;
mod machine;
mod mending;
mod models;
mod output;
mod progress;
mod pulling;
mod quality;
mod stdin;
mod verification;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let out = Output::new(&cli.global);
    if let Err(error) = tessera_weights::mapped::guard() {
        out.note(format_args!(
            "note: a file that is truncated while it is read will end the program: {error}"
        ));
    }
    let outcome = match cli.command {
        Some(command) => dispatch(command, &out),
        None => out.line(Cli::command().render_help()).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        // A reader that has seen enough (`tessera list | head`) is no failure.
        Err(error) if output::is_closed_stdout(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out.report(&error);
            ExitCode::from(1)
        }
    }
}

fn dispatch(command: Command, out: &Output) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(args, out),
        Command::Inspect(args) => commands::inspect::run(args, out),
        Command::Verify(args) => commands::verify::run(args, out),
        Command::Repair(args) => commands::repair::run(args, out),
        Command::Convert(args) => commands::convert::run(args, out),
        Command::Pull(args) => commands::pull::run(args, out),
        Command::List(args) => commands::list::run(args, out),
        Command::Show(args) => commands::show::run(args, out),
        Command::Rm(args) => commands::rm::run(args, out),
        Command::Logits(args) => commands::logits::run(args, out),
        Command::Perplexity(args) => commands::perplexity::run(args, out),
        Command::Embed(args) => commands::embed::run(args, out),
        Command::Tokenize(args) => commands::tokenize::run(args, out),
        #[cfg(feature = "server")]
        Command::Serve(args) => commands::serve::run(args, out),
        Command::Bench(args) => commands::bench::run(args, out),
        Command::Doctor(args) => commands::doctor::run(args, out),
        #[cfg(feature = "gpu")]
        Command::Devices(args) => commands::devices::run(args, out),
        #[cfg(feature = "gpu")]
        Command::Selftest(args) => commands::selftest::run(args, out),
    }
}

/// Help and version are answers; everything else that clap reports is a usage error, exit 2.
fn usage(error: &clap::Error) -> ExitCode {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // The arguments could not be parsed, so the flag has to be looked for by hand.
    let json = std::env::args_os().skip(1).take_while(|a| a != "--").any(|a| a == "--json");
    if json && !is_answer {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        output::print_json_error(message, Some("see `tessera --help`"));
    } else {
        // A closed pipe is no reason to fail either.
        let _ = error.print();
    }
    if is_answer { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
