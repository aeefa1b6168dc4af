//! Structured output: from a JSON Schema, a regular expression or a Lark grammar to the tokens that may
//! come next.
//!
//! The masks are computed by llguidance. What is decided here is what it may be asked: it enforces some
//! schemas only nearly, so a schema goes through [`schema`] first, and what cannot be enforced exactly is
//! an error that names the keyword and its place. Whatever a mask lets through is valid; the reverse is
//! not promised (properties come in the order of the schema, a number in a `const` in its shortest form,
//! control characters other than `\b \f \n \r \t` are never written).

mod canonical;
mod formats;
mod lark;
mod members;
mod pattern;
mod schema;
mod vocabulary;
mod watch;

pub(crate) use members::{Member, Text, Way};

use crate::constraint::{Constraint, ConstraintError};
use crate::tokenizer::Tokenizer;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use toktrie::{InferenceCapabilities, SimpleVob, TokEnv};
use vocabulary::Vocabulary;
use watch::{Closers, Members, Plan, Shape, Watch};

/// Longest regular expression that is taken, in bytes.
pub const MAX_REGEX: usize = 16 << 10;
/// Longest Lark grammar that is taken, in bytes.
pub const MAX_LARK: usize = 64 << 10;

/// Stack for compiling, of which only what is used takes memory: 32 KiB for each of
/// [`schema::MAX_CHAIN`] levels.
#[cfg(feature = "threads")]
const STACK: usize = schema::MAX_CHAIN << 15;
/// Work that the masks of an answer may take at once, and for each of its tokens on the average. It is
/// counted, not timed, so that it ends at the same token every time; a unit is about 20 ns.
const WORK: u64 = 10_000_000;
const WORK_PER_TOKEN: u64 = 200_000;
/// Items in a row of the parser that are no work: as many as a grammar without ambiguity may have. Those of
/// ambiguous ones grow with the text.
const ROW_OF_SCHEMA: u64 = 4_000;
const ROW_OF_REGEX: u64 = 64;
const ROW_OF_LARK: std::ops::RangeInclusive<u64> = 64..=500;

/// A grammar that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A schema that is wrong, or that a mask cannot enforce exactly.
    #[error("JSON schema at {}: {message}", if pointer.is_empty() { "the root" } else { pointer })]
    Schema {
        /// JSON pointer to the keyword.
        pointer: String,
        /// The keyword; empty for a schema that is none at all.
        keyword: String,
        /// What is wrong.
        message: String,
    },
    /// More than is taken of something.
    #[error("the grammar is too large: {what} is {found}, the limit is {limit}")]
    TooLarge {
        /// Of what.
        what: String,
        /// How much there is.
        found: usize,
        /// How much is taken.
        limit: usize,
    },
    /// A regular expression or Lark grammar that is wrong.
    #[error("{what}: {message}")]
    Invalid {
        /// `regex` or `grammar`.
        what: &'static str,
        /// What is wrong.
        message: String,
    },
    /// Nothing satisfies the grammar, or it takes too much work.
    #[error("the grammar cannot be used: {0}")]
    Unusable(String),
    /// The vocabulary cannot be used at all.
    #[error("no grammar can be used with this tokenizer: {0}")]
    Vocabulary(String),
}

/// Where white space may stand in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonSpacing {
    /// One space after each comma and colon, as Python writes it. The text between values is known, so it
    /// is appended without asking the model.
    #[default]
    Spaced,
    /// None.
    Compact,
    /// Anywhere that JSON allows, up to 40 characters at a time.
    Free,
}

impl JsonSpacing {
    /// Options of llguidance. `u` is missing from the escapes on purpose: with it, a property that is
    /// excluded by name could be written in another spelling.
    fn options(self) -> Value {
        let escapes = "nrbtf\\\"";
        match self {
            JsonSpacing::Spaced => json!({
                "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false,
                "json_allowed_escapes": escapes,
            }),
            JsonSpacing::Compact => json!({ "whitespace_flexible": false, "json_allowed_escapes": escapes }),
            // Without a bound a model can go on with white space for ever.
            JsonSpacing::Free => json!({
                "whitespace_pattern": "[\\x20\\x0A\\x0D\\x09]{1,40}", "json_allowed_escapes": escapes,
            }),
        }
    }
}

/// Which calls of tools an answer may make.
pub(crate) struct ToolGrammar<'a> {
    /// Name, schema of the arguments and its JSON pointer in the request, for each tool.
    pub calls: &'a [(&'a str, Value, String)],
    /// How a call is written.
    pub form: CallForm,
    /// Whether there may be more than one call.
    pub many: bool,
    /// Whether the answer is calls and nothing else.
    pub forced: bool,
}

