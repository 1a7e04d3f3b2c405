//! The states that event-ruler builds for the wildcards of one path, and how
//! many of them a value can be in; see `complexity` for why.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::ast::Clause;
use super::complexity::{CEILING, MAX_SETS, wildcards};
use super::wildcard::Wildcard;

/// The states for the wildcards of one path: an automaton over bytes that may
/// be in several states at once.
#[derive(Default)]
pub(super) struct Machine {
    /// The first one is the start.
    nodes: Vec<Node>,
    clauses: Vec<Clause>,
    edges: Vec<Edge>,
    matches: Vec<Match>,
}

#[derive(Default)]
struct Node {
    /// The edges for every byte, and those for some.
    all: Vec<usize>,
    bytes: BTreeMap<u8, Vec<usize>>,
    /// More than one text leads here.
    indeterminate: bool,
    /// The clauses whose wildcards pass here.
    clauses: Vec<usize>,
}

/// Where a byte leads to: a node, or the end of a wildcard, or both.
#[derive(Clone, Copy)]
struct Edge {
    node: Option<usize>,
    found: Option<usize>,
}

/// The end of a wildcard.
#[derive(PartialEq)]
struct Match {
    clause: usize,
    /// The state of the graph that comes next.
    next: usize,
}

/// One character of a wildcard, or a star.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step {
    Star,
    Byte(u8),
}

impl Machine {
    /// Adds a clause; the state that it leads to, `next` if it is new.
    pub fn add(&mut self, clause: &Clause, next: usize) -> usize {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let number = match self.clauses.iter().position(|other| other == clause) {
            Some(number) => number,
            None => {
                self.clauses.push(clause.clone());
                self.clauses.len() - 1
            }
        };
        let mut next = next;
        for wildcard in in_order(wildcards(clause)) {
            next = self.add_wildcard(&steps(wildcard), number, next);
        }
        next
    }

    fn add_wildcard(&mut self, steps: &[Step], clause: usize, next: usize) -> usize {
        let last = steps.len() - 1;
        let (mut at, mut before, mut i) = (0, None, 0);
        self.pass(at, clause);
        while i < last {
            let Some(node) = self.reusable(at, steps, i) else {
                break;
            };
            (before, at) = (Some(at), node);
            self.pass(at, clause);
            i += 1;
        }
        for i in i..last {
            let node = self.find_or_make(at, before, steps, i);
            (before, at) = (Some(at), node);
            self.pass(at, clause);
        }
        let known = self.leaving(at, steps[last]).find_map(|edge| {
            let found = &self.matches[edge.found?];
            (found.clause == clause).then_some(found.next)
        });
        if let Some(known) = known {
            return known;
        }
        let edge = self.end(Match { clause, next });
        self.connect(at, steps[last], edge);
        if let Some(before) = before
            && steps[last - 1] == Step::Star
        {
            self.connect(before, steps[last], edge);
        }
        next
    }

    fn pass(&mut self, node: usize, clause: usize) {
        let clauses = &mut self.nodes[node].clauses;
        if !clauses.contains(&clause) {
            clauses.push(clause);
        }
    }

    /// The edge for the end of a wildcard; equal ends are one.
    fn end(&mut self, end: Match) -> usize {
        let found = self.matches.iter().position(|other| *other == end);
        let found = found.unwrap_or_else(|| {
            self.matches.push(end);
            self.matches.len() - 1
        });
        let known = self
            .edges
            .iter()
            .position(|edge| edge.node.is_none() && edge.found == Some(found));
        known.unwrap_or_else(|| {
            self.edge(Edge {
                node: None,
                found: Some(found),
            })
        })
    }

    fn edge(&mut self, edge: Edge) -> usize {
        self.edges.push(edge);
        self.edges.len() - 1
    }

    fn connect(&mut self, node: usize, step: Step, edge: usize) {
        let node = &mut self.nodes[node];
        match step {
            Step::Star => node.all.push(edge),
            Step::Byte(byte) => node.bytes.entry(byte).or_default().push(edge),
        }
    }

