//! What loaded models may still take of memory, so that the next one is planned with what they leave.

use crate::machine::memory;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use tessera_engine::plan::Budget;
use tessera_engine::plan::Claim;

/// Part of the free memory that models may take; the rest is for everything else.
const SHARE: f64 = 0.9;

/// The models of this process.
pub struct Ledger {
    claims: Mutex<Vec<(PathBuf, Weak<Claim>)>>,
    /// Most models that are loaded at once.
    models: usize,
}

/// The ledger while one model is planned and loaded: two at once would count on the same memory.
pub struct Open<'a> {
    claims: MutexGuard<'a, Vec<(PathBuf, Weak<Claim>)>>,
    models: usize,
}

impl Ledger {
    /// For so many models.
    pub fn new(models: usize) -> Ledger {
        Ledger { claims: Mutex::default(), models }
    }

    /// Waits for a model that is being loaded.
    pub fn open(&self) -> Open<'_> {
        let mut claims = self.claims.lock().unwrap_or_else(|e| e.into_inner());
        claims.retain(|(_, claim)| claim.strong_count() > 0);
        Open { claims, models: self.models }
    }
}

impl Open<'_> {
    /// What a model whose largest step has `rows` tokens may take; `None` where the system does not tell what there is.
    pub fn budget(&self, fewer: bool, rows: usize) -> Option<Budget> {
        let free = (memory().free()? as f64 * SHARE) as u64;
        Some(self.of(free, fewer, rows))
    }

    fn of(&self, free: u64, fewer: bool, rows: usize) -> Budget {
        let mut folders: Vec<&Path> = Vec::new();
        let mut taken = 0u64;
        for (folder, claim) in &*self.claims {
            let Some(claim) = claim.upgrade() else { continue };
            taken = taken.saturating_add(claim.outstanding());
            // The same file is mapped once, however many models are made of it.
            if folders.contains(&&**folder) {
                taken = taken.saturating_sub(claim.plan.weights);
            }
            folders.push(folder);
        }
        let free = free.saturating_sub(taken);
        let to_come = self.models.saturating_sub(folders.len()).max(1);
        Budget { free, share: free / to_come as u64, fewer, rows }
    }

    /// The model was loaded.
    pub fn enter(mut self, folder: &Path, claim: &Arc<Claim>) {
        self.claims.push((folder.to_owned(), Arc::downgrade(claim)));
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
        let budget = ledger.open().of(free, true, 512);
        (budget.free, budget.share)
    }

    #[test]
    fn a_model_is_planned_with_what_the_others_leave() {
        let ledger = Ledger::new(3);
        assert_eq!(budget(&ledger, 9000), (9000, 3000));
        let (a, b) = (claim(500), claim(700));
        ledger.open().enter(Path::new("a"), &a);
        assert_eq!(budget(&ledger, 9000), (7450, 3725));
        ledger.open().enter(Path::new("b"), &b);
        assert_eq!(budget(&ledger, 9000), (5700, 5700));
        assert_eq!(budget(&ledger, 3000), (0, 0));
        drop(a);
        assert_eq!(budget(&ledger, 9000), (7250, 3625));
        // A folder that is served under two names is mapped once.
        ledger.open().enter(Path::new("b"), &claim(700));
        let again = claim(700);
        ledger.open().enter(Path::new("b"), &again);
        assert_eq!(budget(&ledger, 9000), (9000 - 700 - 2 * 1050, 6200));
    }
}
