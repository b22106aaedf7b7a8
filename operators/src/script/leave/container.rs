//! Tables that become documents. A decoder's results are alike: in which order their names go, and where in the document
//! everything stands, is found once.

use super::{Budget, Lent, SCALAR_BYTES, is_index, least, no_name};
use crate::stages::transform::fields::{Problem, Scalar};
use std::fmt::Write;
use std::rc::Rc;
use tidegate_schemas::document::{Document, DocumentBuilder, Forms};
use tidegate_schemas::limits::RESULT_DEPTH_MAX;
use tidegate_schemas::verdict::Code;

/// Orders that are kept: a decoder's results take turns.
const ORDERS_KEPT: usize = 8;

/// A value as a document; in `known` is what those before it have in common with it.
pub(crate) fn document(value: &impl Lent, budget: &mut Budget, known: &mut Containers) -> Result<Document, Problem> {
    let mut builder = DocumentBuilder::with_capacity(known.nodes, known.bytes);
    build(value, &mut builder, 0, budget, known)?;
    (known.nodes, known.bytes) = builder.size();
    Ok(builder.finish_like(&mut known.forms))
}

/// What is kept from one document to the next: memory, and the order of names.
#[derive(Default)]
pub(crate) struct Containers {
    forms: Forms,
    orders: Vec<Rc<Order>>,
    /// Of the document before.
    nodes: usize,
    bytes: usize,
    /// Of containers that are being read, one behind the other: names, texts, and what belongs to each name.
    names: String,
    texts: String,
    pairs: Vec<Pair>,
}

/// In which order the members of an object go that came in another.
struct Order {
    names: Box<str>,
    ends: Box<[usize]>,
    /// Their numbers.
    sorted: Box<[usize]>,
}

/// A pair of a table.
#[derive(Clone, Copy)]
struct Pair {
    /// Where its name ends, from that of the first name.
    end: usize,
    value: Held,
}

/// A value of a table.
#[derive(Clone, Copy)]
enum Held {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Between these places of the texts.
    Text(usize, usize),
    Other(&'static str),
    /// A table, the one of this number.
    Table(usize),
}

impl Containers {
    fn hold(&mut self, scalar: Scalar<'_>) -> Held {
        match scalar {
            Scalar::Null => Held::Null,
            Scalar::Bool(b) => Held::Bool(b),
            Scalar::Int(i) => Held::Int(i),
            Scalar::Float(f) => Held::Float(f),
            Scalar::Other(name) => Held::Other(name),
            Scalar::Text(text) => {
                let begin = self.texts.len();
                self.texts.push_str(text);
                Held::Text(begin, self.texts.len())
            }
        }
    }

    /// The scalar that was held; none where it is a table.
    fn scalar(&self, held: Held) -> Option<Scalar<'_>> {
        Some(match held {
            Held::Null => Scalar::Null,
            Held::Bool(b) => Scalar::Bool(b),
            Held::Int(i) => Scalar::Int(i),
            Held::Float(f) => Scalar::Float(f),
            Held::Other(name) => Scalar::Other(name),
            Held::Text(begin, end) => Scalar::Text(&self.texts[begin..end]),
            Held::Table(_) => return None,
        })
    }

    /// The order by name of the pairs from a place on, whose names begin at another.
    fn order(&mut self, pairs: usize, names: usize) -> Rc<Order> {
        let (pairs, names) = (&self.pairs[pairs..], &self.names[names..]);
        let is_it = |order: &Rc<Order>| *order.names == *names && order.ends.iter().eq(pairs.iter().map(|pair| &pair.end));
        match self.orders.iter().position(is_it) {
            Some(at) => self.orders[..=at].rotate_right(1),
            None => {
                let name = |i: &usize| &names[i.checked_sub(1).map_or(0, |before| pairs[before].end)..pairs[*i].end];
                let mut sorted: Vec<usize> = (0..pairs.len()).collect();
                sorted.sort_by(|a, b| name(a).cmp(name(b)));
                let ends = pairs.iter().map(|pair| pair.end).collect();
                self.orders.truncate(ORDERS_KEPT - 1);
                self.orders.insert(0, Rc::new(Order { names: names.into(), ends, sorted: sorted.into() }));
            }
        }
        Rc::clone(&self.orders[0])
    }
}

