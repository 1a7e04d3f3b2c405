//! Files that get another name in the folder, where the bus wants to hear of it.
//!
//! The bus is told before the ledger has the new name: should the program die in
//! between, the next scan pairs the names again, and the bus knows the event.

use super::engine::Engine;
use super::events::Version;
use super::look::{Key, Look};
use super::record::Op;
use crate::state::StateError;

impl Engine {
    /// A file that is known as `from` is called `to` now.
    pub(super) fn note_move(
        &mut self,
        from: &Key,
        to: &Key,
        look: &Look,
    ) -> Result<(), StateError> {
        let Some(row) = self.ledger.row(from)? else {
            return Ok(());
        };
        let version = Version {
            key: to,
            look,
            hash: row.hash.as_deref(),
            salt: row.salt,
            sequencer: row.sequencer,
        };
        match version.moved(&self.options, from) {
            Ok(event) => self.moves.push(event),
            Err(error) => self.board.fail(to, &error.to_string(), self.clock.now_ms()),
        }
        Ok(())
    }

    /// Tells the bus of what was noted. When the program is to stop first, the
    /// ledger keeps the old names.
    pub(super) fn tell_moves(&mut self) {
        let moves = std::mem::take(&mut self.moves);
        if moves.is_empty() {
            return;
        }
        match self.hand_in(&moves) {
            Some(answers) => answers.into_iter().for_each(|answer| {
                self.count_answer(answer, false);
            }),
            None => self.ops.retain(|op| !matches!(op, Op::Rename(..))),
        }
    }
}
