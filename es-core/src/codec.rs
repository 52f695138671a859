//! How values become bytes: JSON on the wire by default, postcard for the changelog and the store.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::borrow::Cow;

/// A value could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// The name and version that a payload carries *inside itself* where no header does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The stable name of the event or command.
    pub name: Cow<'a, str>,
    /// The version of its payload; 1 where none is written.
    pub version: u32,
}

/// A pair of functions between values and bytes. Stateless: a codec is named by its type.
///
/// ```
/// use es_core::codec::{Codec, Json};
/// let mut bytes = Vec::new();
/// Json::encode(&vec![1, 2], &mut bytes).unwrap();
/// assert_eq!(bytes, b"[1,2]");
/// assert_eq!(Json::decode::<Vec<u8>>(&bytes).unwrap(), [1, 2]);
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The MIME type that goes into the `content-type` header.
    const CONTENT_TYPE: &'static str;

    /// Appends `value` to `out`.
    ///
    /// # Errors
    /// When the value has no representation in this codec; `out` then ends in rubbish and is to be truncated by the caller.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads one value that fills all of `bytes`.
    ///
    /// # Errors
    /// When `bytes` are not a whole value of this type.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;

    /// Appends `payload` with its tag, for places without headers. JSON: one more field `"type"` (and `"version"` where it is not 1).
    ///
    /// # Errors
    /// As [`encode`](Codec::encode); in JSON also when the payload is not an object.
    fn encode_tagged<T: Serialize + ?Sized>(tag: &Tag<'_>, payload: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads the tag of what [`encode_tagged`](Codec::encode_tagged) wrote, and tells where the payload is.
    ///
    /// # Errors
    /// When there is no tag.
    fn split_tag(bytes: &[u8]) -> Result<(Tag<'_>, &[u8]), CodecError>;
}

/// JSON, as every Kafka client and tool reads it. Unknown fields are ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

#[derive(Deserialize)]
struct JsonTag<'a> {
    #[serde(borrow, rename = "type")]
    name: Cow<'a, str>,
    #[serde(default = "first_version")]
    version: u32,
}

fn first_version() -> u32 {
    1
}

impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(out, value).map_err(|e| CodecError(e.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|e| CodecError(e.to_string()))
    }

    fn encode_tagged<T: Serialize + ?Sized>(tag: &Tag<'_>, payload: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        out.extend_from_slice(b"{\"type\":");
        Self::encode(&*tag.name, out)?;
        if tag.version != 1 {
            out.extend_from_slice(format!(",\"version\":{}", tag.version).as_bytes());
        }
        let brace = out.len();
        Self::encode(payload, out)?;
        match &out[brace..] {
            [b'{', b'}'] => out.truncate(brace),
            [b'{', ..] => {
                out[brace] = b',';
                return Ok(());
            }
            _ => {
                out.truncate(start);
                return Err(CodecError(format!("the payload of `{}` is not a JSON object, so it cannot carry its own type", tag.name)));
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn split_tag(bytes: &[u8]) -> Result<(Tag<'_>, &[u8]), CodecError> {
        // serde would read the fields of a struct from an array too.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(CodecError("it is a JSON array, and only an object can carry its own type".to_owned()));
        }
        let tag: JsonTag<'_> = serde_json::from_slice(bytes).map_err(|e| CodecError(e.to_string()))?;
        Ok((Tag { name: tag.name, version: tag.version }, bytes))
    }
}

/// [postcard](https://docs.rs/postcard): small and fast, not self-describing. For the changelog and the store, and for events on request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

impl Codec for Postcard {
    const CONTENT_TYPE: &'static str = "application/vnd.postcard";

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut serializer = postcard::Serializer { output: Appending(out) };
        value.serialize(&mut serializer).map_err(|e| CodecError(e.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(CodecError(format!("{} bytes are left over behind the value", rest.len()))),
            Err(e) => Err(CodecError(e.to_string())),
        }
    }

    fn encode_tagged<T: Serialize + ?Sized>(tag: &Tag<'_>, payload: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Self::encode(&(&*tag.name, tag.version), out)?;
        Self::encode(payload, out)
    }

    fn split_tag(bytes: &[u8]) -> Result<(Tag<'_>, &[u8]), CodecError> {
        let ((name, version), rest) = postcard::take_from_bytes::<(&str, u32)>(bytes).map_err(|e| CodecError(e.to_string()))?;
        Ok((Tag { name: Cow::Borrowed(name), version }, rest))
    }
}

/// postcard's output straight into the caller's buffer.
struct Appending<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Deposited {
        amount: u64,
    }
    #[derive(Serialize)]
    struct Closed {}

    fn tagged<C: Codec>() {
        let mut out = b"before".to_vec();
        C::encode_tagged(&Tag { name: "Deposited".into(), version: 3 }, &Deposited { amount: 5 }, &mut out).unwrap();
        let (tag, payload) = C::split_tag(&out[6..]).unwrap();
        assert_eq!((&*tag.name, tag.version), ("Deposited", 3));
        assert_eq!(C::decode::<Deposited>(payload).unwrap(), Deposited { amount: 5 });
        assert!(C::split_tag(b"").is_err());
    }

    #[test]
    fn a_tagged_payload_comes_back_in_both_codecs() {
        tagged::<Json>();
        tagged::<Postcard>();
    }

    #[test]
    fn tagged_json_is_what_a_person_would_write() {
        let mut out = Vec::new();
        Json::encode_tagged(&Tag { name: "Deposited".into(), version: 1 }, &Deposited { amount: 5 }, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"type":"Deposited","amount":5}"#);
        let mut out = Vec::new();
        Json::encode_tagged(&Tag { name: "Closed".into(), version: 2 }, &Closed {}, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"type":"Closed","version":2}"#);
        assert!(Json::encode_tagged(&Tag { name: "Odd".into(), version: 1 }, &7, &mut Vec::new()).is_err());
    }

    #[test]
    fn an_array_carries_no_tag() {
        assert!(Json::split_tag(br#" ["Closed"]"#).unwrap_err().0.contains("array"));
    }

    #[test]
    fn postcard_refuses_left_over_bytes() {
        let mut out = Vec::new();
        Postcard::encode(&Deposited { amount: 5 }, &mut out).unwrap();
        out.push(0);
        assert!(Postcard::decode::<Deposited>(&out).is_err());
    }
}
