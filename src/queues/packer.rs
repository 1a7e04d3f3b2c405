//! What a route of the log holds, as messages for a broker.

use super::broker::Outbound;
use super::wire;
use crate::bus::{Bus, RouteId};
use crate::handlers::{Failure, Message};
use bytes::Bytes;

/// Makes the messages of one route.
pub struct Packer {
    /// The log that they come from.
    pub bus: Bus,
    /// The route.
    pub route: RouteId,
    /// Its name.
    pub route_name: String,
    /// Names this log among others that publish to the same place.
    pub node: String,
}

impl Packer {
    /// A message with this body, and with what Pointsman knows beside the event.
    pub(super) fn pack(&self, message: &Message, body: &Bytes) -> Result<Outbound, Failure> {
        let stored = self.bus.get(message.seq).ok().flatten().ok_or_else(|| {
            Failure::transient("NotKept", "the event cannot be read from the log")
        })?;
        let key = stored
            .deliveries
            .iter()
            .find(|delivery| delivery.route == self.route)
            .and_then(|delivery| delivery.key.clone());
        let mut delivery = format!("{}/{}/{}", self.node, self.route_name, message.seq);
        if let Some(replay) = self.bus.replay_of(self.route, message.seq) {
            // A replay is meant to be handled again.
            delivery = format!("{delivery}/{replay}");
        }
        let mut out = wire::outbound(&message.event, &stored, &self.route_name, delivery, key);
        out.body = body.clone();
        Ok(out)
    }
}