/// How calls of tools are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallForm {
    /// An object with the name, and a member of this name that holds the arguments.
    Object(&'static str),
    /// The arguments are an object that stands for itself.
    Arguments,
    /// Each argument stands for itself.
    Members,
}

/// What the grammar around calls is written with. Schemas are what follows `%json`.
pub(crate) enum CallParts {
    /// One schema, of the object of any call.
    Object(String),
    /// The schema of each tool's arguments.
    Arguments(Vec<String>),
    /// The ways in which each tool's arguments can be.
    Members(Vec<Vec<Way>>),
}

/// What all grammars of a model share: its vocabulary as a tree of bytes. Built once.
pub struct GrammarEnv {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
    ends: Vec<u32>,
    /// Tokens that may complete a name or an item.
    closers: Arc<Closers>,
}

impl std::fmt::Debug for GrammarEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrammarEnv({:?})", self.tokenizer)
    }
}

impl GrammarEnv {
    /// `rows` is the size of the model's vocabulary, at least the tokenizer's; rows without a token are
    /// never allowed. `ends` are the tokens that end an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, rows: usize, ends: &[u32]) -> Result<GrammarEnv, GrammarError> {
        // The tree of tokens asserts what it needs of a vocabulary, and vocabularies are files.
        let build = || Vocabulary::new(tokenizer.clone(), rows, ends);
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|_| Err("its tokens do not fit llguidance's tree".to_owned()));
        let env: TokEnv = Arc::new(built.map_err(GrammarError::Vocabulary)?);
        let capabilities = InferenceCapabilities { ff_tokens: true, ..InferenceCapabilities::default() };
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&env, capabilities, &slices)
            .map_err(|e| GrammarError::Vocabulary(e.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            // About 20 ms to compile, 10 ms and 50 MB for a mask at worst.
            initial_lexer_fuel: 1_000_000,
            step_lexer_fuel: 150_000,
            step_max_items: 50_000,
            // As many optional properties as a schema may have.
            max_items_in_row: 20_000,
            max_lexer_states: 30_000,
            max_grammar_size: 200_000,
            precompute_large_lexemes: true,
            verbose_errors: false,
        };
        let trie = env.tok_trie();
        let closers = Closers::new((0..rows as u32).map(|id| (id, trie.token(id))));
        Ok(GrammarEnv { factory, tokenizer, ends: ends.to_vec(), closers: Arc::new(closers) })
    }

    /// The tokenizer that the environment was made from.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Any JSON object, with white space where JSON allows it.
    pub fn json_object(&self) -> Result<GrammarConstraint, GrammarError> {
        self.json_schema(&json!({ "type": "object" }), JsonSpacing::Free)
    }

    /// JSON that is valid by a schema.
    pub fn json_schema(
        &self,
        schema: &Value,
        spacing: JsonSpacing,
    ) -> Result<GrammarConstraint, GrammarError> {
        deep(|| {
            let mode = schema::Mode { closed: false, watched: true };
            let mut normalizer = schema::Normalizer::new(mode);
            let root = normalizer.add(schema, "", false)?;
            let schema::Written { schema, places, shapes } =
                lark::embedded(normalizer, schema::reference(root), spacing)?;
            let plan = Plan { shapes, root, around: false };
            let grammar = TopLevelGrammar::from_json_schema(schema);
            let constraint = self.start(grammar, ROW_OF_SCHEMA, |message| places.explain(&message))?;
            Ok(constraint.watched(plan))
        })
    }

    /// Text that a regular expression matches from its beginning to its end, in the syntax of Rust's
    /// `regex` crate, without look-around and word boundaries.
    pub fn regex(&self, regex: &str) -> Result<GrammarConstraint, GrammarError> {
        lark::check_regex(regex)?;
        let refused = |message| GrammarError::Invalid { what: "regex", message };
        deep(|| self.start(TopLevelGrammar::from_regex(regex), ROW_OF_REGEX, refused))
    }

    /// Text by a grammar in Lark's syntax, in the variant that llguidance reads. JSON schemas in it
    /// (`%json {...}`) are held to the same rules as others. What would not be honoured is refused:
    /// `temperature=`, `stop=` (use `suffix=`), `allow_invalid_utf8`.
    pub fn lark(&self, grammar: &str) -> Result<GrammarConstraint, GrammarError> {
        let refused = |message| GrammarError::Invalid { what: "grammar", message };
        let row = (grammar.len() as u64 / 4).clamp(*ROW_OF_LARK.start(), *ROW_OF_LARK.end());
        deep(|| self.start(TopLevelGrammar::from_lark(lark::checked(grammar)?), row, refused))
    }

    /// Calls of tools; `around` writes the grammar around the parts.
    pub(crate) fn tool_calls(
        &self,
        grammar: &ToolGrammar<'_>,
        around: impl FnOnce(&CallParts) -> Result<String, GrammarError> + Send,
    ) -> Result<GrammarConstraint, GrammarError> {
        deep(|| self.calls(grammar, around))
    }

    fn calls(
        &self,
        grammar: &ToolGrammar<'_>,
        around: impl FnOnce(&CallParts) -> Result<String, GrammarError>,
    ) -> Result<GrammarConstraint, GrammarError> {
        // Around calls that are not forced, and around single arguments, there is text that looks like anything.
        let watched = grammar.forced && grammar.form != CallForm::Members;
        let mut normalizer = schema::Normalizer::new(schema::Mode { closed: true, watched });
        let (mut objects, mut ids) = (Vec::new(), Vec::with_capacity(grammar.calls.len()));
        let mut calls = Shape::default();
        for (name, parameters, pointer) in grammar.calls {
            let id = normalizer.add(parameters, pointer, true)?;
            ids.push(id);
            if let CallForm::Object(key) = grammar.form {
                let named = HashMap::from([("name".to_owned(), None), (key.to_owned(), Some(id))]);
                calls.objects.push(Members { named, ..Members::default() });
                objects.push(json!({
                    "type": "object",
                    "properties": { "name": { "const": name }, key: schema::reference(id) },
                    "required": ["name", key],
                    "additionalProperties": false,
                }));
            }
        }
        let root = match grammar.form {
            CallForm::Object(_) => Map::from_iter([("anyOf".to_owned(), Value::Array(objects))]),
            _ => Map::new(),
        };
        let schema::Written { schema, places, mut shapes } =
            lark::embedded(normalizer, root, JsonSpacing::Spaced)?;
        let parts = match grammar.form {
            CallForm::Object(_) => CallParts::Object(schema.to_string()),
            CallForm::Arguments => CallParts::Arguments(
                ids.iter().map(|id| members::pruned(&schema, schema::reference(*id))).collect(),
            ),
            CallForm::Members => {
                let of_tool = grammar.calls.iter().zip(&ids);
                let ways = of_tool.map(|((_, _, pointer), id)| members::ways(&schema, *id, pointer));
                CallParts::Members(ways.collect::<Result<_, _>>()?)
            }
        };
        let lark = around(&parts)?;
        let constraint =
            self.start(TopLevelGrammar::from_lark(lark), ROW_OF_SCHEMA, |message| places.explain(&message))?;
        if !watched {
            return Ok(constraint);
        }
        if grammar.form == CallForm::Arguments {
            ids.iter().filter_map(|id| shapes.get(*id)).for_each(|shape| calls.join(shape.clone()));
        }
        let root = shapes.len();
        shapes.push(calls);
        Ok(constraint.watched(Plan { shapes, root, around: true }))
    }

    fn start(
        &self,
        grammar: TopLevelGrammar,
        row: u64,
        refused: impl FnOnce(String) -> GrammarError,
    ) -> Result<GrammarConstraint, GrammarError> {
        let parser = self.factory.create_parser(grammar);
        let parser = parser.map_err(|e| refused(first_lines(&format!("{e:#}"))))?;
        let mut matcher = Matcher::new(Ok(parser));
        // A grammar that nothing satisfies, or that is too much work, shows at its first mask.
        let first = matcher.compute_mask_or_eos();
        let mask = first.map_err(|e| GrammarError::Unusable(first_lines(&e.to_string())))?;
        Ok(GrammarConstraint {
            matcher,
            mask: Some(mask),
            rows: self.factory.tok_env().tok_trie().vocab_size(),
            ends: self.ends.clone(),
            ended: false,
            work: 0,
            tokens: 0,
            row,
            watch: None,
            closers: self.closers.clone(),
        })
    }
}

