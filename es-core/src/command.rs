//! Commands: what can be asked of an aggregate. `#[derive(Command)]` writes these impls.

use crate::codec::{Codec, CodecError};
use crate::event::DecodeError;
use serde::Deserializer;
use std::borrow::Cow;
use std::fmt;

/// The commands of one aggregate: an enum with a stable name per variant. Written by `#[derive(Command)]`.
pub trait Command: fmt::Debug + Send + Sync + Sized + 'static {
    /// The stable names of the variants, in the enum's order.
    const NAMES: &'static [&'static str];
    /// How payloads are read.
    type Codec: Codec;

    /// The name of this command, `ce_type` on the wire.
    fn name(&self) -> &'static str;

    /// The id of the aggregate that the command is for, where a field of it was declared as the key.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Appends the payload, without its tag.
    ///
    /// # Errors
    /// When the codec cannot express it.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Appends the payload with its tag: what a producer without headers would send.
    ///
    /// # Errors
    /// When the codec cannot express it.
    fn encode_tagged(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a payload of this name.
    ///
    /// # Errors
    /// An unknown name, or a payload that does not fit.
    fn decode(name: &str, payload: &[u8]) -> Result<Self, DecodeError>;

    /// Reads a payload that carries its own tag (JSON: `{"type":"Deposit",…}`).
    ///
    /// # Errors
    /// As [`decode`](Command::decode), and [`DecodeError::Untyped`] where there is no tag.
    fn decode_tagged(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, payload) = Self::Codec::split_tag(bytes).map_err(DecodeError::Untyped)?;
        Self::decode(&tag.name, payload)
    }

    /// Reads a payload of this name from any deserializer: the laws of es-testkit pass one that invents values.
    /// `None`: no such name, or an impl by hand that does without. For generated code only: not covered by any promise.
    #[doc(hidden)]
    fn __invent<'de, D: Deserializer<'de>>(_name: &str, _payload: D) -> Option<Result<Self, D::Error>> {
        None
    }

    /// The error for a name that [`decode`](Command::decode) does not know.
    fn unknown_type(name: &str) -> DecodeError {
        DecodeError::unknown_type(name, Self::NAMES.iter().copied())
    }
}
