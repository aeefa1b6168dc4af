//! What a model takes of memory, planned before any of it is taken.

use crate::kv::most_pages;
use crate::units::{ALL, WINDOW, pages_for};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tessera_compute::batch::{PAGE, PageKind};

/// Where it is not said how long the context has to be, it is not made shorter than this to leave memory for other
/// models.
pub const LEAST_CONTEXT: usize = 4096;

/// What to make room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Longest sequence in tokens; `None` takes the model's own context, or what fits.
    pub context: Option<usize>,
    /// Sequences of that length at once.
    pub sequences: usize,
    /// What may be taken of memory; `None` does not ask.
    pub memory: Option<Budget>,
}

/// Memory for one model: its weights, keys and values, and what a step works in.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes that there are.
    pub free: u64,
    /// Bytes of them that are meant for this model, where others are still to be loaded.
    pub share: u64,
    /// Whether sequences may share pages for fewer of them at full length: they wait for each other then.
    pub fewer: bool,
    /// Tokens of the largest step.
    pub rows: usize,
}

/// What cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The context is longer than the model was made for.
    #[error("a context of {asked} tokens was asked for, the model has {has}")]
    Context {
        /// Tokens asked for.
        asked: usize,
        /// The model's own.
        has: usize,
    },
    /// Too little memory.
    #[error("{plan} need {} of memory, {} may be taken", Mib(plan.total()), Mib(*free))]
    Memory {
        /// What would be taken for what was asked for.
        plan: Box<Plan>,
        /// Bytes that there are.
        free: u64,
    },
    /// More keys and values than the device can hold, whatever memory it has.
    #[error("{tokens} tokens of context were asked for, the device can hold keys and values of {most}")]
    Device {
        /// Tokens of all sequences that do not share.
        tokens: usize,
        /// Tokens that it can hold.
        most: usize,
    },
}

/// What a model needs, whatever there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of the weights: as they lie in the files, and what is made of them at load.
    pub weights: u64,
    /// Bytes of a page of keys and values, of each kind; 0 of one that the model has no use for.
    pub page: [u64; PageKind::COUNT],
    /// How many pages of each kind the device can hold, whatever memory it has.
    pub most: [usize; PageKind::COUNT],
    /// How many positions the layers that see a window see.
    pub window: usize,
    /// Bytes of activations and logits in the largest step.
    pub workspace: u64,
    /// Tokens that the model was made for.
    pub context: usize,
}

/// What a model may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As in [`Needs`].
    pub weights: u64,
    /// As in [`Needs`].
    pub workspace: u64,
    /// As in [`Needs`].
    pub page: [u64; PageKind::COUNT],
    /// Pages of keys and values, which take memory when they are first used.
    pub pages: [usize; PageKind::COUNT],
    /// Positions that they are for.
    pub tokens: usize,
    /// Tokens of the largest step.
    pub rows: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// The model's own.
    pub own: usize,
}

