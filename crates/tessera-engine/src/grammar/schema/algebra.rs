//! The schemas of a request by number, and the forms of sets of them.

use super::forms::{Form, Forms, NEVER, Set, Term, everything, same};
use super::patterns::Patterns;
use super::resources::{Document, Home};
use super::{MAX_DEPTH, MAX_NODES, MAX_TEXT, Mode, unsupported};
use crate::grammar::GrammarError;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Work that meetings of forms may take: about a microsecond each.
const MAX_WORK: u64 = 600_000;
/// Most forms of one schema.
const MAX_FORMS: usize = 2_000;
/// How deep it is looked for members that cannot be.
const LOOK: usize = 6;
/// How many parts of parts are looked at, each for itself, at most.
const MOST_NESTED: usize = 24;
/// Schemas on the way from the root that are being read, the call stack's measure.
const MAX_PATH: usize = if cfg!(feature = "threads") { 150 } else { 70 };

#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Never,
    Schema(&'a Value),
    /// Exactly this value.
    Literal(&'a Value),
}

pub(super) struct Source<'a> {
    pub kind: Kind<'a>,
    pub home: Home,
    /// In the request, for messages.
    pub pointer: String,
}

/// Why there are no forms.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(GrammarError),
    /// They are just being made, further up: nothing is known yet.
    Unknown,
}

impl From<GrammarError> for Stop {
    fn from(error: GrammarError) -> Stop {
        Stop::Refused(error)
    }
}

pub(super) type Found<T> = Result<T, Stop>;

/// See the module.
pub(super) struct Algebra<'a> {
    pub mode: Mode,
    /// Whether a document's root is being written.
    pub at_root: bool,
    /// Where what is being written comes from.
    pub origin: String,
    pub documents: Vec<Document<'a>>,
    pub sources: Vec<Source<'a>>,
    numbers: HashMap<(usize, bool), u32>,
    of_terms: HashMap<Term, Rc<Forms<'a>>>,
    of_sets: HashMap<Set, Rc<Forms<'a>>>,
    lives: HashMap<Set, bool>,
    /// Schemas whose forms may be fewer than what satisfies them, so that no meeting with them proves that
    /// there is nothing in common.
    loose: HashSet<u32>,
    /// Whether such a thing was met since the schema that is being read began.
    pub loosened: bool,
    path: Vec<u32>,
    /// Sets whose forms are being made: they come again where parts of a value are like the whole.
    open: Vec<Set>,
    /// How many parts of parts are being looked at.
    nest: usize,
    /// Where the part of the path begins on which nothing of the value is read.
    here: usize,
    pub patterns: Patterns,
    pub work: u64,
    nodes: usize,
    text: usize,
}

