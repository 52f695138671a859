//! The primitive types of flexible messages (KIP-482), for the one message that the protocol's library lacks.

use bytes::{BufMut, Bytes, BytesMut};

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) BytesMut);

impl Writer {
    pub(super) fn i8(&mut self, value: i8) {
        self.0.put_i8(value);
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.0.put_i16(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.put_u16(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(super) fn string(&mut self, value: &str) {
        self.length(value.len());
        self.0.put_slice(value.as_bytes());
    }

    /// A string or null.
    pub(super) fn optional_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.null(),
        }
    }

    /// An array of what `write` writes.
    pub(super) fn array<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.length(items.len());
        items.for_each(|item| write(self, item));
    }

    /// Null, for a string or an array.
    pub(super) fn null(&mut self) {
        self.0.put_u8(0);
    }

    /// No tagged fields: the end of every structure.
    pub(super) fn end(&mut self) {
        self.0.put_u8(0);
    }

    /// A length, one more than it is, as a varint.
    fn length(&mut self, length: usize) {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.0.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.put_u8(rest as u8);
    }
}

/// A message that is being read. What is missing or cannot be is `None`.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn i8(&mut self) -> Option<i8> {
        self.take(1).map(|b| b[0] as i8)
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.as_ref().try_into().ok()?))
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.i16().map(i16::cast_unsigned)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.as_ref().try_into().ok()?))
    }

    pub(super) fn string(&mut self) -> Option<String> {
        self.optional_string()?
    }

    /// A string; `Some(None)` is null.
    pub(super) fn optional_string(&mut self) -> Option<Option<String>> {
        let Some(length) = self.length()? else { return Some(None) };
        String::from_utf8(self.take(length)?.to_vec()).ok().map(Some)
    }

    pub(super) fn array<T>(&mut self, read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.optional_array(read)?
    }

    /// An array of what `read` reads; `Some(None)` is null.
    pub(super) fn optional_array<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Option<Vec<T>>> {
        let Some(count) = self.length()? else { return Some(None) };
        // Each element has a byte at least: a number that cannot be is no reason to reserve that much.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Some(Some(items))
    }

    /// Tagged fields, none of which is known.
    pub(super) fn end(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(size as usize)?;
        }
        Some(())
    }

    fn length(&mut self) -> Option<Option<usize>> {
        Some((self.varint()? as usize).checked_sub(1))
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.take(1)?[0];
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Writer::default();
        out.i8(-1);
        out.i16(300);
        out.u16(65_535);
        out.i32(-70_000);
        out.string(&"x".repeat(200));
        out.optional_string(None);
        out.array([1, 2, 3].into_iter(), |out, n| out.i32(n));
        out.null();
        out.end();
        let mut read = Reader(out.0.freeze());
        assert_eq!((read.i8(), read.i16(), read.u16(), read.i32()), (Some(-1), Some(300), Some(65_535), Some(-70_000)));
        assert_eq!((read.string(), read.optional_string()), (Some("x".repeat(200)), Some(None)));
        assert_eq!(read.array(Reader::i32), Some(vec![1, 2, 3]));
        assert_eq!((read.optional_array(Reader::i32), read.end(), read.i8()), (Some(None), Some(()), None));
    }

    #[test]
    fn lengths_beyond_the_message_and_endless_varints_are_refused() {
        assert_eq!(Reader(Bytes::from_static(&[9, b'x'])).string(), None);
        assert_eq!(Reader(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f])).array(Reader::i8), None);
        assert_eq!(Reader(Bytes::from_static(&[0xff; 9])).end(), None);
    }
}