impl Plan {
    /// As much as is asked for, or as fits. Memory is cut in this order: fewer sequences at full length where they
    /// may share, then a shorter context where none was asked for.
    pub fn new(needs: Needs, room: &Room) -> Result<Plan, PlanError> {
        let own = needs.context;
        if let Some(asked) = room.context
            && asked > own
        {
            return Err(PlanError::Context { asked, has: own });
        }
        let context = room.context.unwrap_or(own);
        let one = pages_for(context);
        let all = one.saturating_mul(room.sequences);
        let Needs { weights, page, workspace, most, .. } = needs;
        let rows = room.memory.map_or(usize::MAX, |budget| budget.rows);
        // Of windows as many as all sequences can hold of them at once.
        let window = most_pages(needs.window, rows).min(one);
        let windows = window.saturating_mul(room.sequences).min(most[WINDOW]);
        let plan = |pages: usize, context| {
            let of = |kind: usize, n: usize| if page[kind] == 0 { 0 } else { n };
            let tokens = pages.saturating_mul(PAGE);
            let pages = [of(ALL, pages), of(WINDOW, pages.min(windows))];
            Plan { weights, workspace, page, pages, tokens, rows, context, own }
        };
        let plenty = Budget { free: u64::MAX, share: u64::MAX, fewer: false, rows };
        let budget = room.memory.unwrap_or(plenty);

        let apart = if budget.fewer { 1 } else { room.sequences };
        // Where the device holds no whole windows, every position takes a page of them too.
        let whole = page[WINDOW] == 0 || windows >= window.saturating_mul(apart);
        let most = if whole { most[ALL] } else { windows.min(most[ALL]) };
        // Positions take a page of each kind until there are enough of windows.
        let fits = |bytes: u64| {
            let left = bytes.saturating_sub(weights).saturating_sub(workspace);
            let both = left / page[ALL].saturating_add(page[WINDOW]).max(1);
            let rest = left.saturating_sub(page[WINDOW].saturating_mul(windows as u64));
            let more = rest.checked_div(page[ALL]).unwrap_or(u64::MAX);
            let pages = if both < windows as u64 { both } else { more };
            usize::try_from(pages).unwrap_or(usize::MAX).min(most)
        };
        // What the model is not to go without, though others then find less than their share.
        let wanted = one.saturating_mul(apart);
        let shortest = pages_for(LEAST_CONTEXT).saturating_mul(apart);
        let least = if room.context.is_some() { wanted } else { wanted.min(shortest) };
        let pages = all.min(fits(budget.share).max(least.min(fits(budget.free))));
        if pages >= wanted {
            return Ok(plan(pages, context));
        }
        let each = pages / apart.max(1);
        if room.context.is_some() || each == 0 {
            let pages = if room.context.is_some() { wanted } else { apart };
            if pages > most {
                let most = most.saturating_mul(PAGE);
                return Err(PlanError::Device { tokens: pages.saturating_mul(PAGE), most });
            }
            return Err(PlanError::Memory { plan: Box::new(plan(pages, context)), free: budget.free });
        }
        Ok(plan(each * apart, each * PAGE))
    }

    /// Bytes of all pages.
    pub fn kv(&self) -> u64 {
        let of = |(page, n): (&u64, usize)| page.saturating_mul(n as u64);
        self.page.iter().zip(self.pages).map(of).fold(0, u64::saturating_add)
    }

    /// Bytes of everything.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.workspace).saturating_add(self.kv())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens;
        let (weights, workspace) = (Mib(self.weights), Mib(self.workspace));
        write!(
            f,
            "{weights} of weights, {workspace} to work in, {} of keys and values for {tokens} tokens",
            Mib(self.kv())
        )
    }
}

/// Bytes in MiB, or in GiB where there are many.
pub(crate) struct Mib(pub u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 as f64 / f64::from(1 << 20);
        if mib < 1000.0 { write!(f, "{mib:.1} MiB") } else { write!(f, "{:.1} GiB", mib / 1024.0) }
    }
}

/// What a loaded model may take, and how much of it is taken already. It is the model's; whoever plans for several
/// models keeps a weak handle to each.
#[derive(Debug)]
pub struct Claim {
    /// What was planned.
    pub plan: Plan,
    touched: [AtomicUsize; PageKind::COUNT],
}

impl Claim {
    /// Of a plan of which nothing is taken yet.
    pub fn new(plan: Plan) -> Claim {
        Claim { plan, touched: Default::default() }
    }

    /// Pages that have been used up to now.
    pub(crate) fn touch(&self, pages: [usize; PageKind::COUNT]) {
        self.touched.iter().zip(pages).for_each(|(touched, n)| touched.store(n, Ordering::Relaxed));
    }

    /// Bytes that the model may still take of what the system calls available. Mapped weights count as a whole: the
    /// system could give their pages up at any time and so calls them available, but the model would crawl.
    pub fn outstanding(&self) -> u64 {
        let pages = self.touched.each_ref().map(|touched| touched.load(Ordering::Relaxed));
        self.plan.total().saturating_sub(Plan { pages, ..self.plan }.kv())
    }
}

/// Slots of states, each of which takes `each` bytes: every sequence has its own, and there are some to go back to from a
/// draft and for what is put aside for later. Where sequences may wait for each other there are fewer of them, rather
/// than that more than a quarter of the memory goes to states.
pub(crate) fn states_for(room: &Room, each: u64) -> usize {
    let all = slots(room.sequences);
    match room.memory {
        Some(Budget { free, fewer: true, .. }) => {
            let fit = usize::try_from(free / 4 / each.max(1)).unwrap_or(usize::MAX);
            all.min(fit.max(slots(1)))
        }
        _ => all,
    }
}

