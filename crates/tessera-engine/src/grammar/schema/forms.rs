//! What a schema says, as a union of forms that are each about values of one type.
//!
//! Types of JSON values exclude each other, so the meeting of two unions is that of their forms of the same
//! type. Parts of lists and objects stay *sets* of signed schemas, whose forms are made when they are asked
//! for: so schemas that refer to themselves have an end.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A schema that holds, or one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Term {
    /// Number of the schema; see [`super::algebra::Algebra`].
    pub source: u32,
    pub holds: bool,
}

/// The schema that nothing satisfies.
pub(super) const NEVER: Term = Term { source: 0, holds: true };

/// Schemas that all hold; none: anything does. Sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Set(Vec<Term>);

impl Set {
    pub fn never() -> Set {
        Set(vec![NEVER])
    }

    pub fn one(term: Term) -> Set {
        Set(vec![term])
    }

    pub fn terms(&self) -> &[Term] {
        &self.0
    }

    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set excludes everything on its face.
    pub fn is_never(&self) -> bool {
        self.0.contains(&NEVER) || self.0.windows(2).any(|two| two[0].source == two[1].source)
    }

    pub fn and(&self, other: &Set) -> Set {
        let mut terms: Vec<Term> = self.0.iter().chain(&other.0).copied().collect();
        terms.sort_unstable();
        terms.dedup();
        let set = Set(terms);
        if set.is_never() { Set::never() } else { set }
    }
}

/// Something that a mask cannot hold to: an error if a form that carries it is left in the end. Literals
/// can be judged by it all the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Doubt {
    pub kind: DoubtKind,
    pub pointer: String,
    pub keyword: &'static str,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum DoubtKind {
    /// Not matched by the pattern.
    NotPattern(String),
    /// Not a whole number.
    NotWhole,
    /// Not a multiple.
    NotMultiple(f64),
    /// Two items are equal.
    NotUnique,
    /// Not even literals can be judged.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Number {
    /// The bound, and whether it is excluded.
    pub least: Option<(f64, bool)>,
    pub most: Option<(f64, bool)>,
    pub whole: bool,
    pub multiples: Vec<f64>,
    pub excluded: Vec<f64>,
    pub doubts: Vec<Doubt>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text {
    pub min: u64,
    pub max: Option<u64>,
    /// Anchored, in the form that [`crate::grammar::pattern::whole`] writes.
    pub patterns: BTreeSet<String>,
    pub excluded: BTreeSet<String>,
    pub doubts: Vec<Doubt>,
}

/// So many items that satisfy a set; where the keyword is, for messages.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contains {
    pub set: Set,
    pub without: Set,
    pub min: u64,
    pub max: Option<u64>,
    pub pointer: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct List {
    pub first: Vec<Set>,
    pub rest: Set,
    pub min: u64,
    pub max: Option<u64>,
    pub unique: bool,
    pub unique_pointer: String,
    pub contains: Vec<Contains>,
    pub doubts: Vec<Doubt>,
    /// How many items the schema has looked at, for `unevaluatedItems`.
    pub seen: Seen<usize>,
}

/// What part of a value adjacent keywords have looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen<T> {
    Some(T),
    All,
}

impl<T: Default> Default for Seen<T> {
    fn default() -> Seen<T> {
        Seen::Some(T::default())
    }
}

/// Which members a need is about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Among {
    /// Those whose names a pattern matches.
    Pattern(String),
    /// Those that no name and no pattern lists.
    Others(BTreeSet<String>, BTreeSet<String>),
    /// Those whose name satisfies the set; the need is about the name.
    Names,
}

/// At least one member of that kind satisfies the set.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Need {
    pub among: Among,
    pub set: Set,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object {
    /// In the order of the schema.
    pub props: Vec<(String, Set)>,
    pub patterns: BTreeMap<String, Set>,
    pub rest: Set,
    /// In the order of the schema.
    pub required: Vec<String>,
    pub min: u64,
    pub max: Option<u64>,
    /// Of every name.
    pub names: Set,
    pub names_pointer: String,
    pub needs: Vec<Need>,
    pub doubts: Vec<Doubt>,
    /// Whether the schema says something about names that it does not list.
    pub asked: bool,
    /// Whether it lists any.
    pub lists: bool,
    pub seen: Seen<(BTreeSet<String>, BTreeSet<String>)>,
    /// Where it says how many members there are.
    pub counts_pointer: String,
}

