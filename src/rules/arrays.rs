//! Array consistency: fields of one rule that lie under the same array must
//! come from the same element of it.
//!
//! Asked only if at least two fields of a rule match inside arrays, or if
//! `exists: false` meets a path whose values all lie inside arrays.
//!
//! Without `exists: false` the question has no order: pick one matching place
//! for every field, at most one element of every array. That is decided bottom
//! up over the tree of elements, in time linear in the matching places as long
//! as every path runs through one array a level (duplicate keys can make it
//! run through several; then sets of fields are combined, within a limit).
//!
//! With `exists: false` the order of the fields matters: a field is absent if
//! none of its values agrees with the elements that the fields *before* it (by
//! path) were matched in. That is searched in order, skipping whole arrays,
//! within a limit of steps.

use super::scan::{Element, NO_ELEMENT};

/// One field of a rule, as far as arrays are concerned.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The elements that a matching value lies in.
    pub matching: Vec<u32>,
    /// The elements that any value lies in, if the field may be absent.
    pub present: Option<Vec<u32>>,
}

/// The step limit was reached.
#[derive(Debug, PartialEq)]
pub(super) struct TooMany;

/// Whether the fields, in the order of their paths, can be matched
/// consistently.
pub(super) fn consistent(
    fields: &mut [Places],
    elements: &[Element],
    arrays: &[u32],
    limit: u64,
) -> Result<bool, TooMany> {
    for field in fields.iter_mut() {
        field.matching.sort_unstable();
        field.matching.dedup();
        if let Some(present) = &mut field.present {
            present.sort_unstable();
            present.dedup();
        }
    }
    if fields.iter().any(|field| field.present.is_some()) || fields.len() > 64 {
        return Search::new(fields, elements, arrays, limit).run();
    }
    bottom_up(fields, elements, limit)
}

/// What the elements below some element can match: sets of fields, of which
/// none contains another.
#[derive(Debug, Default, Clone)]
struct Node {
    /// Over the arrays that are complete, and the element's own values.
    sets: Vec<u64>,
    /// The array being collected, and what one element of it can match.
    array: u32,
    choices: Vec<u64>,
}

fn bottom_up(fields: &[Places], elements: &[Element], limit: u64) -> Result<bool, TooMany> {
    let wanted = if fields.len() == 64 {
        u64::MAX
    } else {
        (1 << fields.len()) - 1
    };
    let mut own: Vec<(u32, u64)> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        own.extend(field.matching.iter().map(|element| (*element, 1 << i)));
    }
    own.sort_unstable();
    let involved = with_ancestors(&own, elements);
    let mut nodes = vec![Node::default(); involved.len()];
    for (element, bit) in own {
        let node = &mut nodes[position(&involved, element)];
        match node.sets.first_mut() {
            Some(set) => *set |= bit,
            None => node.sets.push(bit),
        }
    }
    // Elements are numbered in the order of the text: children come after
    // their parents, and those of one array together.
    let mut steps = 0;
    for at in (0..involved.len()).rev() {
        let mut node = std::mem::take(&mut nodes[at]);
        close_array(&mut node, &mut steps, limit)?;
        if involved[at] == NO_ELEMENT {
            return Ok(node.sets.contains(&wanted));
        }
        let element = elements[involved[at] as usize];
        let parent = &mut nodes[position(&involved, element.parent)];
        if parent.array != element.array {
            close_array(parent, &mut steps, limit)?;
            parent.array = element.array;
        }
        for set in node.sets {
            steps += parent.choices.len() as u64 + 1;
            insert_maximal(&mut parent.choices, set);
        }
        if steps > limit {
            return Err(TooMany);
        }
    }
    Ok(wanted == 0)
}

/// The elements named, and all that they lie in, in order.
fn with_ancestors(own: &[(u32, u64)], elements: &[Element]) -> Vec<u32> {
    let mut involved = vec![NO_ELEMENT];
    let mut seen = vec![false; elements.len()];
    seen[NO_ELEMENT as usize] = true;
    for (element, _) in own {
        let mut at = *element;
        while !std::mem::replace(&mut seen[at as usize], true) {
            involved.push(at);
            at = elements[at as usize].parent;
        }
    }
    involved.sort_unstable();
    involved
}

fn position(involved: &[u32], element: u32) -> usize {
    // Every element and its parent are in the list; the start stands in for
    // what can't happen.
    involved.binary_search(&element).unwrap_or(0)
}