/// Slots that so many sequences need to run at once.
pub(crate) const fn slots(sequences: usize) -> usize {
    sequences.saturating_add(sequences / 2).saturating_add(5)
}

impl Budget {
    /// All that is free, for one model alone.
    pub fn of(free: u64, rows: usize) -> Budget {
        Budget { free, share: free, fewer: false, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page is 10 bytes, weights and workspace 100 together; the context is 8192 tokens, 128 pages.
    const NEEDS: Needs =
        Needs { weights: 70, page: [10, 0], most: MOST, window: usize::MAX, workspace: 30, context: 8192 };
    const MOST: [usize; 2] = [usize::MAX; 2];

    fn planned(
        context: Option<usize>,
        sequences: usize,
        free: u64,
        share: u64,
        fewer: bool,
    ) -> Option<(usize, usize)> {
        let room = Room { context, sequences, memory: Some(Budget { free, share, fewer, rows: 1 }) };
        Plan::new(NEEDS, &room).ok().map(|plan| (plan.pages[ALL], plan.context))
    }

    #[test]
    fn enough_for_all() {
        let room = Room { context: None, sequences: 16, memory: None };
        let plan = Plan::new(NEEDS, &room).unwrap();
        assert_eq!((plan.pages[ALL], plan.context, plan.kv(), plan.total()), (16 * 128, 8192, 20480, 20580));
        assert_eq!(planned(None, 16, 1 << 30, 1 << 30, true), Some((16 * 128, 8192)));
        assert_eq!(planned(Some(100), 4, 180, 180, false), Some((8, 100)));
    }

    #[test]
    fn too_little() {
        // Fewer sequences at once, as long as one has its whole context.
        assert_eq!(planned(None, 16, 10_000, 10_000, true), Some((990, 8192)));
        assert_eq!(planned(None, 16, 1380, 1380, true), Some((128, 8192)));
        // Then a shorter context, if none was asked for.
        assert_eq!(planned(None, 16, 1379, 1379, true), Some((127, 127 * 64)));
        assert_eq!(planned(Some(8192), 16, 1379, 1379, true), None);
        assert_eq!(planned(None, 16, 110, 110, true), Some((1, 64)));
        assert_eq!(planned(None, 16, 109, 109, true), None);
        // Sequences that do not share need a context each.
        assert_eq!(planned(None, 4, 10_000, 10_000, false), Some((4 * 128, 8192)));
        assert_eq!(planned(None, 4, 1380, 1380, false), Some((128, 32 * 64)));
        assert_eq!(planned(Some(8192), 4, 1380, 1380, false), None);
        assert_eq!(planned(None, 4, 130, 130, false), None);
    }

    #[test]
    fn a_share() {
        // No more than the share, while the context is not too short in it.
        assert_eq!(planned(None, 16, 10_000, 5_000, true), Some((490, 8192)));
        assert_eq!(planned(None, 16, 10_000, 1_000, true), Some((90, 90 * 64)));
        // 4096 tokens are taken of what there is, and a context that was asked for.
        assert_eq!(planned(None, 16, 10_000, 200, true), Some((64, 4096)));
        assert_eq!(planned(Some(8192), 16, 10_000, 200, true), Some((128, 8192)));
        assert_eq!(planned(Some(8192), 16, 1_000, 200, true), None);
        assert_eq!(planned(None, 16, 300, 200, true), Some((20, 20 * 64)));
    }

    #[test]
    fn windows() {
        // 8192 tokens, of which some layers see 1000; a step has 512 at most.
        let needs = Needs { page: [10, 20], window: 1000, ..NEEDS };
        let planned = |sequences, free, fewer| {
            let budget = Budget { free, share: free, fewer, rows: 512 };
            let room = Room { context: None, sequences, memory: Some(budget) };
            Plan::new(needs, &room).ok().map(|plan| (plan.pages, plan.context, plan.kv()))
        };
        // (1000 + 512) / 64 pages, and three more at the ends.
        assert_eq!(planned(1, 1 << 30, false), Some(([128, 27], 8192, 1280 + 540)));
        assert_eq!(planned(4, 1 << 30, false), Some(([512, 108], 8192, 5120 + 2160)));
        // All of the memory, and no more.
        assert_eq!(planned(1, 1920, false), Some(([128, 27], 8192, 1820)));
        assert_eq!(planned(1, 1919, false), Some(([127, 27], 127 * 64, 1810)));
        assert_eq!(planned(1, 100 + 27 * 30, false), Some(([27, 27], 27 * 64, 810)));
        assert_eq!(planned(1, 100 + 5 * 30, false), Some(([5, 5], 5 * 64, 150)));
        assert_eq!(planned(1, 129, false), None);
        // A window of its own for each, though they share the rest.
        assert_eq!(planned(4, 100 + 1280 + 2160, true), Some(([128, 108], 8192, 3440)));
        // Windows alone take no more than they are long.
        let needs = Needs { page: [0, 20], ..needs };
        let room = Room { context: None, sequences: 2, memory: Some(Budget::of(100 + 2 * 27 * 20, 512)) };
        let plan = Plan::new(needs, &room).unwrap();
        assert_eq!((plan.pages, plan.context, plan.tokens), ([0, 54], 8192, 2 * 8192));
        let room = Room { memory: Some(Budget::of(100 + 2 * 10 * 20, 512)), ..room };
        let plan = Plan::new(needs, &room).unwrap();
        assert_eq!((plan.pages, plan.context), ([0, 20], 10 * 64));
    }

    #[test]
    fn what_the_device_holds() {
        let needs = Needs { most: [100, 50], ..NEEDS };
        let planned = |context, sequences, memory| {
            let plan = Plan::new(needs, &Room { context, sequences, memory });
            plan.map(|plan| (plan.pages, plan.context)).map_err(|e| e.to_string())
        };
        let budget = |fewer| Some(Budget { free: 1 << 30, share: 1 << 30, fewer, rows: 512 });
        assert_eq!(planned(None, 1, None), Ok(([100, 0], 6400)));
        assert_eq!(planned(None, 4, budget(false)), Ok(([100, 0], 1600)));
        assert_eq!(planned(None, 4, budget(true)), Ok(([100, 0], 6400)));
        assert_eq!(planned(Some(3200), 4, budget(true)), Ok(([100, 0], 3200)));
        let error = planned(Some(3200), 4, budget(false)).unwrap_err();
        assert_eq!(
            error,
            "12800 tokens of context were asked for, the device can hold keys and values of 6400"
        );
        // 27 pages of windows for each: fewer sequences at once, then as many positions as there are pages of windows.
        let planned = |most, fewer| {
            let needs = Needs { page: [10, 20], window: 1000, most: [1000, most], ..NEEDS };
            let plan = Plan::new(needs, &Room { context: None, sequences: 4, memory: budget(fewer) });
            plan.map(|plan| (plan.pages, plan.context)).ok()
        };
        assert_eq!(planned(108, false), Some(([512, 108], 8192)));
        assert_eq!(planned(107, true), Some(([512, 107], 8192)));
        assert_eq!(planned(107, false), Some(([104, 104], 26 * 64)));
        assert_eq!(planned(26, true), Some(([26, 26], 26 * 64)));
    }

    #[test]
    fn states() {
        let states = |sequences, free, fewer| {
            let budget = Budget { free, share: free, fewer, rows: 1 };
            states_for(&Room { context: None, sequences, memory: Some(budget) }, 10)
        };
        assert_eq!(states(16, 1 << 30, true), 16 + 8 + 5);
        assert_eq!(states(16, 10 * 4 * 20, true), 20);
        assert_eq!(states(16, 0, true), 6);
        // Who cannot wait has what it needs.
        assert_eq!(states(16, 0, false), 29);
    }

    #[test]
    fn what_is_outstanding() {
        let plan = Plan::new(NEEDS, &Room { context: None, sequences: 1, memory: None }).unwrap();
        let claim = Claim::new(plan);
        assert_eq!(claim.outstanding(), 1380);
        claim.touch([8, 0]);
        assert_eq!(claim.outstanding(), 1300);
        assert_eq!(
            plan.to_string(),
            "0.0 MiB of weights, 0.0 MiB to work in, 0.0 MiB of keys and values for 8192 tokens"
        );
    }
}
