//! A serde deserializer that makes values up: whatever type asks, it answers from a tape of numbers.
//!
//! Small numbers make small values, and where the tape ends all is zero, empty and absent; so shrinking the tape shrinks the value. A
//! type that reads a string and refuses what it finds (a date, a UUID) is offered strings of common formats instead.

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// The longest sequence and map.
const LONGEST: usize = 8;

/// Makes a value up from `tape`: `invent` is called with the deserializer, more than once where strings are refused.
pub(crate) fn invent<T>(tape: &[u64], invent: impl Fn(Inventor<'_>) -> Result<T, Unfit>) -> Result<T, Unfit> {
    let mut formats = Vec::new();
    loop {
        let source = Source { tape: tape.iter(), formats: &formats, strings: 0 };
        let source = RefCell::new(source);
        let unfit = match invent(Inventor(&source)) {
            Ok(value) => return Ok(value),
            Err(unfit) => unfit,
        };
        // The last string that was asked for is the one that was refused.
        let strings = source.borrow().strings;
        formats.truncate(strings);
        formats.resize(strings, 0);
        match formats.last_mut() {
            Some(format) if *format < FORMATS.len() => *format += 1,
            _ => return Err(unfit),
        }
    }
}

/// No value came of it: the type refused what was invented, or cannot be invented for.
#[derive(Debug)]
pub(crate) struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Unfit {}
impl de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unfit(message.to_string())
    }
}

/// The deserializer.
#[derive(Clone, Copy)]
pub(crate) struct Inventor<'a>(&'a RefCell<Source<'a>>);

struct Source<'a> {
    tape: std::slice::Iter<'a, u64>,
    /// For each string in turn: 0 for an invented one, else a format of `FORMATS`.
    formats: &'a [usize],
    /// How many strings were asked for.
    strings: usize,
}

impl Inventor<'_> {
    fn word(self) -> u64 {
        self.0.borrow_mut().tape.next().copied().unwrap_or(0)
    }

    /// 0, -1, 1, -2, 2, …
    fn signed(self) -> i64 {
        let word = self.word();
        (word >> 1) as i64 ^ -((word & 1) as i64)
    }

    fn string(self) -> String {
        let word = self.word();
        let mut source = self.0.borrow_mut();
        let format = source.formats.get(source.strings).copied().unwrap_or(0);
        source.strings += 1;
        match format {
            0 => text(word),
            n => FORMATS[n - 1](word),
        }
    }

    /// An element is followed by another in three of four cases.
    fn length(self) -> usize {
        (0..LONGEST).take_while(|_| !self.word().is_multiple_of(4)).count()
    }
}

/// "", "a", "b", …, "z", "aa", …, and at times something that breaks careless code.
fn text(word: u64) -> String {
    const ODD: [&str; 8] = [" ", "\"", "\\", "\n", "ä", "🦀", "null", "\u{0}"];
    if word > 100 && word % 8 == 7 {
        return ODD[(word / 8 % 8) as usize].to_owned();
    }
    let (mut letters, mut rest) = (Vec::new(), word);
    while rest > 0 {
        rest -= 1;
        letters.push(b'a' + (rest % 26) as u8);
        rest /= 26;
    }
    letters.iter().rev().map(|&letter| char::from(letter)).collect()
}

/// Formats that types read from strings, each with a value of its own for most words.
const FORMATS: [fn(u64) -> String; 9] = [
    |word| (word % 1000).to_string(),
    |word| format!("2000-01-{:02}T00:00:{:02}Z", 1 + word % 28, word % 60),
    |word| format!("2000-01-{:02}", 1 + word % 28),
    |word| format!("2000-01-{:02}T00:00:{:02}", 1 + word % 28, word % 60),
    |word| format!("{:02}:00:{:02}", word % 24, word % 60),
    |word| format!("00000000-0000-4000-8000-{:012x}", word & 0xffff_ffff_ffff),
    |word| format!("10.0.0.{}", word % 256),
    |word| format!("http://host-{word}.example/"),
    |word| format!("user-{word}@host.example"),
];

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty: $word:ident),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            visitor.$visit(self.$word() as $type)
        })+
    };
}

