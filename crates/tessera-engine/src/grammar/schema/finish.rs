//! The last step before a form is written: what is left of a schema's keywords becomes what a grammar can
//! say (which members there are, what each item is), or is refused.

use super::algebra::{Algebra, Found};
use super::forms::{Contains, Form, Forms, List, Number, Object, Set, Text};
use super::objects::require;
use super::patterns::{all_but, of_length};
use super::read::MAX_NUMBER;
use super::unsupported;
use serde_json::Value;
use std::collections::BTreeSet;

/// Most alternatives that one form becomes.
const MAX_WAYS: usize = 256;
/// Texts that an item of a list without equals may be, up to which all are tried.
const FEW: usize = 1_000;

impl<'a> Algebra<'a> {
    /// Forms that can be written as they are, for values that satisfy the set.
    pub fn finished(&mut self, set: &Set) -> Found<Forms<'a>> {
        let forms = self.forms(set)?;
        let mut out = Vec::new();
        for form in forms.iter() {
            if !self.can_be(form, 6)? {
                continue;
            }
            match form.clone() {
                Form::Number(number) => {
                    out.extend(finished_number(&number, &self.origin)?.into_iter().map(Form::Number))
                }
                Form::Text(text) => out.push(Form::Text(self.finished_text(text)?)),
                Form::List(list) => out.extend(self.finished_lists(list)?.into_iter().map(Form::List)),
                Form::Object(object) => {
                    out.extend(self.finished_objects(object)?.into_iter().map(Form::Object));
                }
                form => out.push(form),
            }
        }
        self.spend(out.len())?;
        Ok(out)
    }

    fn finished_text(&mut self, mut text: Text) -> Found<Text> {
        for doubt in std::mem::take(&mut text.doubts) {
            // What the other patterns exclude anyway needs no word.
            if let super::forms::DoubtKind::NotPattern(pattern) = &doubt.kind {
                let mut with = text.patterns.clone();
                with.insert(pattern.clone());
                if with.len() > 1 && self.patterns.is_empty(&with, &[]) {
                    continue;
                }
            }
            return Err(doubt.error().into());
        }
        if !text.excluded.is_empty() {
            let excluded = std::mem::take(&mut text.excluded);
            let mut left = BTreeSet::new();
            for word in excluded {
                if self.takes(&Form::Text(text.clone()), &Value::String(word.clone()))? {
                    left.insert(word);
                }
            }
            self.spend(left.iter().map(String::len).sum())?;
            if !left.is_empty() {
                text.patterns.insert(all_but(&left).map_err(|e| unsupported(&self.origin, "not", e))?);
            }
        }
        Ok(text)
    }

    fn finished_lists(&mut self, list: List) -> Found<Vec<List>> {
        if let Some(doubt) = list.doubts.first() {
            return Err(doubt.error().into());
        }
        let mut ways = vec![List { contains: Vec::new(), ..list.clone() }];
        let mut from = 0;
        for contains in &list.contains {
            let mut next = Vec::new();
            for way in &ways {
                self.contained(way, contains, from, &mut next)?;
            }
            from += contains.min as usize;
            ways = next;
        }
        let mut out = Vec::new();
        for mut way in ways {
            if way.unique && way.max.is_none_or(|max| max > 1) {
                self.make_unique(&mut way)?;
            }
            if self.can_be(&Form::List(way.clone()), 6)? {
                out.push(way);
            }
        }
        Ok(out)
    }

    /// The items that are asked for come first.
    fn contained(&mut self, list: &List, contains: &Contains, from: usize, out: &mut Vec<List>) -> Found<()> {
        let most = contains.max.unwrap_or(contains.min).min(list.max.unwrap_or(u64::MAX));
        for n in contains.min..=most {
            if out.len() >= MAX_WAYS || n > 200 {
                let what = "too many ways to contain so many items";
                return Err(
                    unsupported(contains.pointer.trim_end_matches("/contains"), "contains", what).into()
                );
            }
            let len = (from + n as usize).max(list.first.len());
            self.spend(len)?;
            let mut way = list.clone();
            way.first = (0..len).map(|i| list.item(i).clone()).collect();
            way.min = way.min.max(from as u64 + n);
            for (i, item) in way.first.iter_mut().enumerate() {
                if (from..from + n as usize).contains(&i) {
                    *item = item.and(&contains.set);
                } else if contains.max.is_some() {
                    *item = item.and(&contains.without);
                }
            }
            if contains.max.is_some() {
                way.rest = way.rest.and(&contains.without);
            }
            out.push(way);
        }
        Ok(())
    }

    fn make_unique(&mut self, list: &mut List) -> Found<()> {
        if !self.mode.watched {
            return Err(unsupported(
                &list.unique_pointer,
                "uniqueItems",
                "is not enforced inside of grammars",
            )
            .into());
        }
        if let Some(few) = self.few(list)? {
            list.max = Some(list.max.unwrap_or(u64::MAX).min(few.len() as u64));
        }
        Ok(())
    }

    /// The items that a list may have, if they are few.
    pub fn few(&mut self, list: &List) -> Found<Option<Vec<Value>>> {
        if !list.first.is_empty() {
            return Ok(None);
        }
        let mut out = Vec::new();
        for form in self.forms(&list.rest)?.iter() {
            match form {
                Form::Null => out.push(Value::Null),
                Form::Bool(None) => out.extend([Value::Bool(false), Value::Bool(true)]),
                Form::Bool(Some(b)) => out.push(Value::Bool(*b)),
                Form::Literals(values) if values.iter().all(|v| !v.is_array() && !v.is_object()) => {
                    out.extend(values.iter().map(|v| (*v).clone()));
                }
                Form::Number(Number { least: Some(a), most: Some(b), whole: true, .. })
                    if b.0 - a.0 <= FEW as f64 && form_is_plain(form) =>
                {
                    let Form::Number(number) = form else { continue };
                    let all = (a.0.ceil() as i64..=b.0.floor() as i64).filter(|n| number.takes(*n as f64));
                    out.extend(all.map(Value::from));
                }
                _ => return Ok(None),
            }
        }
        Ok((out.len() <= FEW).then_some(out))
    }

    fn finished_objects(&mut self, mut object: Object) -> Found<Vec<Object>> {
        if let Some(doubt) = object.doubts.first() {
            return Err(doubt.error().into());
        }
        let mut known: BTreeSet<String> = object.props.iter().map(|(name, _)| name.clone()).collect();
        for name in object.required.clone() {
            if known.insert(name.clone()) {
                let set = self.member(&object, &name)?;
                object.props.push((name, set));
            }
        }
        self.name(&mut object)?;
        let closes = self.mode.closed && !object.asked && (object.lists || self.at_root);
        if closes {
            object.rest = Set::never();
        }
        for (_, set) in &mut object.props {
            if !self.can_hold(set, 6)? {
                *set = Set::never();
            }
        }
        if !self.can_hold(&object.rest.clone(), 6)? {
            object.rest = Set::never();
        }
        let mut ways = vec![object];
        while let Some(at) = ways.iter().position(|way| !way.needs.is_empty()) {
            let mut way = ways.swap_remove(at);
            let Some(need) = way.needs.pop() else { continue };
            for i in 0..way.props.len() {
                let (name, set) = way.props[i].clone();
                let both = match &need.among {
                    super::forms::Among::Names => {
                        match self.set_takes(&need.set, &Value::String(name.clone()))? {
                            true => set,
                            false => continue,
                        }
                    }
                    among if self.is_among(among, &name)? => set.and(&need.set),
                    _ => continue,
                };
                if self.can_hold(&both, 6)? {
                    let mut with = way.clone();
                    with.props[i].1 = both;
                    require(&mut with, &name);
                    ways.push(with);
                }
            }
            self.few_ways(&way, ways.len())?;
        }
        let mut out = Vec::new();
        for way in ways {
            self.counted(way, &mut out)?;
        }
        Ok(out)
    }

    fn few_ways(&mut self, object: &Object, ways: usize) -> Found<()> {
        self.spend(object.props.len())?;
        if ways <= MAX_WAYS {
            return Ok(());
        }
        let message = "too many combinations of members satisfy this";
        Err(unsupported(&object.counts_pointer, "properties", message).into())
    }

    /// `propertyNames`.
    fn name(&mut self, object: &mut Object) -> Found<()> {
        let names = std::mem::take(&mut object.names);
        if names.is_any() {
            return Ok(());
        }
        for i in 0..object.props.len() {
            let name = Value::String(object.props[i].0.clone());
            if !self.set_takes(&names, &name)? {
                object.props[i].1 = Set::never();
            }
        }
        if object.rest.is_never() && object.patterns.is_empty() {
            return Ok(());
        }
        let pointer = object.names_pointer.trim_end_matches("/propertyNames").to_owned();
        let refused = |message: &str| unsupported(&pointer, "propertyNames", message);
        let mut patterns = Vec::new();
        for form in self.forms(&names)?.iter() {
            match form {
                Form::Literals(values) => {
                    for name in values.iter().filter_map(|v| v.as_str()) {
                        if !object.props.iter().any(|(known, _)| known == name) {
                            let set = self.member(object, name)?;
                            object.props.push((name.to_owned(), set));
                        }
                    }
                }
                Form::Text(text) => {
                    let text = self.finished_text(text.clone())?;
                    let counted = text.min > 0 || text.max.is_some();
                    let mut all: Vec<String> = text.patterns.iter().cloned().collect();
                    if counted {
                        all.push(of_length(text.min, text.max));
                    }
                    match all.as_slice() {
                        // Any string.
                        [] => return Ok(()),
                        [one] => patterns.push(one.clone()),
                        _ => return Err(refused("more than one condition on names").into()),
                    }
                }
                _ => {}
            }
        }
        let names = match patterns.as_slice() {
            [] => {
                (object.rest, object.patterns) = (Set::never(), std::collections::BTreeMap::new());
                return Ok(());
            }
            [one] => one.clone(),
            _ => return Err(refused("more than one pattern for names").into()),
        };
        for pattern in object.patterns.keys() {
            if !self.patterns.is_empty(&BTreeSet::from([pattern.clone()]), &[&names]) {
                return Err(refused("cannot be enforced beside these \"patternProperties\"").into());
            }
        }
        let rest = std::mem::replace(&mut object.rest, Set::never());
        if !rest.is_never() {
            object.patterns.insert(names, rest);
        }
        Ok(())
    }

    /// `minProperties` and `maxProperties`: the members that there are, as far as it takes.
    fn counted(&mut self, mut object: Object, out: &mut Vec<Object>) -> Found<()> {
        self.few_ways(&object, out.len())?;
        let required = object.required.len() as u64;
        let is_left =
            |object: &Object, (name, set): &(String, Set)| !set.is_never() && !object.required.contains(name);
        let left: Vec<String> =
            object.props.iter().filter(|p| is_left(&object, p)).map(|(name, _)| name.clone()).collect();
        let open = !object.rest.is_never() || !object.patterns.is_empty();
        object.min = object.min.max(required);
        if object.max.is_some_and(|max| max < object.min) {
            return Ok(());
        }
        if !open && object.max.is_some_and(|max| max >= required + left.len() as u64) {
            object.max = None;
        }
        if object.min == required && object.max.is_none() {
            object.min = 0;
            out.push(object);
            return Ok(());
        }
        if object.max == Some(required) {
            // No more than these.
            let names: BTreeSet<&String> = left.iter().collect();
            object.props.iter_mut().filter(|(name, _)| names.contains(name)).for_each(|p| p.1 = Set::never());
            (object.rest, object.patterns) = (Set::never(), std::collections::BTreeMap::new());
            (object.min, object.max) = (0, None);
            out.push(object);
            return Ok(());
        }
        // Members that may come twice could be counted once.
        if open && !self.mode.watched && object.min > required + 1 {
            let message = "is enforced here only for one more than the required members";
            return Err(unsupported(&object.counts_pointer, "minProperties", message).into());
        }
        let Some(first) = left.first() else {
            if open || object.min <= required {
                out.push(object);
            }
            return Ok(());
        };
        // With the first that may be left out, and without.
        let mut with = object.clone();
        require(&mut with, first);
        self.counted(with, out)?;
        let mut without = object;
        if let Some((_, set)) = without.props.iter_mut().find(|(name, _)| name == first) {
            *set = Set::never();
        }
        if without.min > required + left.len() as u64 - 1 && !open {
            return Ok(());
        }
        self.counted(without, out)
    }
}

