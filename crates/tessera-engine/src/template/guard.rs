//! That no value of a template nests without end, contains itself or is longer than what was paid for.
//!
//! A value that is nested deeply overflows the stack when it is shown, compared or dropped; one that puts off its
//! work (a sum of lists, a slice of a slice) grows twice as long with each step and costs nothing until it is
//! used. `{% set %}` is the one way for a value to come back into what it is made of, so [`super::source`] sends
//! each value that is set through here.

use super::arguments::{fail, items};
use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Environment, Error, State};
use std::cell::Cell;
use std::sync::LazyLock;

/// Names of the filters, which no template uses.
pub(super) const HELD: &str = "__held";
pub(super) const KEPT: &str = "__kept";

/// Levels of lists and dictionaries in a value. Messages and tools have less than twenty.
const MAX_LEVELS: usize = 64;
/// Items that are looked at for one unit of fuel.
const ITEMS: u32 = 8;

/// The name of the type of plain dictionaries.
static PLAIN_MAP: LazyLock<&str> = LazyLock::new(|| {
    let map = Value::from_pairs([("a", 1)]);
    map.as_object().map_or("", |map| map.type_name())
});

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter(HELD, |state: &State, value: Value| held(state, value));
    environment.add_filter(KEPT, |state: &State, value: Value| kept(state, value));
}

/// A value for a name of the template.
pub(super) fn held(state: &State, value: Value) -> Result<Value, Error> {
    let walk = Walk { state, data: false, seen: Cell::new(0) };
    Ok(walk.whole(&value, 0)?.unwrap_or(value))
}

/// A value for a field of a namespace, which every pass of a loop may set again: data only. A macro, a loop or a
/// namespace holds others that are not seen, itself perhaps.
pub(super) fn kept(state: &State, value: Value) -> Result<Value, Error> {
    let walk = Walk { state, data: true, seen: Cell::new(0) };
    Ok(walk.whole(&value, 0)?.unwrap_or(value))
}

struct Walk<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    data: bool,
    seen: Cell<u32>,
}

impl Walk<'_, '_, '_> {
    /// The value with everything in it that was put off; `None` where there is no such thing.
    fn whole(&self, value: &Value, level: usize) -> Result<Option<Value>, Error> {
        let kind = value.kind();
        let simple = matches!(
            kind,
            ValueKind::Undefined
                | ValueKind::None
                | ValueKind::Bool
                | ValueKind::Number
                | ValueKind::String
                | ValueKind::Bytes
                | ValueKind::Invalid
        );
        self.seen.set(self.seen.get() + 1);
        if self.seen.get().is_multiple_of(ITEMS) {
            self.state.consume_fuel(1)?;
        }
        if simple {
            return Ok(None);
        }
        if level >= MAX_LEVELS {
            return Err(fail(format!("a value of more than {MAX_LEVELS} levels")));
        }
        if let Some(list) = value.downcast_object_ref::<Vec<Value>>() {
            return Ok(self.list(list, level)?.map(Value::from));
        }
        let type_name = value.as_object().map_or("", |object| object.type_name());
        match kind {
            ValueKind::Seq | ValueKind::Iterable => {
                let list = items(self.state, value)?;
                let changed = self.list(&list, level)?;
                Ok(match value.is_tuple() {
                    // A group has names for its parts.
                    _ if type_name.ends_with("GroupTuple") => None,
                    true => changed.map(|list| Value::from(Tuple::from(list))),
                    false => Some(Value::from(changed.unwrap_or(list))),
                })
            }
            ValueKind::Map if type_name == *PLAIN_MAP => self.map(value, level),
            ValueKind::Map if type_name.ends_with("::Namespace") && !self.data => {
                // What it holds was looked at when it was put there.
                self.map(value, level).map(|_| None)
            }
            ValueKind::Map if ["MergeDict", "KwargsValues"].iter().any(|name| type_name.ends_with(name)) => {
                let keys = items(self.state, value)?;
                let pairs = keys.into_iter().map(|key| value.get_item(&key).map(|item| (key, item)));
                let plain = Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?);
                Ok(Some(self.map(&plain, level)?.unwrap_or(plain)))
            }
            _ if self.data => Err(fail("a namespace takes data only")),
            _ => Ok(None),
        }
    }

    fn list(&self, list: &[Value], level: usize) -> Result<Option<Vec<Value>>, Error> {
        let mut changed: Option<Vec<Value>> = None;
        for (at, item) in list.iter().enumerate() {
            if let Some(item) = self.whole(item, level + 1)? {
                changed.get_or_insert_with(|| list.to_vec())[at] = item;
            }
        }
        Ok(changed)
    }

    fn map(&self, map: &Value, level: usize) -> Result<Option<Value>, Error> {
        let mut changed = false;
        let mut pairs = Vec::new();
        for key in map.try_iter()? {
            let item = map.get_item(&key)?;
            if let Some(key) = self.whole(&key, level + 1)? {
                return Err(fail(format!("a {} is no key of a dictionary", key.kind())));
            }
            match self.whole(&item, level + 1)? {
                Some(whole) => {
                    changed = true;
                    pairs.push((key, whole));
                }
                None => pairs.push((key, item)),
            }
        }
        Ok(changed.then(|| Value::from_pairs(pairs)))
    }
}