impl<'de> Deserializer<'de> for Inventor<'_> {
    type Error = Unfit;

    /// Types with a short binary form (UUIDs, addresses) then take that, which is easier to invent.
    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unfit> {
        Err(Unfit(
            "the type is read by looking at what is there (an untagged or internally tagged enum, `flatten`, or any JSON value)".to_owned(),
        ))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_bool(self.word() % 2 == 1)
    }

    numbers!(
        deserialize_u8 visit_u8 u8: word,
        deserialize_u16 visit_u16 u16: word,
        deserialize_u32 visit_u32 u32: word,
        deserialize_u64 visit_u64 u64: word,
        deserialize_u128 visit_u128 u128: word,
        deserialize_i8 visit_i8 i8: signed,
        deserialize_i16 visit_i16 i16: signed,
        deserialize_i32 visit_i32 i32: signed,
        deserialize_i64 visit_i64 i64: signed,
        deserialize_i128 visit_i128 i128: signed
    );

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_f32(self.signed() as i16 as f32 / 8.0)
    }

    /// Numbers that every JSON reader gives back exactly.
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_f64(f64::from(self.signed() as i32) / 8.0)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let word = self.word();
        let letter = char::from(b'a' + (word % 26) as u8);
        visitor.visit_char(if word < 1000 { letter } else { char::from_u32((word % 0x11_0000) as u32).unwrap_or(letter) })
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_string(self.string())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_string(self.string())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_string(self.string())
    }

    /// Sixteen bytes, as a UUID wants them, or now and then none.
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let word = self.word();
        visitor.visit_byte_buf(if word % 16 == 15 { Vec::new() } else { u128::from(word).to_be_bytes().to_vec() })
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        if self.word() % 2 == 1 { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_seq(Elements { source: self, left: self.length() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_seq(Elements { source: self, left: length })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, length: usize, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_seq(Elements { source: self, left: length })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_map(Elements { source: self, left: self.length() })
    }

    /// By position: `fields` also lists the aliases of a field, each of which would count as a second one.
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_seq(Elements { source: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, variants: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        if variants.is_empty() {
            return Err(Unfit("an enum without variants has no values".to_owned()));
        }
        visitor.visit_enum(Variant { source: self, index: (self.word() % variants.len() as u64) as u32 })
    }
}

struct Elements<'a> {
    source: Inventor<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Unfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unfit> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.source).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'_> {
    type Error = Unfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unfit> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unfit> {
        seed.deserialize(self.source)
    }
}

struct Variant<'a> {
    source: Inventor<'a>,
    index: u32,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Unfit;
    type Variant = Inventor<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Inventor<'a>), Unfit> {
        let index: U32Deserializer<Unfit> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self.source))
    }
}

impl<'de> VariantAccess<'de> for Inventor<'_> {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unfit> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize, Debug, PartialEq)]
    enum Kind {
        None,
        One(i8),
        Some {
            #[serde(alias = "n")]
            name: String,
            at: Option<char>,
        },
    }

    #[derive(Deserialize, Debug, PartialEq)]
    struct All {
        flag: bool,
        number: u32,
        kind: Kind,
        list: Vec<u8>,
        map: BTreeMap<String, f64>,
        #[serde(skip)]
        skipped: u8,
        pair: (i64, ()),
    }

    fn invented<T: for<'de> Deserialize<'de>>(tape: &[u64]) -> Result<T, Unfit> {
        invent(tape, |inventor| T::deserialize(inventor))
    }

    #[test]
    fn an_empty_tape_gives_the_smallest_value() {
        let smallest = All { flag: false, number: 0, kind: Kind::None, list: vec![], map: BTreeMap::new(), skipped: 0, pair: (0, ()) };
        assert_eq!(invented::<All>(&[]).unwrap(), smallest);
    }

    #[test]
    fn each_word_decides_one_thing() {
        let tape = [
            1,
            u64::MAX,
            2,
            28,
            1,
            3,
            /* the list's length */ 1,
            1,
            4,
            7,
            8,
            /* the map's */ 1,
            0,
            26,
            16,
            /* the pair */ 3,
        ];
        let value = invented::<All>(&tape).unwrap();
        assert_eq!((value.flag, value.number), (true, u32::MAX));
        assert_eq!(value.kind, Kind::Some { name: "ab".into(), at: Some('d') });
        assert_eq!(value.list, [7, 8]);
        assert_eq!(value.map, BTreeMap::from([("z".to_owned(), 1.0)]));
        assert_eq!(value.pair, (-2, ()));
        assert_eq!(invented::<Kind>(&[1, 1]).unwrap(), Kind::One(-1));
    }

    #[test]
    fn strings_that_are_refused_are_replaced_by_common_formats() {
        #[derive(Debug, PartialEq)]
        struct Date(String);
        impl<'de> Deserialize<'de> for Date {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parts: Vec<_> = text.split('-').map(str::len).collect();
                if parts == [4, 2, 2] { Ok(Date(text)) } else { Err(de::Error::custom("not a date")) }
            }
        }
        let (name, date, address) = invented::<(String, Date, std::net::Ipv4Addr)>(&[1, 30, 7]).unwrap();
        assert_eq!((name.as_str(), date, address.octets()[0]), ("a", Date("2000-01-03".into()), 7));
    }

    #[test]
    fn what_cannot_be_invented_says_why() {
        #[derive(Deserialize, Debug)]
        #[serde(untagged)]
        enum Either {
            #[expect(dead_code, reason = "never read")]
            Number(u8),
        }
        assert!(invented::<Either>(&[]).unwrap_err().to_string().contains("untagged"));
        #[derive(Debug)]
        struct Never;
        impl<'de> Deserialize<'de> for Never {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).and_then(|_| Err(de::Error::custom("never")))
            }
        }
        assert_eq!(invented::<Never>(&[]).unwrap_err().to_string(), "never");
    }
}
