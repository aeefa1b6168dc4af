//! A loaded model: the decoder on a backend, and its pool of KV pages.

use crate::decoder::{DecoderError, FolderWeights, program};
use crate::kv::{Kv, OutOfUnits, Sequence};
use crate::open::ModelFiles;
use crate::plan::{Claim, Needs, Plan, PlanError, Room, slots, states_for};
use crate::units::Amounts;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tessera_compute::backend::{self, Backend, Executor, LoadError};
use tessera_compute::batch::{Batch, Output, PageKind, Pools, Span, Want};
use tessera_compute::program::{Mask, Program};
use tessera_compute::step::Step;
use tessera_compute::weights::Weights;
use tessera_weights::bytes::{Bytes, Changed};
use tessera_weights::config::{ModelConfig, RopeScaling};
use tessera_weights::embedding::{Embedding, Pooling};
use tessera_weights::folder::Folder;

/// A model that can make steps.
pub struct Model {
    /// Hyper-parameters.
    pub config: ModelConfig,
    /// What becomes of the hidden states of a text whose vector is asked for: their mean, where the folder does not say.
    pub embedding: Embedding,
    /// Whether it is an encoder: a text is fed in one step, and there are no logits.
    encoder: bool,
    executor: Box<dyn Executor>,
    kv: Kv,
    context: usize,
    /// Whether longrope's factors go by what is fed, and not by how long the sequence is.
    rope_by_call: bool,
    /// Whether a prompt's tokens become something else than generated ones at their places would.
    seen_by_call: bool,
    output: Output,
    /// What the weights lie in, to be asked after each step whether it changed.
    shards: Vec<Bytes>,
    claim: Arc<Claim>,
    notes: Vec<String>,
    source: Source,
    device: Device,
}

/// What a model runs on, now.
#[derive(Clone, Debug)]
pub struct Device(Arc<Mutex<String>>);

