//! What loaded models may still take of memory, so that the next one is planned with what they leave.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tessera_engine::plan::Budget;
use tessera_engine::plan::Claim;

/// Part of the free memory that models may take; the rest is for everything else.
const SHARE: f64 = 0.9;

/// Whose memory a model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The system's.
    System,
    /// That of an adapter, which has its own.
    #[cfg(feature = "gpu")]
    Adapter(String),
}

/// A model that is loaded.
struct Entry {
    folder: PathBuf,
    place: Place,
    claim: Weak<Claim>,
}

/// The models of this process.
pub struct Ledger {
    entries: Mutex<Vec<Entry>>,
    /// Most models that are loaded at once.
    models: usize,
    /// Bytes that all of them may take, where that was said.
    most: Option<u64>,
}

/// The ledger while one model is planned and loaded: two at once would count on the same memory.
pub struct Open<'a> {
    entries: MutexGuard<'a, Vec<Entry>>,
    ledger: &'a Ledger,
}

impl Ledger {
    /// For so many models, which may take `most` bytes together, or what is free.
    pub fn new(models: usize, most: Option<u64>) -> Ledger {
        Ledger { entries: Mutex::default(), models, most }
    }

    /// Waits for a model that is being loaded.
    pub fn open(&self) -> Open<'_> {
        let mut entries = self.entries.lock().unwrap_or_else(|e| e.into_inner());
        entries.retain(|entry| entry.claim.strong_count() > 0);
        Open { entries, ledger: self }
    }
}

impl Open<'_> {
    /// What a model whose largest step has `rows` tokens may take of a place that tells of `free` bytes; `None` where
    /// nobody tells what there is.
    pub fn budget(&self, place: &Place, free: Option<u64>, fewer: bool, rows: usize) -> Option<Budget> {
        let free = match self.ledger.most {
            Some(most) => most.saturating_sub(self.taken(place, |claim| claim.plan.total())),
            None => {
                let free = (free? as f64 * SHARE) as u64;
                match place {
                    Place::System => free.saturating_sub(self.taken(place, Claim::outstanding)),
                    // There everything is taken at load.
                    #[cfg(feature = "gpu")]
                    Place::Adapter(_) => free,
                }
            }
        };
        let to_come = self.ledger.models.saturating_sub(self.entries.len()).max(1);
        Some(Budget { free, share: free / to_come as u64, fewer, rows })
    }

    /// Bytes of all that are loaded in a place, where a folder that is loaded twice is mapped once.
    fn taken(&self, place: &Place, of: impl Fn(&Claim) -> u64) -> u64 {
        let mut mapped: Vec<&Path> = Vec::new();
        let mut taken = 0u64;
        for entry in self.entries.iter().filter(|entry| entry.place == *place) {
            let Some(claim) = entry.claim.upgrade() else { continue };
            taken = taken.saturating_add(of(&claim));
            if *place == Place::System && mapped.contains(&&*entry.folder) {
                taken = taken.saturating_sub(claim.plan.weights);
            }
            mapped.push(&entry.folder);
        }
        taken
    }

    /// The model was loaded.
    pub fn enter(mut self, folder: &Path, place: Place, claim: &Arc<Claim>) {
        let (folder, claim) = (folder.to_owned(), Arc::downgrade(claim));
        self.entries.push(Entry { folder, place, claim });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_engine::plan::Plan;

    /// What a model claims that has 100 pages of 10 bytes.
    fn claim(weights: u64) -> Arc<Claim> {
        let (workspace, page, pages) = (50, [10, 0], [100, 0]);
        let (tokens, context, own) = (6400, 6400, 6400);
        Arc::new(Claim::new(Plan { weights, workspace, page, pages, tokens, rows: 512, context, own }))
    }

    fn budget(ledger: &Ledger, free: u64) -> (u64, u64) {
        let budget = ledger.open().budget(&Place::System, Some(free * 10 / 9), true, 512).unwrap();
        (budget.free, budget.share)
    }

    #[test]
    fn a_model_is_planned_with_what_the_others_leave() {
        let ledger = Ledger::new(3, None);
        assert_eq!(budget(&ledger, 9000), (9000, 3000));
        let (a, b) = (claim(500), claim(700));
        ledger.open().enter(Path::new("a"), Place::System, &a);
        assert_eq!(budget(&ledger, 9000), (7450, 3725));
        ledger.open().enter(Path::new("b"), Place::System, &b);
        assert_eq!(budget(&ledger, 9000), (5700, 5700));
        assert_eq!(budget(&ledger, 3000), (0, 0));
        drop(a);
        assert_eq!(budget(&ledger, 9000), (7250, 3625));
        // A folder that is served under two names is mapped once.
        ledger.open().enter(Path::new("b"), Place::System, &claim(700));
        let again = claim(700);
        ledger.open().enter(Path::new("b"), Place::System, &again);
        assert_eq!(budget(&ledger, 9000), (9000 - 700 - 2 * 1050, 6200));
    }

    #[test]
    fn what_was_said_is_the_limit() {
        let ledger = Ledger::new(1, Some(9000));
        assert_eq!(budget(&ledger, 100), (9000, 9000));
        let a = claim(500);
        ledger.open().enter(Path::new("a"), Place::System, &a);
        assert_eq!(budget(&ledger, 100), (9000 - 1550, 9000 - 1550));
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn an_adapter_has_its_own() {
        let (one, other) = (Place::Adapter("one".to_owned()), Place::Adapter("other".to_owned()));
        let (a, ledger) = (claim(500), Ledger::new(1, None));
        ledger.open().enter(Path::new("a"), one.clone(), &a);
        assert_eq!(budget(&ledger, 9000), (9000, 9000));
        // What is loaded there is not free any more.
        let free =
            |ledger: &Ledger, place, told| ledger.open().budget(place, told, true, 512).map(|b| b.free);
        assert_eq!(free(&ledger, &one, Some(10_000)), Some(9000));
        assert_eq!(free(&ledger, &one, None), None);
        let ledger = Ledger::new(1, Some(9000));
        ledger.open().enter(Path::new("a"), one.clone(), &a);
        assert_eq!(free(&ledger, &one, None), Some(9000 - 1550));
        assert_eq!(free(&ledger, &other, None), Some(9000));
    }
}
