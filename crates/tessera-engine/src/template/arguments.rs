//! Arguments of functions, filters and methods as Python takes them: by place or by name.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind, State};

/// An error of the template with what is wrong.
pub(super) fn fail(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Pays for a text of `bytes` before it is made.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// The items of a value, each paid for: a sum of lists may be far longer than what is stored.
pub(super) fn items(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    if let Some(length) = value.len() {
        state.consume_fuel(length as u64)?;
        return Ok(value.try_iter()?.collect());
    }
    let mut found = Vec::new();
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        found.push(item);
    }
    Ok(found)
}

/// A value as text, as Jinja shows it.
pub(super) fn text(state: &State, value: &Value) -> Result<String, Error> {
    let shown = minijinja::filters::string(state, value)?;
    Ok(shown.as_str().unwrap_or_default().to_owned())
}

/// Arguments in the order of their parameters.
pub(super) struct Arguments<const N: usize> {
    names: [&'static str; N],
    values: [Option<Value>; N],
}

impl<const N: usize> Arguments<N> {
    /// Binds arguments to parameters; one too many and an unknown name are errors.
    pub(super) fn bind(arguments: &[Value], names: [&'static str; N]) -> Result<Self, Error> {
        let mut values = [const { None }; N];
        let (named, placed) = match arguments.split_last() {
            Some((last, rest)) if last.is_kwargs() => (Some(Kwargs::try_from(last.clone())?), rest),
            _ => (None, arguments),
        };
        if placed.len() > N {
            return Err(fail(format!("at most {N} arguments are taken, {} were given", placed.len())));
        }
        for (slot, value) in values.iter_mut().zip(placed) {
            *slot = Some(value.clone());
        }
        if let Some(named) = named {
            for name in named.args() {
                let at = names.iter().position(|known| *known == name);
                let at = at.ok_or_else(|| fail(format!("there is no argument {name:?}")))?;
                if values[at].is_some() {
                    return Err(fail(format!("the argument {name:?} is given twice")));
                }
                values[at] = Some(named.peek::<Value>(name)?);
            }
        }
        Ok(Arguments { names, values })
    }

    /// An argument; none and a missing one are the same.
    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.values[at].as_ref().filter(|v| !v.is_none())
    }

    pub(super) fn required(&self, at: usize) -> Result<&Value, Error> {
        self.values[at].as_ref().ok_or_else(|| fail(format!("the argument {:?} is missing", self.names[at])))
    }

    pub(super) fn text(&self, at: usize) -> Result<Option<&str>, Error> {
        let Some(value) = self.get(at) else { return Ok(None) };
        let wrong = || fail(format!("{}: expected a string, found {}", self.names[at], value.kind()));
        value.as_str().map(Some).ok_or_else(wrong)
    }

    pub(super) fn required_text(&self, at: usize) -> Result<&str, Error> {
        self.required(at)?;
        self.text(at)?.ok_or_else(|| fail(format!("{}: expected a string, found none", self.names[at])))
    }

    pub(super) fn integer(&self, at: usize) -> Result<Option<i64>, Error> {
        let Some(value) = self.get(at) else { return Ok(None) };
        i64::try_from(value.clone())
            .map(Some)
            .map_err(|_| fail(format!("{}: expected an integer, found {}", self.names[at], value.kind())))
    }

    /// Whether an argument is true, as Python sees it.
    pub(super) fn truth(&self, at: usize) -> bool {
        self.get(at).is_some_and(Value::is_true)
    }
}