impl Device {
    fn set(&self, device: String) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = device;
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

/// What is needed to load a model again.
struct Source {
    folder: Folder,
    program: Program,
    pools: Pools,
    window: usize,
    rows: usize,
    loader: Option<Loader>,
}

/// Loads a program whose device is lost on another one, or on the same once it is there again.
pub type Loader =
    Box<dyn FnMut(Program, &mut dyn Weights, Pools) -> Result<Box<dyn Executor>, LoadError> + Send>;

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The tensors do not make a decoder.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// The backend refused it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A weights file changed meanwhile.
    #[error(transparent)]
    Changed(#[from] Changed),
    /// What was asked for cannot be, or does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A step that could not be made. Sequences hold what they held before; one with a state that the step had begun to
/// change holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A sequence would be longer than the context.
    #[error("the prompt and answer have {asked} tokens, the context holds {context}")]
    Context {
        /// Tokens of the sequence after the step.
        asked: usize,
        /// Longest sequence.
        context: usize,
    },
    /// Too few pages or states.
    #[error(transparent)]
    Units(#[from] OutOfUnits),
    /// A token that does not exist or the like, or what the device says.
    #[error(transparent)]
    Device(#[from] backend::StepError),
    /// A weights file is not what it was when it was opened: this model can make no more steps.
    #[error(transparent)]
    Changed(#[from] Changed),
}

/// Which of the fed tokens' logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pick {
    None,
    First,
    Last,
    All,
}

impl Pick {
    /// Those of these positions whose rows are wanted.
    pub fn rows(self, positions: Range<usize>) -> Range<usize> {
        let Range { start, end } = positions;
        match self {
            Pick::None => end..end,
            Pick::First => start..end.min(start + 1),
            Pick::Last => end.saturating_sub(1).max(start)..end,
            Pick::All => start..end,
        }
    }
}

/// New tokens of one sequence.
pub struct Feed<'a> {
    /// The sequence; the tokens are appended to it.
    pub sequence: &'a mut Sequence,
    /// Tokens, at least one.
    pub tokens: &'a [u32],
    /// Positions of the whole prompt, or other call of several tokens, that these are part of; empty for tokens that
    /// each are a call of their own, as generated ones are. See [`Span::rope_len`] and [`Span::call`].
    pub call: Range<usize>,
    /// How many of the last tokens are guesses that may be taken back.
    pub drafts: usize,
    /// Which logits are wanted.
    pub pick: Pick,
}

impl Model {
    /// Loads the weights on a backend.
    pub fn load(files: &ModelFiles, backend: &dyn Backend, room: Room) -> Result<Model, ModelError> {
        let program = program(files.folder.manifest(), &files.config, files.scheme, files.semantics)?;
        let rows = room.memory.map_or(0, |budget| budget.rows);
        let mut notes = Vec::new();
        let block = files.config.block(files.semantics);
        // Learned positions.
        let own = files.config.context_window_size.min(program.positions());
        if own < files.config.context_window_size {
            notes.push(format!(
                "the context is {own} tokens, for which the model has learned positions, and not the config's {}",
                files.config.context_window_size
            ));
        }
        let each = program.state_len().saturating_mul(size_of::<f32>());
        let most = backend.most(&program);
        let states = match program.states.is_empty() {
            true => 0,
            // Less than a sequence needs is the device's error.
            false => states_for(&room, each as u64).min(most.states.max(slots(1))),
        };
        let of_states = states.saturating_mul(each);
        if states > 0 && states < room.sequences {
            notes.push(format!(
                "{states} sequences can run at once, not {}: {} holds no more of their states",
                room.sequences,
                if states == most.states { "the device" } else { "a quarter of the memory" }
            ));
        }
        let made = program.weights.iter().map(|weight| weight.made_len() as u64).fold(0, u64::saturating_add);
        let needs = Needs {
            weights: files.folder.stored_len().saturating_add(made),
            page: backend.page_len(&program).map(|len| len as u64),
            most: most.pages,
            window: program.window(),
            workspace: backend.workspace_len(&program, rows).saturating_add(of_states) as u64,
            context: own,
        };
        let plan = Plan::new(needs, &room)?;
        let Plan { pages, context, own, .. } = plan;
        if context < room.context.unwrap_or(own) {
            let left = needs.most.iter().zip(pages).map(|(most, n)| most.saturating_sub(n));
            let full = left.zip(needs.page).any(|(left, page)| page > 0 && left < room.sequences);
            let what = if full { "the device" } else { "memory" };
            notes.push(format!(
                "the context is {context} tokens, not the model's {own}: {what} holds no more"
            ));
        }
        let pools = Pools { pages, states };
        let kv = Kv::new(pools, needs.window, plan.rows);
        let executor = backend.load(program.clone(), &mut FolderWeights(&files.folder), pools)?;
        let device = Device(Arc::new(Mutex::new(executor.describe())));
        let (folder, rows) = (files.folder.clone(), plan.rows);
        let source = Source { folder, program, pools, window: needs.window, rows, loader: None };
        let rope_by_call = block.ropes.iter().any(|rope| rope.by_call);
        let by_call = |mask| matches!(mask, Mask::CallWindow(_) | Mask::Cache { .. });
        let windows = block.attention.iter().any(|a| by_call(a.mask));
        let seen_by_call = windows || block.absorbed && files.scheme.group.is_some();
        let (config, shards) = (files.config.clone(), files.folder.shards());
        let mean = Embedding { pooling: Pooling::Mean, normalize: true };
        let embedding = files.embeddings.get(files.semantics).unwrap_or(mean);
        // Norms and biases were read from them.
        unchanged(&shards)?;
        let (claim, output) = (Arc::new(Claim::new(plan)), Output::default());
        Ok(Model {
            config,
            embedding,
            encoder: block.is_encoder(),
            executor,
            kv,
            context,
            rope_by_call,
            seen_by_call,
            output,
            shards,
            claim,
            notes,
            source,
            device,
        })
    }

    /// What loads the model again where its device is lost. Without one nothing does.
    pub fn set_loader(&mut self, loader: Loader) {
        self.source.loader = Some(loader);
    }

    /// Loads the model again after its device was lost, if it has a loader: false if not. No sequence holds anything
    /// afterwards, and those that did are to be dropped, not released.
    ///
    /// # Errors
    /// Where no device takes it.
    pub fn reload(&mut self) -> Result<bool, LoadError> {
        let Source { folder, program, pools, window, rows, loader } = &mut self.source;
        let Some(loader) = loader else { return Ok(false) };
        self.executor = loader(program.clone(), &mut FolderWeights(folder), *pools)?;
        self.device.set(self.executor.describe());
        self.kv = self.kv.emptied(*pools, *window, *rows);
        Ok(true)
    }

    /// Longest sequence in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Whether all of a text sees all of it: it is fed in one step, to a vector and no logits.
    pub fn is_encoder(&self) -> bool {
        self.encoder
    }

    /// What a user should be told about loading.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One line on what runs where.
    pub fn describe(&self) -> String {
        self.executor.describe()
    }

    /// The same for those who do not have the model: it changes when the model is loaded again.
    pub fn device(&self) -> Device {
        self.device.clone()
    }

    /// What it may take of memory, and what of it is taken.
    pub fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// Bytes set aside for keys and values; they take memory when they are first used.
    pub fn kv_len(&self) -> usize {
        self.executor.kv_len()
    }

    /// The pages and who holds them.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// Keeps pages of tokens that other sequences may begin with, or no longer. Off at first.
    pub fn keep_prefixes(&mut self, keep: bool) {
        // In an encoder what is kept of a token is of all that follows it, too.
        self.kv.keep_prefixes(keep && !self.encoder);
    }

    /// A sequence that holds as many of the first `tokens` as were kept. The first `prompt_len` of the
    /// tokens are a prompt's.
    pub fn begin(&mut self, tokens: &[u32], prompt_len: usize) -> Sequence {
        let (sequence, copies) = self.kv.begin(tokens, prompt_len, self.class(prompt_len, true));
        for copy in copies {
            self.executor.copy_page(copy.kind, copy.from, copy.to);
        }
        sequence
    }

    /// Lets a sequence that holds the first of these tokens go on with them, or begin anew where more of them was kept.
    pub fn go_on(&mut self, sequence: &mut Sequence, tokens: &[u32], prompt_len: usize) {
        let class = self.class(prompt_len, true);
        if self.kv.cached(tokens, class) > sequence.tokens.len() {
            self.kv.release(std::mem::take(sequence));
            *sequence = self.begin(tokens, prompt_len);
        } else {
            self.kv.go_on(sequence, tokens, prompt_len, class);
        }
    }

    /// Makes room for a step that brings a sequence to so many positions, before other sequences take it.
    ///
    /// # Errors
    /// Where there is too little.
    pub fn reserve(&mut self, sequence: &mut Sequence, positions: usize) -> Result<(), OutOfUnits> {
        self.kv.grow(sequence, positions)
    }

    /// What a new sequence of these tokens would take of what is available to reach `positions`.
    pub fn needed(&self, tokens: &[u32], prompt_len: usize, positions: usize) -> Amounts {
        self.kv.cost(tokens, self.class(prompt_len, true), positions)
    }

    /// Offers the sequence's tokens to others: those of full pages, and with `tail` the rest.
    pub fn remember(&mut self, sequence: &mut Sequence, tail: bool) {
        self.kv.remember(sequence, tail);
    }

    /// Keeps the first `len` tokens of a sequence; fewer if it could not go on from there.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        self.kv.truncate(sequence, len);
    }

    /// Offers all that a sequence holds to others, as it is to end, or to go on later.
    pub fn offer(&mut self, sequence: &mut Sequence) {
        self.kv.offer(sequence);
    }

    /// Gives back what a sequence holds.
    pub fn release(&mut self, sequence: Sequence) {
        self.kv.release(sequence);
    }

    /// How many of the first tokens of `sequence` may be kept for `prompt`: where the RoPE depends on the
    /// length, equal tokens are not enough.
    pub fn reusable(&self, sequence: &Sequence, prompt: &[u32]) -> usize {
        let (common, class) = (sequence.common_prefix(prompt), self.class(prompt.len(), true));
        if self.encoder {
            return 0;
        }
        sequence.classes.iter().take(common).position(|c| *c != class).unwrap_or(common)
    }

    /// How many drafted tokens, of at most `room`, may follow `n` tokens of a sequence: none where
    /// `free` does not hold them, and the state to go back to from a wrong one.
    pub fn draft_limit(
        &self,
        sequence: &Sequence,
        prompt_len: usize,
        (n, room): (usize, usize),
        free: Amounts,
    ) -> usize {
        let more = self.span_limit(sequence, prompt_len, n + room).saturating_sub(n);
        let needed = self.kv.missing(sequence, sequence.tokens.len() + n + more) + self.kv.saved();
        if needed.fit_in(free) { more } else { 0 }
    }

    /// How many of `n` tokens a sequence may be fed in one step: where the RoPE depends on the length, those of one
    /// [`Span::rope_len`].
    pub fn span_limit(&self, sequence: &Sequence, prompt_len: usize, n: usize) -> usize {
        let position = sequence.tokens.len();
        let (n, prompt) = (self.kv.step_limit(sequence, n), position < prompt_len);
        let class = self.class(position + 1, prompt);
        match (class, prompt) {
            (0, _) => n,
            (_, true) => n.min(prompt_len - position),
            _ if self.rope_by_call || self.seen_by_call => n,
            _ => (0..n).take_while(|i| self.class(position + 1 + i, false) == class).count(),
        }
    }

    /// See [`Span::rope_len`]. A call of TVM's that feeds a whole prompt has its length, whatever was kept of it.
    fn rope_len(&self, call: &Range<usize>, end: usize) -> usize {
        if self.rope_by_call { call.len().max(1) } else { call.end.max(end) }
    }

    /// Sequences of the same class of length have the same RoPE frequencies; 0 if all have.
    fn class(&self, len: usize, prompt: bool) -> u32 {
        if self.seen_by_call {
            return if prompt { 1 } else { 2 };
        }
        match &self.config.rope_scaling {
            RopeScaling::Dynamic { original_context, .. } => len.max(*original_context) as u32,
            RopeScaling::LongRope { original_context, .. } => 1 + u32::from(len > *original_context),
            _ => 0,
        }
    }

    /// One step: appends the tokens of every feed and computes the logits that are wanted, in the order
    /// of the feeds. The calling thread waits.
    pub fn forward(&mut self, feeds: &mut [Feed<'_>], want: Want) -> Result<&Output, StepError> {
        let made = self.plan(feeds, want).and_then(|step| self.step(step));
        if let Err(error) = made {
            self.failed(feeds);
            return Err(error);
        }
        self.commit(feeds)
    }

    /// Makes a step of [`Model::plan`]; the calling thread waits. [`Model::commit`] is next.
    pub fn step(&mut self, step: Step) -> Result<(), StepError> {
        Ok(self.executor.step(step, &mut self.output)?)
    }

    /// Begins a step of [`Model::plan`], for whoever does not wait for it but asks with [`Model::poll`]. Until it is made
    /// and committed its sequences are not touched.
    pub fn begin_step(&mut self, step: Step) -> Result<(), StepError> {
        Ok(self.executor.begin(step)?)
    }

    /// Whether the step that was begun is made; [`Model::commit`] is next then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StepError>> {
        self.executor.poll(cx, &mut self.output).map_err(StepError::from)
    }

    /// What a step of these feeds computes; makes room for their tokens.
    pub fn plan(&mut self, feeds: &mut [Feed<'_>], want: Want) -> Result<Step, StepError> {
        for feed in feeds.iter_mut() {
            let asked = feed.sequence.tokens.len() + feed.tokens.len();
            if asked > self.context {
                return Err(StepError::Context { asked, context: self.context });
            }
            self.kv.grow(feed.sequence, asked)?;
        }
        self.claim.touch(PageKind::EACH.map(|kind| self.kv.pool(kind as usize).touched()));
        let mut states = vec![None; feeds.len()];
        // Drafts need what they go back to; what is put aside for others takes what is left.
        for drafts in [true, false] {
            for (feed, state) in feeds.iter_mut().zip(&mut states).filter(|(f, _)| (f.drafts > 0) == drafts) {
                *state = self.kv.state(feed.sequence, feed.tokens.len(), feed.drafts);
            }
        }
        let (mut tokens, mut picked, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for (feed, state) in feeds.iter().zip(states) {
            let (start, position) = (tokens.len(), feed.sequence.tokens.len());
            tokens.extend_from_slice(feed.tokens);
            picked.extend(feed.pick.rows(start..tokens.len()).map(|row| row as u32));
            let len = feed.tokens.len();
            let rope_len = self.rope_len(&feed.call, position + len);
            let call = (!feed.call.is_empty()).then_some(feed.call.start);
            spans.push(Span { start, len, position, rope_len, call, pages: feed.sequence.pages(), state });
        }
        let batch = Batch { tokens: &tokens, spans: &spans, picked: &picked, want };
        Ok(Step::of(&batch))
    }

    /// The step of these feeds is made: appends their tokens, and returns what it gave.
    ///
    /// # Errors
    /// Where it was computed from other weights than those that were opened. Then nothing is appended.
    pub fn commit(&mut self, feeds: &mut [Feed<'_>]) -> Result<&Output, StepError> {
        if let Err(changed) = unchanged(&self.shards) {
            self.failed(feeds);
            return Err(changed.into());
        }
        for feed in feeds {
            self.kv.stepped(feed.sequence);
            let (position, len) = (feed.sequence.tokens.len(), feed.tokens.len());
            let class = self.class(self.rope_len(&feed.call, position + len), !feed.call.is_empty());
            if class != 0 {
                feed.sequence.classes.resize(position + len, class);
            }
            feed.sequence.tokens.extend_from_slice(feed.tokens);
        }
        Ok(&self.output)
    }

    /// The step of these feeds could not be made: what was to be put aside of them is not.
    pub fn failed(&mut self, feeds: &mut [Feed<'_>]) {
        feeds.iter_mut().for_each(|feed| self.kv.failed(feed.sequence));
    }
}

/// Whether what was computed was computed from the files that were opened.
fn unchanged(shards: &[Bytes]) -> Result<(), Changed> {
    shards.iter().try_for_each(Bytes::check)
}