    /// The edges that a step may take.
    fn leaving(&self, node: usize, step: Step) -> impl Iterator<Item = &Edge> {
        let node = &self.nodes[node];
        let some = match step {
            Step::Star => None,
            Step::Byte(byte) => node.bytes.get(&byte),
        };
        let some = some.into_iter().flatten();
        node.all.iter().chain(some).map(|edge| &self.edges[*edge])
    }

    /// The node behind a step that a further wildcard may go through.
    fn reusable(&self, at: usize, steps: &[Step], i: usize) -> Option<usize> {
        self.leaving(at, steps[i])
            .filter_map(|edge| edge.node)
            .find(|node| {
                *node != at
                    && (!self.nodes[*node].indeterminate || !self.may_converge(at, steps, i))
            })
    }

    /// Whether several ways from a node may lead to the same one; event-ruler
    /// takes every character that has case for such a fork.
    fn may_converge(&self, at: usize, steps: &[Step], i: usize) -> bool {
        let Step::Byte(first) = steps[i] else {
            return false;
        };
        if (0x80..0xC0).contains(&first) {
            return false;
        }
        let away = |edge: &usize| self.edges[*edge].node != Some(at);
        self.nodes[at].all.iter().any(away) || has_case(&steps[i..])
    }

    /// The node behind a step, made unless exactly one text leads to it.
    fn find_or_make(
        &mut self,
        at: usize,
        before: Option<usize>,
        steps: &[Step],
        i: usize,
    ) -> usize {
        let known = self
            .leaving(at, steps[i])
            .filter_map(|edge| edge.node)
            .find(|node| !self.nodes[*node].indeterminate);
        if let Some(node) = known {
            return node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            indeterminate: self.nodes[at].indeterminate || steps[i] == Step::Star,
            ..Node::default()
        });
        let found = self.lone_match(at, steps[i]);
        let edge = self.edge(Edge {
            node: Some(node),
            found,
        });
        self.connect(at, steps[i], edge);
        if steps[i] == Step::Star {
            self.connect(node, Step::Star, edge);
        } else if let Some(before) = before
            && steps[i - 1] == Step::Star
            && found.is_none()
        {
            self.connect(before, steps[i], edge);
        }
        node
    }

    /// Takes the end of a wildcard off a step that leads to nothing else, so
    /// that it can be joined with the node that is made there.
    fn lone_match(&mut self, at: usize, step: Step) -> Option<usize> {
        if self.leaving(at, step).any(|edge| edge.node.is_some()) {
            return None;
        }
        let Step::Byte(byte) = step else {
            return None;
        };
        let edges = self.nodes[at].bytes.get_mut(&byte)?;
        self.edges[edges.pop()?].found
    }

    /// The states of the graph that wildcards lead to.
    pub fn next_states(&self) -> impl Iterator<Item = usize> {
        self.matches.iter().map(|found| found.next)
    }

    /// The highest number of prefixes that some value matches at once.
    pub fn score(&self) -> u32 {
        let Some(start) = self.nodes.first() else {
            return 0;
        };
        let mut best = 0;
        let mut seen: HashSet<Vec<usize>> = HashSet::new();
        let mut queue = VecDeque::from(self.following([start].into_iter()));
        while let Some(set) = queue.pop_front() {
            if seen.contains(&set) || seen.len() == MAX_SETS || best == CEILING {
                continue;
            }
            let size: usize = set.iter().map(|edge| self.size(*edge, &set)).sum();
            best = best.max(u32::try_from(size).unwrap_or(CEILING).min(CEILING));
            let nodes = set.iter().filter_map(|edge| self.edges[*edge].node);
            queue.extend(self.following(nodes.map(|node| &self.nodes[node])));
            seen.insert(set);
        }
        best
    }

    /// How many wildcards an edge may still lead to, those that go on behind
    /// an empty star counted again.
    fn size(&self, edge: usize, set: &[usize]) -> usize {
        let Some(node) = self.edges[edge].node else {
            return self.clauses_at(edge);
        };
        let stars = self.nodes[node]
            .all
            .iter()
            .filter(|star| !set.contains(star));
        self.clauses_at(edge) + stars.map(|star| self.clauses_at(*star)).sum::<usize>()
    }

    fn clauses_at(&self, edge: usize) -> usize {
        let Edge { node, found } = self.edges[edge];
        let passing = node.map_or(&[][..], |node| &self.nodes[node].clauses);
        let ending = found.map(|found| self.matches[found].clause);
        passing.len() + usize::from(ending.is_some_and(|clause| !passing.contains(&clause)))
    }

    /// The sets of edges that any byte may take from some nodes.
    fn following<'n>(&self, nodes: impl Iterator<Item = &'n Node> + Clone) -> Vec<Vec<usize>> {
        let all: Vec<usize> = nodes.clone().flat_map(|node| &node.all).copied().collect();
        let mut bytes: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (byte, edges) in nodes.flat_map(|node| &node.bytes) {
            bytes.entry(*byte).or_default().extend(edges);
        }
        let sets = bytes.into_values().chain([Vec::new()]).map(|mut set| {
            set.extend(&all);
            set.sort_unstable();
            set.dedup();
            set
        });
        sets.filter(|set| !set.is_empty()).collect()
    }
}

