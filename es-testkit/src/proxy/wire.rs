//! The primitive types of Kafka's protocol, read from a body. Nothing is copied; a field that is not there is `None`.

/// A place in a body, which moves on with each field.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether lengths are varints and structures end in tagged fields (KIP-482).
    flexible: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize, flexible: bool) -> Self {
        Fields { bytes, at, flexible }
    }

    /// Where the next field begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    pub(super) fn i8(&mut self) -> Option<i8> {
        self.take(1).map(|b| b[0] as i8)
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A string; `Some(None)` is null.
    pub(super) fn string(&mut self) -> Option<Option<&'a str>> {
        let length = if self.flexible { i64::from(self.varint()?) - 1 } else { i64::from(self.i16()?) };
        self.text(length)
    }

    /// A string of a request's header, whose length is never a varint.
    pub(super) fn plain_string(&mut self) -> Option<Option<&'a str>> {
        let length = self.i16()?;
        self.text(length.into())
    }

    /// The number of an array's elements; none for null.
    pub(super) fn array(&mut self) -> Option<usize> {
        let length = if self.flexible { i64::from(self.varint()?) - 1 } else { i64::from(self.i32()?) };
        // Each element has a byte at least: a number that cannot be is no reason to count that far.
        usize::try_from(length.max(0)).ok().filter(|count| *count <= self.bytes.len())
    }

    /// The tagged fields at the end of a structure.
    pub(super) fn tags(&mut self) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.skip(size as usize)?;
        }
        Some(())
    }

    fn text(&mut self, length: i64) -> Option<Option<&'a str>> {
        match usize::try_from(length) {
            Ok(length) => Some(Some(std::str::from_utf8(self.take(length)?).ok()?)),
            Err(_) => Some(None),
        }
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

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_and_plain_fields_are_read_and_what_is_missing_is_none() {
        let mut plain = Fields::new(&[0, 2, b'h', b'i', 0xff, 0xff, 0, 0, 0, 3, 7], 0, false);
        assert_eq!(plain.string(), Some(Some("hi")));
        assert_eq!(plain.string(), Some(None));
        assert_eq!((plain.array(), plain.i8(), plain.i8()), (Some(3), Some(7), None));
        let mut compact = Fields::new(&[3, b'h', b'i', 0, 1, 0, 2, 9, 9, 4, 0], 0, true);
        assert_eq!(compact.string(), Some(Some("hi")));
        assert_eq!(compact.string(), Some(None));
        assert_eq!(compact.tags(), Some(()));
        assert_eq!((compact.array(), compact.array(), compact.array()), (Some(3), Some(0), None));
    }

    #[test]
    fn lengths_beyond_the_body_are_refused() {
        assert_eq!(Fields::new(&[0x7f, 0xff, b'x'], 0, false).string(), None);
        assert_eq!(Fields::new(&[0x7f, 0xff, 0xff, 0xff], 0, false).array(), None);
        assert_eq!(Fields::new(&[0xff; 9], 0, true).string(), None);
        assert_eq!(Fields::new(&[0xff; 9], 0, true).tags(), None);
    }
}