impl Order {
    fn name(&self, i: usize) -> &str {
        &self.names[i.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[i]]
    }
}

fn build<L: Lent>(value: &L, out: &mut DocumentBuilder, depth: usize, budget: &mut Budget, known: &mut Containers) -> Result<(), Problem> {
    if !value.is_table() {
        return value.scalar(|scalar| leaf(scalar, out, budget));
    }
    budget.take(SCALAR_BYTES)?;
    if depth >= RESULT_DEPTH_MAX {
        return Err(Problem::new(Code::OutputTooLarge, format!("nested deeper than {RESULT_DEPTH_MAX} levels")));
    }
    let (names, texts, pairs) = (known.names.len(), known.texts.len(), known.pairs.len());
    let built = container(value, out, depth, budget, known);
    known.names.truncate(names);
    known.texts.truncate(texts);
    known.pairs.truncate(pairs);
    built
}

/// A value that is no table.
fn leaf(scalar: Scalar<'_>, out: &mut DocumentBuilder, budget: &mut Budget) -> Result<(), Problem> {
    budget.take(SCALAR_BYTES)?;
    match scalar {
        Scalar::Null => out.null(),
        Scalar::Bool(b) => out.bool(b),
        Scalar::Int(i) => out.int(i),
        Scalar::Float(f) if f.is_finite() => out.float(f),
        Scalar::Float(f) => return Err(Problem::new(Code::WrongType, format!("{f} is no number of JSON"))),
        Scalar::Text(text) => {
            budget.take(text.len())?;
            out.text(text);
        }
        Scalar::Other(name) => return Err(Problem::new(Code::WrongType, format!("a {name} is no JSON"))),
    }
    Ok(())
}

/// A table whose keys are 1 to n is a list, any other an object; an empty one is an object. Keys are sorted: their order in
/// Lua depends on how the table grew.
fn container<L: Lent>(
    table: &L,
    out: &mut DocumentBuilder,
    depth: usize,
    budget: &mut Budget,
    known: &mut Containers,
) -> Result<(), Problem> {
    let len = table.len();
    let (first, names) = (known.pairs.len(), known.names.len());
    let (mut tables, mut in_list, mut nameless) = (Vec::new(), 0, None);
    table.each(|key, value, place| {
        budget.take(SCALAR_BYTES / 2)?;
        let named = key.scalar(|scalar| {
            in_list += usize::from(is_index(scalar, len));
            match scalar {
                Scalar::Text(text) => known.names.push_str(text),
                // Writing to a String cannot fail.
                Scalar::Int(i) => drop(write!(known.names, "{i}")),
                _ => return false,
            }
            true
        });
        if !named {
            nameless = least(nameless, key);
            return Ok(());
        }
        let held = if value.is_table() {
            tables.push(place);
            Held::Table(tables.len() - 1)
        } else {
            value.scalar(|scalar| known.hold(scalar))
        };
        known.pairs.push(Pair { end: known.names.len() - names, value: held });
        Ok(())
    })?;
    if let Some(kind) = nameless {
        return Err(no_name(kind));
    }
    let at = out.open();
    if len > 0 && in_list == known.pairs.len() - first {
        for i in 1..=len {
            table.element(i, |value| build(value, out, depth + 1, budget, known)).map_err(|p| p.below(&(i - 1).to_string()))?;
        }
        out.close_list(at, len as u32);
        return Ok(());
    }
    let order = known.order(first, names);
    for i in order.sorted.iter().copied() {
        let name = order.name(i);
        budget.take(name.len()).map_err(|p| p.below(name))?;
        out.text(name);
        let held = known.pairs[first + i].value;
        let built = match (known.scalar(held), held) {
            (Some(scalar), _) => leaf(scalar, out, budget),
            (None, Held::Table(n)) => table.at(&tables[n], |value| build(value, out, depth + 1, budget, known)),
            (None, _) => Ok(()),
        };
        built.map_err(|p| p.below(name))?;
    }
    out.close_map(at, order.sorted.len() as u32);
    Ok(())
}