/// Compiling is recursive, and on the stack of an ordinary thread not deep enough.
#[cfg(feature = "threads")]
fn deep<T: Send>(compile: impl FnOnce() -> Result<T, GrammarError> + Send) -> Result<T, GrammarError> {
    let unusable = |what: &str| GrammarError::Unusable(what.to_owned());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("tessera-grammar".to_owned()).stack_size(STACK);
        let Ok(thread) =
            tessera_compute::threads::room(STACK).and_then(|()| thread.spawn_scoped(scope, compile))
        else {
            return Err(unusable("no thread could be started to compile it"));
        };
        thread.join().unwrap_or_else(|_| Err(unusable("compiling it panicked")))
    })
}

#[cfg(not(feature = "threads"))]
fn deep<T>(compile: impl FnOnce() -> Result<T, GrammarError>) -> Result<T, GrammarError> {
    compile()
}

/// llguidance appends dumps of its state to its messages.
fn first_lines(message: &str) -> String {
    let end = ["<state>", "<non-verbose/>"].iter().filter_map(|m| message.find(m)).min();
    let text = message[..end.unwrap_or(message.len())].trim();
    match text.char_indices().nth(600) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None if text.is_empty() => "no token can follow".to_owned(),
        None => text.to_owned(),
    }
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError::Failed { what: first_lines(&error.to_string()) }
}