/// A wildcard's value as it stands in JSON: its quotes belong to it.
pub(super) fn steps(wildcard: &Wildcard) -> Vec<Step> {
    let mut steps = vec![Step::Byte(b'"')];
    for (i, piece) in wildcard.pieces().into_iter().enumerate() {
        if i > 0 {
            steps.push(Step::Star);
        }
        steps.extend(piece.iter().map(|byte| Step::Byte(*byte)));
    }
    steps.push(Step::Byte(b'"'));
    steps
}

/// Whether the character that the steps begin with has two cases. Characters
/// outside the basic plane are cut off and have none.
fn has_case(steps: &[Step]) -> bool {
    let bytes: Vec<u8> = steps
        .iter()
        .map_while(|step| match step {
            Step::Byte(byte) => Some(*byte),
            Step::Star => None,
        })
        .take(3)
        .collect();
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let first = text.chars().next();
    first.is_some_and(|c| !c.to_lowercase().eq(c.to_uppercase()))
}

/// The wildcards of a list in the order in which a Java `HashSet` of their
/// texts goes through them, which is the order they are built in.
fn in_order(wildcards: &[Wildcard]) -> Vec<&Wildcard> {
    let mut distinct: Vec<&Wildcard> = Vec::new();
    for wildcard in wildcards {
        if !distinct.contains(&wildcard) {
            distinct.push(wildcard);
        }
    }
    let mut buckets = 16;
    while distinct.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    distinct.sort_by_key(|wildcard| {
        let text = format!("\"{}\"", wildcard.text());
        let hash = text.encode_utf16().fold(0_u32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(u32::from(unit))
        });
        (hash ^ (hash >> 16)) as usize % buckets
    });
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::alone;
    use crate::rules::text::Text;

    #[test]
    fn a_wildcard_alone_is_scored_like_any_other() {
        let mut seed = 1_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        for _ in 0..5_000 {
            let len = next() % 14;
            let text: String = (0..len)
                .map(|_| ["*", "a", "1", "\"", "é"][next() % 5])
                .collect();
            let Ok(wildcard) = Wildcard::parse(Text::from(text.as_str())) else {
                continue;
            };
            let mut machine = Machine::default();
            machine.add(&Clause::Wildcard(wildcard.clone()), 0);
            let quick = alone::score(&steps(&wildcard));
            assert_eq!(quick, Some(machine.score()), "{text}");
        }
    }
}
