//! What a grammar cannot say, since it remembers nothing of what was written: that no key comes twice in an
//! object, and no item in a list without equals. The text is followed byte by byte; a token that would
//! complete a repetition is taken out of the mask.

use super::canonical::canonical;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use toktrie::SimpleVob;

/// Up to so many tokens of a mask are all tried; of more, those with a byte that can complete something.
const TRY_ALL: usize = 512;

/// Members of an object, by the definitions of their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub named: HashMap<String, Option<usize>>,
    pub others: Vec<usize>,
    /// Whether there may be others.
    pub open: bool,
}

/// Items of a list, by their definitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Items {
    pub first: Vec<Option<usize>>,
    pub rest: Option<usize>,
    pub unique: bool,
    /// All that an item may be, if that is few.
    pub few: Option<Vec<Value>>,
}

/// What a definition says about objects and lists: one entry for each alternative.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub objects: Vec<Members>,
    pub lists: Vec<Items>,
}

impl Shape {
    pub fn join(&mut self, other: Shape) {
        self.objects.extend(other.objects);
        self.lists.extend(other.lists);
    }

    fn needs_watch(&self) -> bool {
        self.objects.iter().any(|members| members.open) || self.lists.iter().any(|items| items.unique)
    }
}

/// All definitions, and where the text begins.
#[derive(Debug)]
pub(super) struct Plan {
    pub shapes: Vec<Shape>,
    pub root: usize,
    /// Whether there is text around objects, which says nothing: calls of tools.
    pub around: bool,
}

/// A repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeated;

/// Tokens of a vocabulary that may complete a name or an item.
#[derive(Debug, Default)]
pub(super) struct Closers {
    /// Those with a quote, and whether they have more than one.
    quotes: Vec<(u32, bool)>,
    /// Those with another byte that ends something outside of strings.
    others: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Frame {
    is_list: bool,
    nodes: Arc<[usize]>,
    /// Names or items so far; the newest apart, so that trying a token copies little.
    known: Arc<Vec<String>>,
    fresh: Vec<String>,
    /// Of the value that comes.
    children: Arc<[usize]>,
    index: usize,
    unique: bool,
    few: Option<Arc<Vec<(String, String)>>>,
    /// Where the item begins in the text.
    item: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Value,
    Key,
    /// In a string; whether it is a key, whether the next byte is escaped.
    String(bool, bool),
    Scalar,
    After,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    plan: Arc<Plan>,
    frames: Vec<Frame>,
    at: At,
    /// The key that is being written.
    key: Vec<u8>,
    /// What was written since the outermost list without equals began.
    text: Vec<u8>,
}

impl Watch {
    /// None if there is nothing to watch for.
    pub fn new(plan: Arc<Plan>) -> Option<Watch> {
        let needed = plan.shapes.iter().any(Shape::needs_watch);
        let (frames, key, text) = (Vec::new(), Vec::new(), Vec::new());
        needed.then(|| Watch { plan, frames, at: At::Value, key, text })
    }

    /// Takes the tokens out of a mask that would complete a repetition, or lead to nothing else.
    /// `bytes` are those of a token, `closers` the tokens with a byte that can complete something.
    pub fn filter<'t>(&self, mask: &mut SimpleVob, closers: &Closers, bytes: impl Fn(u32) -> &'t [u8]) {
        if self.frames.is_empty() {
            return;
        }
        let tried: Vec<u32> = match mask.num_set() <= TRY_ALL {
            true => mask.iter().collect(),
            false => self.candidates(closers).filter(|token| mask.is_allowed(*token)).collect(),
        };
        for token in tried {
            if self.clone().accept(bytes(token)).is_err() {
                mask.disallow_token(token);
            }
        }
    }