/// One answer that has to follow a grammar. A clone starts where this one is.
pub struct GrammarConstraint {
    matcher: Matcher,
    /// The mask, if it was computed since the last token.
    mask: Option<SimpleVob>,
    rows: usize,
    ends: Vec<u32>,
    ended: bool,
    /// Work so far, and tokens.
    work: u64,
    tokens: u64,
    /// Items of a row that are no work.
    row: u64,
    watch: Option<Watch>,
    closers: Arc<Closers>,
}

impl Clone for GrammarConstraint {
    fn clone(&self) -> GrammarConstraint {
        GrammarConstraint {
            // The shallow clone shares caches behind a lock; answers run on different threads.
            matcher: self.matcher.deep_clone(),
            mask: self.mask.clone(),
            rows: self.rows,
            ends: self.ends.clone(),
            ended: self.ended,
            work: self.work,
            tokens: self.tokens,
            row: self.row,
            watch: self.watch.clone(),
            closers: self.closers.clone(),
        }
    }
}

impl std::fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrammarConstraint({})", self.matcher.stop_reason())
    }
}

impl GrammarConstraint {
    /// Follows the text, for what the grammar cannot say.
    fn watched(mut self, plan: Plan) -> GrammarConstraint {
        self.watch = Watch::new(Arc::new(plan));
        self
    }

    /// Counts the work of the last mask.
    fn spend(&mut self) -> Result<(), ConstraintError> {
        let stats = self.matcher.last_step_stats().map_err(failed)?;
        // A row of the parser costs the square of its length.
        let items = stats.all_items as u64;
        let row = items / (stats.rows as u64).max(1);
        self.work += items * row.saturating_sub(self.row) + 5 * stats.lexer_cost;
        if self.work <= WORK + WORK_PER_TOKEN * self.tokens {
            return Ok(());
        }
        Err(failed(format!("after {} tokens it has taken more work than an answer may", self.tokens)))
    }

    /// Whether the answer may end here.
    pub fn can_stop(&mut self) -> bool {
        self.ended || self.matcher.is_accepting().unwrap_or(false)
    }
}

impl Constraint for GrammarConstraint {
    fn mask(&mut self) -> Result<&[u32], ConstraintError> {
        if self.mask.is_none() {
            let mut mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
            self.spend()?;
            if let Some(watch) = &self.watch {
                let env = self.matcher.tok_env().map_err(failed)?;
                watch.filter(&mut mask, &self.closers, |token| env.tok_trie().token(token));
                if mask.is_zero() {
                    return Err(failed("whatever may follow would repeat a member or an item"));
                }
            }
            self.mask = Some(mask);
        }
        let words = self.mask.as_ref().map(SimpleVob::as_slice).unwrap_or_default();
        Ok(&words[..self.rows.div_ceil(32).min(words.len())])
    }

    fn forced(&mut self) -> Vec<u32> {
        if self.ended || self.matcher.is_stopped() {
            return Vec::new();
        }
        let mut forced = self.matcher.compute_ff_tokens();
        if let (Some(watch), Ok(env)) = (&self.watch, self.matcher.tok_env()) {
            let mut watch = watch.clone();
            let mut fits = |token: &&u32| watch.accept(env.tok_trie().token(**token)).is_ok();
            forced.truncate(forced.iter().take_while(|token| fits(token)).count());
        }
        forced
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let is_end = self.ends.contains(&token);
        if self.ended || (self.finished() && !is_end) {
            return Err(ConstraintError::NotAllowed { token });
        }
        if is_end && self.can_stop() {
            self.ended = true;
            return Ok(());
        }
        // Asked first: a token that does not fit would leave the parser broken.
        if token as usize >= self.rows || self.matcher.validate_tokens(&[token]).map_err(failed)? == 0 {
            return Err(ConstraintError::NotAllowed { token });
        }
        if let Some(watch) = &self.watch {
            let env = self.matcher.tok_env().map_err(failed)?;
            let mut after = watch.clone();
            if after.accept(env.tok_trie().token(token)).is_err() {
                return Err(ConstraintError::NotAllowed { token });
            }
            after.settle();
            self.watch = Some(after);
        }
        self.mask = None;
        self.tokens += 1;
        self.matcher.consume_token(token).map_err(failed)
    }

    fn finished(&self) -> bool {
        self.ended || (self.matcher.is_stopped() && !self.matcher.is_error())
    }
}