impl<'a> Algebra<'a> {
    pub fn new(mode: Mode) -> Algebra<'a> {
        let home = Home { document: 0, resource: 0, draft: super::dialect::Draft::Twenty };
        Algebra {
            mode,
            at_root: false,
            origin: String::new(),
            documents: Vec::new(),
            sources: vec![Source { kind: Kind::Never, home, pointer: String::new() }],
            numbers: HashMap::new(),
            of_terms: HashMap::new(),
            of_sets: HashMap::new(),
            lives: HashMap::new(),
            loose: HashSet::new(),
            loosened: false,
            path: Vec::new(),
            open: Vec::new(),
            nest: 0,
            here: 0,
            patterns: Patterns::default(),
            work: 0,
            nodes: 0,
            text: 0,
        }
    }

    /// The set of a schema.
    pub fn schema(&mut self, value: &'a Value, home: Home, pointer: impl FnOnce() -> String) -> Found<Set> {
        match value {
            Value::Bool(true) => return Ok(Set::default()),
            Value::Bool(false) => return Ok(Set::never()),
            _ => {}
        }
        Ok(Set::one(Term { source: self.number(Kind::Schema(value), value, home, pointer)?, holds: true }))
    }

    /// The set of one value.
    pub fn literal(&mut self, value: &'a Value, home: Home) -> Found<Set> {
        let source = self.number(Kind::Literal(value), value, home, String::new)?;
        Ok(Set::one(Term { source, holds: true }))
    }

    fn number(
        &mut self,
        kind: Kind<'a>,
        value: &'a Value,
        home: Home,
        pointer: impl FnOnce() -> String,
    ) -> Found<u32> {
        // A value has one place, so its address tells it from others.
        let key = (std::ptr::from_ref(value) as usize, matches!(kind, Kind::Literal(_)));
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        self.count(1)?;
        let number = self.sources.len() as u32;
        self.sources.push(Source { kind, home, pointer: pointer() });
        self.numbers.insert(key, number);
        Ok(number)
    }

    /// The opposite of a set of one schema.
    pub fn not(set: &Set) -> Set {
        match set.terms() {
            [] => Set::never(),
            [NEVER] => Set::default(),
            [term] => Set::one(Term { holds: !term.holds, ..*term }),
            // Sets of several come from meetings only, which are not negated.
            _ => Set::never(),
        }
    }

    pub fn count(&mut self, nodes: usize) -> Found<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let what = "number of sub-schemas, names and values".to_owned();
            return Err(GrammarError::TooLarge { what, found: self.nodes, limit: MAX_NODES }.into());
        }
        Ok(())
    }

    pub fn count_text(&mut self, text: &str) -> Found<()> {
        self.text = self.text.saturating_add(text.len());
        if self.text > MAX_TEXT {
            let what = "bytes of names, patterns and values".to_owned();
            return Err(GrammarError::TooLarge { what, found: self.text, limit: MAX_TEXT }.into());
        }
        Ok(())
    }

    pub fn spend(&mut self, work: usize) -> Found<()> {
        self.work = self.work.saturating_add(work as u64);
        if self.work > MAX_WORK {
            let what = "work of telling the schema's alternatives apart".to_owned();
            return Err(
                GrammarError::TooLarge { what, found: self.work as usize, limit: MAX_WORK as usize }.into()
            );
        }
        Ok(())
    }

    /// The forms of values that satisfy all of a set.
    pub fn forms(&mut self, set: &Set) -> Found<Rc<Forms<'a>>> {
        if set.is_never() {
            return Ok(Rc::new(Vec::new()));
        }
        if let Some(forms) = self.of_sets.get(set) {
            self.loosened |= self.is_loose(set);
            return Ok(forms.clone());
        }
        // A set of one is told by the path.
        if set.terms().len() > 1 && self.open.contains(set) {
            return Err(Stop::Unknown);
        }
        self.open.push(set.clone());
        let made = self.make(set);
        self.open.pop();
        let made = made?;
        self.of_sets.insert(set.clone(), made.clone());
        Ok(made)
    }

    fn make(&mut self, set: &Set) -> Found<Rc<Forms<'a>>> {
        let mut all: Option<Rc<Forms<'a>>> = None;
        for term in set.terms() {
            let forms = self.of_term(*term)?;
            all = Some(match all {
                None => forms,
                Some(before) => Rc::new(self.meet(&before, &forms)?),
            });
        }
        Ok(all.unwrap_or_else(|| Rc::new(everything())))
    }

    fn of_term(&mut self, term: Term) -> Found<Rc<Forms<'a>>> {
        if let Some(forms) = self.of_terms.get(&term) {
            self.loosened |= self.loose.contains(&term.source);
            return Ok(forms.clone());
        }
        let source = &self.sources[term.source as usize];
        let (kind, home) = (source.kind, source.home);
        if let Some(at) = self.path.iter().position(|source| *source == term.source) {
            if at < self.here {
                return Err(Stop::Unknown);
            }
            let message = "a circle of references that reads nothing";
            return Err(unsupported(&source.pointer, "$ref", message).into());
        }
        if self.path.len() - self.here > MAX_DEPTH || self.path.len() > MAX_PATH {
            let what = format!("nesting at {}", source.pointer);
            return Err(GrammarError::TooLarge { what, found: self.path.len(), limit: MAX_DEPTH }.into());
        }
        self.path.push(term.source);
        let loosened = std::mem::take(&mut self.loosened);
        let forms = match (kind, term.holds) {
            (Kind::Never, true) => Ok(Vec::new()),
            (Kind::Never, false) => Ok(everything()),
            (Kind::Schema(value), true) => self.satisfying(value, term.source, home),
            (Kind::Schema(value), false) => self.violating(value, term.source, home),
            (Kind::Literal(value), true) => self.equal(value, home),
            (Kind::Literal(value), false) => self.other_than(&[value], home, term.source),
        };
        self.path.pop();
        if self.loosened {
            self.loose.insert(term.source);
        }
        self.loosened |= loosened;
        let forms = Rc::new(forms?);
        if forms.len() > MAX_FORMS {
            let what = "number of alternatives of a schema".to_owned();
            return Err(GrammarError::TooLarge { what, found: forms.len(), limit: MAX_FORMS }.into());
        }
        self.of_terms.insert(term, forms.clone());
        Ok(forms)
    }

    /// The forms of values that are in both unions; those that cannot be are left out.
    pub fn meet(&mut self, a: &Forms<'a>, b: &Forms<'a>) -> Found<Forms<'a>> {
        let mut out = Vec::new();
        for one in a {
            for other in b {
                let Some(form) = self.both(one, other)? else { continue };
                if self.can_be(&form, LOOK)? {
                    out.push(form);
                }
                if out.len() > MAX_FORMS {
                    self.spend(usize::MAX / 2)?;
                }
            }
        }
        Ok(out)
    }

    fn both(&mut self, a: &Form<'a>, b: &Form<'a>) -> Found<Option<Form<'a>>> {
        self.spend(1)?;
        Ok(Some(match (a, b) {
            (Form::Null, Form::Null) => Form::Null,
            (Form::Bool(a), Form::Bool(b)) if a.is_none() || b.is_none() || a == b => Form::Bool(a.or(*b)),
            (Form::Number(a), Form::Number(b)) => Form::Number(a.clone().and(b)),
            (Form::Text(a), Form::Text(b)) => Form::Text(a.clone().and(b)),
            (Form::List(a), Form::List(b)) => {
                self.spend(a.first.len() + b.first.len())?;
                Form::List(a.clone().and(b))
            }
            (Form::Object(a), Form::Object(b)) => {
                self.spend(a.props.len() + b.props.len())?;
                Form::Object(self.both_objects(a, b)?)
            }
            (Form::Literals(a), Form::Literals(b)) => {
                self.spend(a.len() * b.len() / 8)?;
                let common = a.iter().filter(|a| b.iter().any(|b| same(a, b))).copied().collect::<Vec<_>>();
                return Ok((!common.is_empty()).then_some(Form::Literals(common)));
            }
            (Form::Literals(values), form) | (form, Form::Literals(values)) => {
                self.spend(values.len())?;
                let mut left = Vec::new();
                for value in values {
                    if self.takes(form, value)? {
                        left.push(*value);
                    }
                }
                return Ok((!left.is_empty()).then_some(Form::Literals(left)));
            }
            _ => return Ok(None),
        }))
    }

    /// Whether there may be a value that satisfies the set. False is certain, true is not.
    pub fn can_hold(&mut self, set: &Set, look: usize) -> Found<bool> {
        if set.is_any() {
            return Ok(true);
        }
        if set.is_never() {
            return Ok(false);
        }
        if let Some(known) = self.lives.get(set) {
            return Ok(*known);
        }
        if look == 0 || self.nest >= MOST_NESTED || self.path.len() > MAX_PATH - 20 {
            return Ok(true);
        }
        let forms = match self.aside(|algebra| algebra.forms(set)) {
            Ok(forms) => forms,
            // What is wrong there is told when it is written.
            Err(Stop::Unknown | Stop::Refused(GrammarError::Schema { .. })) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut lives = false;
        for form in forms.iter() {
            lives = lives || self.can_be(form, look - 1)?;
        }
        let lives = lives || self.is_loose(set);
        self.lives.insert(set.clone(), lives);
        Ok(lives)
    }

    /// Whether more may satisfy a set than its forms say.
    pub fn is_loose(&self, set: &Set) -> bool {
        set.terms().iter().any(|term| self.loose.contains(&term.source))
    }

    /// Looks at a part of the value while the whole is being read.
    pub fn aside<T>(&mut self, look: impl FnOnce(&mut Algebra<'a>) -> Found<T>) -> Found<T> {
        let here = std::mem::replace(&mut self.here, self.path.len());
        let loosened = self.loosened;
        self.nest += 1;
        let found = look(self);
        self.nest -= 1;
        (self.here, self.loosened) = (here, loosened);
        found
    }
}
