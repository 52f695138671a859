//! The laws of what is written: it is the same when it is read back.

use super::{Broken, Checked, Law};
use crate::diff::diff;
use es_core::{Codec, Command, Event, Postcard};
use std::fmt;

/// Writes a state as the changelog does, and reads it back.
pub(crate) fn snapshot_round_trip<A: Checked>(state: &A, which: &dyn fmt::Display) -> Result<A, Broken> {
    let broken = |finding| Broken { law: Law::SnapshotRoundTrip, finding };
    let mut bytes = Vec::new();
    Postcard::encode(state, &mut bytes).map_err(|e| broken(format!("{which} cannot be written: {e}\n{state:#?}")))?;
    let back = Postcard::decode::<A>(&bytes)
        .map_err(|e| broken(format!("{which} was written, but cannot be read back: {e}\n{state:#?}\n{NOT_SELF_DESCRIBING}")))?;
    match back == *state {
        true => Ok(back),
        false => Err(broken(format!("{which} was read back (+) as another than was written (-)\n{}", diff(state, &back)))),
    }
}

const NOT_SELF_DESCRIBING: &str = "The changelog is written in postcard, which is not self-describing: a state has \
    no `untagged` or internally tagged enum, no `flatten` and no `skip_serializing_if`.";

/// Writes an event and reads it back, with and without its tag.
pub(crate) fn event_round_trip<E: Event + PartialEq>(event: &E) -> Result<(), Broken> {
    let kind = event.event_type();
    let name = format!("`{}` version {}", kind.name, kind.version);
    let broken = |finding| Broken { law: Law::EventRoundTrip, finding };
    let (mut plain, mut tagged) = (Vec::new(), Vec::new());
    event.encode(&mut plain).map_err(|e| broken(format!("{name} cannot be written: {e}\n{event:#?}")))?;
    event.encode_tagged(&mut tagged).map_err(|e| broken(format!("{name} cannot be written with its tag: {e}\n{event:#?}")))?;
    for (how, bytes, back) in
        [("", &plain, E::decode(kind.name, kind.version, &plain)), (" with its tag", &tagged, E::decode_tagged(&tagged))]
    {
        let text = String::from_utf8_lossy(bytes);
        let back = back.map_err(|e| broken(format!("{name} was written{how}, but cannot be read back: {e}\n{text}")))?;
        if back != *event {
            return Err(broken(format!("{name} was read back{how} (+) as another than was written (-)\n{}\n{text}", diff(event, &back))));
        }
    }
    Ok(())
}

/// Writes a command and reads it back, with and without its tag, and compares what is printed. A command that cannot be written is left out:
/// it may well be something that only arrives.
pub(crate) fn command_round_trip<C: Command>(command: &C) -> Result<(), Broken> {
    let name = command.name();
    let broken = |finding| Broken { law: Law::CommandRoundTrip, finding };
    let (mut plain, mut tagged) = (Vec::new(), Vec::new());
    let mut read = Vec::new();
    if command.encode(&mut plain).is_ok() {
        read.push(("", &plain, C::decode(name, &plain)));
    }
    if command.encode_tagged(&mut tagged).is_ok() {
        read.push((" with its tag", &tagged, C::decode_tagged(&tagged)));
    }
    for (how, bytes, back) in read {
        let text = String::from_utf8_lossy(bytes);
        let back = back.map_err(|e| broken(format!("`{name}` was written{how}, but cannot be read back: {e}\n{text}")))?;
        if format!("{back:?}") != format!("{command:?}") {
            let lines = diff(command, &back);
            return Err(broken(format!("`{name}` was read back{how} (+) as another than was written (-)\n{lines}\n{text}")));
        }
    }
    Ok(())
}
