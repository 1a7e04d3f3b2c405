//! Which routes something may be pending on: of very many, as many rules make them, few
//! at a time, and a bit is looked at sooner than a route.

use super::types::RouteId;

/// A bit for each route that was touched since nothing was pending on it.
#[derive(Debug, Default)]
pub(crate) struct Busy(Vec<u64>);

fn place(route: RouteId) -> (usize, u64) {
    (route.0 as usize / 64, 1 << (route.0 % 64))
}

impl Busy {
    /// Something may be pending on the route from now on.
    pub(crate) fn touch(&mut self, route: RouteId) {
        let (word, bit) = place(route);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    /// Nothing is pending on the route.
    pub(crate) fn idle(&mut self, route: RouteId) {
        let (word, bit) = place(route);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(crate) fn has(&self, route: RouteId) -> bool {
        let (word, bit) = place(route);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}
