//! Events: what has happened, with a stable name and version on the wire. `#[event]` writes these impls.

use crate::codec::{Codec, CodecError};
use serde::Deserializer;
use std::fmt;

/// What the wire needs to know of one variant of an event enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    /// The stable name, `ce_type` on the wire. Renaming a variant must not change it: `#[event(name = "…")]`.
    pub name: &'static str,
    /// The version that is written today.
    pub version: u32,
    /// Former versions that are still read, ascending: an unbroken chain that ends just below `version`.
    pub reads: &'static [u32],
}

/// An event payload could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nobody has this name.
    #[error("unknown type `{name}` (known: {known})")]
    UnknownType {
        /// The name that was found.
        name: String,
        /// The names that are known, separated by commas.
        known: String,
    },
    /// The name is known, the version is not.
    #[error("`{name}` version {version} is unknown: this program reads {reads}")]
    UnknownVersion {
        /// The name that was found.
        name: String,
        /// The version that was found.
        version: u32,
        /// The versions that are read, separated by commas.
        reads: String,
    },
    /// Name and version are known, the bytes don't fit.
    #[error("`{name}` cannot be read: {cause}")]
    Payload {
        /// The name that was found.
        name: String,
        /// What the codec said.
        cause: CodecError,
    },
    /// There is no type header, and the payload carries no tag either.
    #[error("neither a `ce_type` header nor a `type` in the value: {0}")]
    Untyped(CodecError),
}

impl DecodeError {
    /// For a name that is none of `known`.
    pub fn unknown_type<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        DecodeError::UnknownType { name: name.to_owned(), known: known.into_iter().collect::<Vec<_>>().join(", ") }
    }

    /// For a version of `of` that is not read.
    pub fn unknown_version(of: &EventType, version: u32) -> Self {
        let reads = of.reads.iter().chain([&of.version]).map(u32::to_string).collect::<Vec<_>>().join(", ");
        DecodeError::UnknownVersion { name: of.name.to_owned(), version, reads }
    }
}

/// The events of one aggregate: an enum with a name and a version per variant. Written by `#[event]`.
pub trait Event: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The aggregate whose events these are; names topics.
    const AGGREGATE: &'static str;
    /// One entry per variant, in the enum's order.
    const TYPES: &'static [EventType];
    /// How payloads are written.
    type Codec: Codec;

    /// Name and version of this event.
    fn event_type(&self) -> &'static EventType;

    /// Appends the payload, without its tag.
    ///
    /// # Errors
    /// When the codec cannot express it.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Appends the payload with its tag, for places without headers.
    ///
    /// # Errors
    /// When the codec cannot express it.
    fn encode_tagged(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a payload of this name and version, upcasting it to today's version.
    ///
    /// # Errors
    /// An unknown name or version, or a payload that does not fit.
    fn decode(name: &str, version: u32, payload: &[u8]) -> Result<Self, DecodeError>;

    /// Reads what [`encode_tagged`](Event::encode_tagged) wrote.
    ///
    /// # Errors
    /// As [`decode`](Event::decode), and [`DecodeError::Untyped`] where there is no tag.
    fn decode_tagged(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, payload) = Self::Codec::split_tag(bytes).map_err(DecodeError::Untyped)?;
        Self::decode(&tag.name, tag.version, payload)
    }

    /// Reads a payload of this name and version from any deserializer: the laws of es-testkit pass one that invents values.
    /// `None`: no such name and version, or an impl by hand that does without. For generated code only: not covered by any promise.
    #[doc(hidden)]
    fn __invent<'de, D: Deserializer<'de>>(_name: &str, _version: u32, _payload: D) -> Option<Result<Self, D::Error>> {
        None
    }

    /// The error for a name that [`decode`](Event::decode) does not know.
    fn unknown_type(name: &str) -> DecodeError {
        DecodeError::unknown_type(name, Self::TYPES.iter().map(|kind| kind.name))
    }

    /// The error for a version that [`decode`](Event::decode) does not know.
    fn unknown_version(of: &EventType, version: u32) -> DecodeError {
        DecodeError::unknown_version(of, version)
    }
}

/// A struct that is one variant of the event enum `E`. Written by `#[event]`, with the `From` to the enum.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event of `{E}`",
    label = "not a variant of `{E}`",
    note = "events are the structs that `#[event]` makes of the variants of `{E}`"
)]
pub trait VariantOf<E> {}

/// A former version of an event that is read as the next one: every type with a `From`. `#[event(upcast(1 = …))]` asks for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be upcast to `{Newer}`",
    label = "no way from `{Self}` to `{Newer}`",
    note = "write `impl From<{Self}> for {Newer} {{ fn from(old: {Self}) -> Self {{ … }} }}`"
)]
pub trait Upcast<Newer> {
    /// The same fact, as the next version tells it.
    fn upcast(self) -> Newer;
}

#[diagnostic::do_not_recommend]
impl<Old, Newer: From<Old>> Upcast<Newer> for Old {
    fn upcast(self) -> Newer {
        Newer::from(self)
    }
}

/// What can be emitted: one event, a tuple, array, `Vec` or `Option` of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be emitted as events of `{E}`",
    label = "neither an event of `{E}`, nor a tuple, array, `Vec` or `Option` of them"
)]
pub trait IntoEvents<E> {
    /// Appends these events in their order.
    fn append_to(self, events: &mut Vec<E>);
}

impl<E, T: IntoEvents<E>> IntoEvents<E> for Vec<T> {
    fn append_to(self, events: &mut Vec<E>) {
        self.into_iter().for_each(|e| e.append_to(events));
    }
}

impl<E, T: IntoEvents<E>> IntoEvents<E> for Option<T> {
    fn append_to(self, events: &mut Vec<E>) {
        self.into_iter().for_each(|e| e.append_to(events));
    }
}

impl<E, T: IntoEvents<E>, const N: usize> IntoEvents<E> for [T; N] {
    fn append_to(self, events: &mut Vec<E>) {
        self.into_iter().for_each(|e| e.append_to(events));
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<E, $($name: IntoEvents<E>),*> IntoEvents<E> for ($($name,)*) {
            #[allow(non_snake_case, unused_variables)]
            fn append_to(self, events: &mut Vec<E>) {
                let ($($name,)*) = self;
                $($name.append_to(events);)*
            }
        }
    };
}
tuples!();
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D F);
tuples!(A B C D F G);

/// Dispatch of an event enum to the [`Fold`](crate::Fold) impls of a state `S`: its bound list is the check that no event is forgotten.
/// Written by `#[event]`.
pub trait FoldInto<S> {
    /// Folds this event into `state`.
    fn fold_into(self, state: &mut S);
}