fn form_is_plain(form: &Form<'_>) -> bool {
    matches!(form, Form::Number(number) if number.multiples.is_empty() && number.doubts.is_empty())
}

fn finished_number(number: &Number, origin: &str) -> Found<Vec<Number>> {
    if let Some(doubt) = number.doubts.first() {
        return Err(doubt.error().into());
    }
    for (keyword, bound) in [("minimum", number.least), ("maximum", number.most)] {
        if bound.is_some_and(|(bound, _)| bound.abs() >= MAX_NUMBER) {
            return Err(unsupported(origin, keyword, "only numbers below 2^53 are exact").into());
        }
    }
    let mut plain = Number { excluded: Vec::new(), ..number.clone() };
    if !plain.multiples.is_empty() {
        // Beyond f64's whole numbers a validator cannot tell multiples from others.
        plain.least.get_or_insert((1.0 - MAX_NUMBER, false));
        plain.most.get_or_insert((MAX_NUMBER - 1.0, false));
    }
    let mut holes: Vec<f64> = number.excluded.iter().copied().filter(|n| plain.takes(*n)).collect();
    holes.sort_unstable_by(f64::total_cmp);
    holes.dedup();
    let (mut out, mut least) = (Vec::new(), plain.least);
    for hole in holes {
        out.push(Number { least, most: Some((hole, true)), ..plain.clone() });
        least = Some((hole, true));
    }
    out.push(Number { least, ..plain.clone() });
    out.retain(|number| !number.is_empty());
    Ok(out.into_iter().map(without_edge).collect())
}

/// llguidance forgets that a bound is excluded where it is whole and the other one has the same whole part:
/// 1 would be above 1 and at most 1.5. The edge moves by a little.
fn without_edge(mut number: Number) -> Number {
    let (Some((least, open)), Some((most, end))) = (number.least, number.most) else { return number };
    if number.whole {
        return number;
    }
    let step = |edge: f64| 10f64.powi((edge.abs().max(1.0).log10() as i32 + 1 - 14).max(-9));
    if open && least >= 0.0 && least.fract() == 0.0 && most.trunc() == least {
        number.least = Some(((least + step(least)).min(most), false));
    } else if end && most <= 0.0 && most.fract() == 0.0 && least.trunc() == most {
        number.most = Some(((most - step(most)).max(least), false));
    }
    number
}
