//! What the code that the macros generate names. For it alone: not covered by any promise.

pub use crate::aggregate::{Aggregate, Fold, Folds};
pub use crate::codec::{Codec, CodecError, Json, Tag};
pub use crate::command::Command;
pub use crate::event::{DecodeError, Event, EventType, FoldInto, IntoEvents, Upcast, VariantOf};
pub use es_macros::{AggregateEsKafka, CommandEsKafka, EventEnum, event_es_kafka};
pub use serde;

use std::borrow::Cow;

/// Reads the payload of the event or command `name`.
///
/// # Errors
/// When the bytes don't fit.
pub fn payload<C: Codec, T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, DecodeError> {
    C::decode(bytes).map_err(|cause| DecodeError::Payload { name: name.to_owned(), cause })
}

/// The tag of a payload.
pub fn tag(name: &str, version: u32) -> Tag<'_> {
    Tag { name: Cow::Borrowed(name), version }
}

/// The result of checked arithmetic, for a fold.
///
/// # Panics
/// When there is none; the engine then dead-letters the command that caused the event.
#[track_caller]
pub fn in_range<T>(result: Option<T>, field: &str, event: &str) -> T {
    match result {
        Some(value) => value,
        None => panic!("`{field}` overflows in `{event}`"),
    }
}