    /// Tokens that may complete something from here.
    fn candidates<'c>(&self, closers: &'c Closers) -> impl Iterator<Item = u32> + 'c {
        let in_string = matches!(self.at, At::String(..));
        // A string that is no item has to end before a name can begin.
        let plain = self.at == At::String(false, false) && !self.frames.iter().any(|frame| frame.unique);
        let quotes = closers.quotes.iter().filter(move |(_, more)| *more || !plain).map(|(token, _)| *token);
        quotes.chain(closers.others.iter().copied().filter(move |_| !in_string))
    }

    /// Follows a token.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<(), Repeated> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))
    }

    /// What is new becomes known, so that later copies are cheap.
    pub fn settle(&mut self) {
        for frame in &mut self.frames {
            if !frame.fresh.is_empty() {
                Arc::make_mut(&mut frame.known).append(&mut frame.fresh);
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), Repeated> {
        if self.frames.is_empty() && self.plan.around && byte != b'{' {
            return Ok(());
        }
        if self.frames.iter().any(|frame| frame.unique) {
            self.text.push(byte);
        }
        match (self.at, byte) {
            (At::String(key, true), _) => {
                self.at = At::String(key, false);
                self.spell(key, byte);
            }
            (At::String(key, false), b'\\') => {
                self.at = At::String(key, true);
                self.spell(key, byte);
            }
            (At::String(true, false), b'"') => {
                self.at = At::After;
                return self.keyed();
            }
            (At::String(false, false), b'"') => {
                self.follow_few()?;
                self.at = At::After;
                return self.item_ends();
            }
            (At::String(key, false), _) => self.spell(key, byte),
            (_, b' ' | b'\n' | b'\r' | b'\t') => return self.scalar_ends(),
            (_, b',') => {
                self.scalar_ends()?;
                return self.next();
            }
            (_, b':') => {
                self.at = At::Value;
                return Ok(());
            }
            (_, b'}' | b']') => {
                self.scalar_ends()?;
                self.frames.pop();
                self.at = At::After;
                return self.item_ends();
            }
            (At::Key, b'"') => {
                self.key.clear();
                self.at = At::String(true, false);
                return Ok(());
            }
            (_, b'{' | b'[') => {
                self.item_begins();
                self.open(byte == b'[');
                return Ok(());
            }
            (_, b'"') => {
                self.item_begins();
                self.at = At::String(false, false);
            }
            _ => {
                self.item_begins();
                self.at = At::Scalar;
            }
        }
        self.follow_few()
    }

    fn spell(&mut self, key: bool, byte: u8) {
        if key {
            self.key.push(byte);
        }
    }

    fn nodes(&self) -> Arc<[usize]> {
        match self.frames.last() {
            Some(frame) => frame.children.clone(),
            None => Arc::from([self.plan.root]),
        }
    }

    fn open(&mut self, is_list: bool) {
        let nodes = self.nodes();
        let shapes = || nodes.iter().filter_map(|id| self.plan.shapes.get(*id));
        let lists: Vec<&Items> = shapes().flat_map(|shape| &shape.lists).collect();
        let unique = is_list && lists.iter().any(|items| items.unique);
        let few = match lists.as_slice() {
            [items] if unique => items
                .few
                .as_ref()
                .map(|few| Arc::new(few.iter().map(|v| (v.to_string(), canonical(v))).collect::<Vec<_>>())),
            _ => None,
        };
        if unique && !self.frames.iter().any(|frame| frame.unique) {
            self.text.clear();
        }
        let (known, fresh) = (Arc::default(), Vec::new());
        self.frames.push(Frame {
            is_list,
            nodes,
            known,
            fresh,
            children: Arc::from([]),
            index: 0,
            unique,
            few,
            item: None,
        });
        if is_list {
            self.item_comes();
        }
        self.at = if is_list { At::Value } else { At::Key };
    }

    /// The definitions of the item that comes.
    fn item_comes(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        let lists =
            frame.nodes.iter().filter_map(|id| self.plan.shapes.get(*id)).flat_map(|shape| &shape.lists);
        let of = |items: &Items| items.first.get(frame.index).copied().unwrap_or(items.rest);
        frame.children = each_once(lists.filter_map(of).collect());
        frame.item = None;
    }

    /// A key is complete.
    fn keyed(&mut self) -> Result<(), Repeated> {
        let key = String::from_utf8_lossy(&self.key).into_owned();
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        if frame.has(&key) {
            return Err(Repeated);
        }
        // Names in the schema are not escaped.
        let name = serde_json::from_str::<String>(&format!("\"{key}\"")).unwrap_or_default();
        let mut children = Vec::new();
        let shapes = frame.nodes.iter().filter_map(|id| self.plan.shapes.get(*id));
        for members in shapes.flat_map(|shape| &shape.objects) {
            match members.named.get(&name) {
                Some(id) => children.extend(*id),
                None => children.extend(&members.others),
            }
        }
        frame.children = each_once(children);
        frame.fresh.push(key);
        Ok(())
    }

    fn item_begins(&mut self) {
        let at = self.text.len().saturating_sub(1);
        if let Some(frame) = self.frames.last_mut().filter(|frame| frame.unique && frame.item.is_none()) {
            frame.item = Some(at);
        }
    }

    /// Whether what is written of an item can become one that is not there yet, where items are few.
    fn follow_few(&self) -> Result<(), Repeated> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (Some(few), Some(from)) = (&frame.few, frame.item) else { return Ok(()) };
        let written = &self.text[from.min(self.text.len())..];
        let fits = |(text, canonical): &(String, String)| {
            text.as_bytes().starts_with(written) && !frame.has(canonical)
        };
        if few.iter().any(fits) { Ok(()) } else { Err(Repeated) }
    }

    /// The byte that ends it, white space too, is no part of it.
    fn scalar_ends(&mut self) -> Result<(), Repeated> {
        if self.at != At::Scalar {
            return Ok(());
        }
        self.at = At::After;
        self.item_is(self.text.len().saturating_sub(1))
    }

    fn item_ends(&mut self) -> Result<(), Repeated> {
        self.item_is(self.text.len())
    }

    fn item_is(&mut self, end: usize) -> Result<(), Repeated> {
        let Some(frame) = self.frames.last_mut() else {
            self.text.clear();
            self.at = At::Value;
            return Ok(());
        };
        let Some(from) = frame.item.filter(|_| frame.unique) else { return Ok(()) };
        let written = self.text.get(from..end).unwrap_or_default();
        let Ok(value) = serde_json::from_slice::<Value>(written) else { return Ok(()) };
        let item = canonical(&value);
        if frame.has(&item) {
            return Err(Repeated);
        }
        frame.fresh.push(item);
        frame.item = None;
        if self.frames.iter().all(|frame| frame.item.is_none()) {
            self.text.clear();
        }
        Ok(())
    }

    /// After a comma.
    fn next(&mut self) -> Result<(), Repeated> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        if !frame.is_list {
            self.at = At::Key;
            return Ok(());
        }
        if frame.few.as_ref().is_some_and(|few| few.iter().all(|(_, canonical)| frame.has(canonical))) {
            return Err(Repeated);
        }
        frame.index += 1;
        self.item_comes();
        self.at = At::Value;
        Ok(())
    }
}

/// Many alternatives may lead to one definition.
fn each_once(mut ids: Vec<usize>) -> Arc<[usize]> {
    ids.sort_unstable();
    ids.dedup();
    Arc::from(ids)
}

impl Frame {
    fn has(&self, one: &str) -> bool {
        self.known.iter().chain(&self.fresh).any(|known| known == one)
    }
}

impl Closers {
    pub fn new<'t>(tokens: impl Iterator<Item = (u32, &'t [u8])>) -> Closers {
        let mut closers = Closers::default();
        for (token, bytes) in tokens {
            match bytes.iter().filter(|b| **b == b'"').count() {
                0 if bytes.iter().any(|b| b",]} \n\r\t".contains(b)) => closers.others.push(token),
                0 => {}
                n => closers.quotes.push((token, n > 1)),
            }
        }
        closers
    }
}