/// Values of one type; literals may be of several.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form<'a> {
    Null,
    /// Either, or one of them.
    Bool(Option<bool>),
    Number(Number),
    Text(Text),
    List(List),
    Object(Object),
    Literals(Vec<&'a Value>),
}

/// A union.
pub(super) type Forms<'a> = Vec<Form<'a>>;

/// All values.
pub(super) fn everything<'a>() -> Forms<'a> {
    vec![
        Form::Null,
        Form::Bool(None),
        Form::Number(Number::default()),
        Form::Text(Text::default()),
        Form::List(List::default()),
        Form::Object(Object::default()),
    ]
}

/// Whether two JSON values are the same to JSON Schema: 1 is 1.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

impl Number {
    pub fn and(mut self, other: &Number) -> Number {
        // Of two equal bounds the one that excludes is the narrower.
        let tighter = |a: Option<(f64, bool)>, b: Option<(f64, bool)>, sign: f64| match (a, b) {
            (Some(a), Some(b)) if (sign * b.0, b.1) > (sign * a.0, a.1) => Some(b),
            (None, b) => b,
            (a, _) => a,
        };
        self.least = tighter(self.least, other.least, 1.0);
        self.most = tighter(self.most, other.most, -1.0);
        self.whole |= other.whole;
        for multiple in &other.multiples {
            if !self.multiples.contains(multiple) {
                self.multiples.push(*multiple);
            }
        }
        self.excluded.extend(&other.excluded);
        self.doubts.extend(other.doubts.iter().cloned());
        self
    }

    pub fn is_empty(&self) -> bool {
        let (Some((least, open)), Some((most, end))) = (self.least, self.most) else { return false };
        if least > most || (least == most && (open || end || self.excluded.contains(&least))) {
            return true;
        }
        let first = if open && least.fract() == 0.0 { least + 1.0 } else { least.ceil() };
        let last = if end && most.fract() == 0.0 { most - 1.0 } else { most.floor() };
        self.whole && first > last
    }

    pub fn takes(&self, value: f64) -> bool {
        self.least.is_none_or(|(least, open)| value > least || (value == least && !open))
            && self.most.is_none_or(|(most, end)| value < most || (value == most && !end))
            && (!self.whole || value.fract() == 0.0)
            && self.multiples.iter().all(|m| is_multiple(value, *m))
            && !self.excluded.contains(&value)
    }
}

/// Decimal fractions are no exact f64, so a quotient near a whole number is taken for one.
pub(super) fn is_multiple(value: f64, of: f64) -> bool {
    let quotient = value / of;
    (quotient - quotient.round()).abs() <= 1e-9 * quotient.abs().max(1.0)
}

fn fewer(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Text {
    pub fn and(mut self, other: &Text) -> Text {
        self.min = self.min.max(other.min);
        self.max = fewer(self.max, other.max);
        self.patterns.extend(other.patterns.iter().cloned());
        self.excluded.extend(other.excluded.iter().cloned());
        self.doubts.extend(other.doubts.iter().cloned());
        self
    }
}

impl List {
    /// What item `i` has to be.
    pub fn item(&self, i: usize) -> &Set {
        self.first.get(i).unwrap_or(&self.rest)
    }

    pub fn and(mut self, other: &List) -> List {
        let len = self.first.len().max(other.first.len());
        self.first = (0..len).map(|i| self.item(i).and(other.item(i))).collect();
        self.rest = self.rest.and(&other.rest);
        self.min = self.min.max(other.min);
        self.max = fewer(self.max, other.max);
        if !self.unique {
            self.unique_pointer.clone_from(&other.unique_pointer);
        }
        self.unique |= other.unique;
        self.contains.extend(other.contains.iter().cloned());
        self.doubts.extend(other.doubts.iter().cloned());
        self.seen = match (self.seen, &other.seen) {
            (Seen::Some(a), Seen::Some(b)) => Seen::Some(a.max(*b)),
            _ => Seen::All,
        };
        self
    }
}