/// Combines the choices of the current array with what the element has.
fn close_array(node: &mut Node, steps: &mut u64, limit: u64) -> Result<(), TooMany> {
    if node.choices.is_empty() {
        return Ok(());
    }
    let choices = std::mem::take(&mut node.choices);
    if node.sets.is_empty() {
        node.sets = choices;
        return Ok(());
    }
    let mut combined = Vec::new();
    for set in &node.sets {
        for choice in &choices {
            insert_maximal(&mut combined, set | choice);
            *steps += combined.len() as u64;
            if *steps > limit {
                return Err(TooMany);
            }
        }
    }
    node.sets = combined;
    Ok(())
}

/// Adds a set unless a larger one is there, and drops those it contains.
fn insert_maximal(sets: &mut Vec<u64>, set: u64) {
    if sets.iter().any(|other| other | set == *other) {
        return;
    }
    sets.retain(|other| other | set != set);
    sets.push(set);
}

/// The ordered search, depth first without recursion.
struct Search<'s> {
    fields: &'s [Places],
    elements: &'s [Element],
    arrays: &'s [u32],
    /// For every array, the element that was picked, or `NO_ELEMENT`.
    picked: Vec<u32>,
    /// The arrays picked, for taking back.
    trail: Vec<u32>,
    steps: u64,
    limit: u64,
}

/// Where the search stands with one field.
struct Level {
    /// The next candidate of `matching`; past the end: absence was tried.
    next: usize,
    /// How long the trail was before this field.
    trail: usize,
}

impl<'s> Search<'s> {
    fn new(fields: &'s [Places], elements: &'s [Element], arrays: &'s [u32], limit: u64) -> Self {
        let picked = vec![NO_ELEMENT; arrays.len()];
        Search {
            fields,
            elements,
            arrays,
            picked,
            trail: Vec::new(),
            steps: 0,
            limit,
        }
    }

    fn run(&mut self) -> Result<bool, TooMany> {
        let mut levels = vec![Level { next: 0, trail: 0 }];
        while let Some(level) = levels.last_mut() {
            let trail = level.trail;
            let mut next = level.next;
            self.take_back(trail);
            let Some(field) = self.fields.get(levels.len() - 1) else {
                return Ok(true);
            };
            let found = if next <= field.matching.len() {
                match self.first_consistent(&field.matching, next)? {
                    Some(at) => {
                        self.pick(field.matching[at]);
                        next = at + 1;
                        true
                    }
                    None => {
                        next = field.matching.len() + 1;
                        match &field.present {
                            Some(present) => self.first_consistent(present, 0)?.is_none(),
                            None => false,
                        }
                    }
                }
            } else {
                false
            };
            if found {
                if let Some(level) = levels.last_mut() {
                    level.next = next;
                }
                levels.push(Level {
                    next: 0,
                    trail: self.trail.len(),
                });
            } else {
                levels.pop();
            }
        }
        Ok(false)
    }

    /// The first candidate at or after `from` that agrees with what was
    /// picked.
    fn first_consistent(
        &mut self,
        candidates: &[u32],
        from: usize,
    ) -> Result<Option<usize>, TooMany> {
        let mut at = from;
        while let Some(candidate) = candidates.get(at) {
            let mut jump = None;
            let mut element = *candidate;
            while element != NO_ELEMENT {
                self.steps += 1;
                let Element { parent, array, .. } = self.elements[element as usize];
                let picked = self.picked[array as usize];
                if picked != NO_ELEMENT && picked != element {
                    // Nothing but the picked element of this array will do.
                    let ahead = picked > *candidate;
                    jump = Some(if ahead {
                        picked
                    } else {
                        self.arrays[array as usize]
                    });
                }
                element = parent;
            }
            if self.steps > self.limit {
                return Err(TooMany);
            }
            match jump {
                None => return Ok(Some(at)),
                Some(element) => {
                    at += candidates[at..]
                        .partition_point(|other| *other < element)
                        .max(1);
                }
            }
        }
        Ok(None)
    }

    fn pick(&mut self, mut element: u32) {
        while element != NO_ELEMENT {
            let Element { parent, array, .. } = self.elements[element as usize];
            if self.picked[array as usize] == NO_ELEMENT {
                self.picked[array as usize] = element;
                self.trail.push(array);
            }
            element = parent;
        }
    }

    fn take_back(&mut self, len: usize) {
        for array in self.trail.drain(len..) {
            self.picked[array as usize] = NO_ELEMENT;
        }
    }
}
