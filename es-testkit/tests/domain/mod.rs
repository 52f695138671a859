//! Domains for the tests, with the impls that the macros would write.
#![allow(dead_code, reason = "each test binary uses its part")]

/// The events of one aggregate: an enum, a struct per variant, and their impls.
#[macro_export]
macro_rules! events {
    ($name:ident of $aggregate:literal { $($variant:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* } $(was $old:ident)?),+ $(,)? }) => {
        $(
            #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
            pub struct $variant { $($(#[$attribute])* pub $field: $type),* }

            impl From<$variant> for $name {
                fn from(event: $variant) -> Self { $name::$variant(event) }
            }
            impl ::es_core::VariantOf<$name> for $variant {}
            impl ::es_core::IntoEvents<$name> for $variant {
                fn append_to(self, events: &mut Vec<$name>) { events.push(self.into()) }
            }
        )+

        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($variant($variant)),+ }

        impl ::es_core::IntoEvents<$name> for $name {
            fn append_to(self, events: &mut Vec<$name>) { events.push(self) }
        }

        impl ::es_core::Event for $name {
            const AGGREGATE: &'static str = $aggregate;
            const TYPES: &'static [::es_core::EventType] = &[$(
                ::es_core::EventType { name: stringify!($variant), version: $crate::events!(@version $($old)?), reads: $crate::events!(@reads $($old)?) }
            ),+];
            type Codec = ::es_core::Json;

            fn event_type(&self) -> &'static ::es_core::EventType {
                let name = match self { $($name::$variant(_) => stringify!($variant)),+ };
                Self::TYPES.iter().find(|t| t.name == name).unwrap()
            }
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), ::es_core::codec::CodecError> {
                match self { $($name::$variant(event) => <::es_core::Json as ::es_core::Codec>::encode(event, out)),+ }
            }
            fn encode_tagged(&self, out: &mut Vec<u8>) -> Result<(), ::es_core::codec::CodecError> {
                let kind = self.event_type();
                let tag = ::es_core::codec::Tag { name: kind.name.into(), version: kind.version };
                match self { $($name::$variant(event) => <::es_core::Json as ::es_core::Codec>::encode_tagged(&tag, event, out)),+ }
            }
            fn decode(name: &str, version: u32, payload: &[u8]) -> Result<Self, ::es_core::event::DecodeError> {
                let mut json = ::serde_json::Deserializer::from_slice(payload);
                match Self::__invent(name, version, &mut json) {
                    Some(read) => read.map_err(|e| ::es_core::event::DecodeError::Payload { name: name.into(), cause: ::es_core::codec::CodecError(e.to_string()) }),
                    None => Err(Self::unknown_type(name)),
                }
            }
            fn __invent<'de, D: ::serde::Deserializer<'de>>(name: &str, version: u32, payload: D) -> Option<Result<Self, D::Error>> {
                let kind = Self::TYPES.iter().find(|t| t.name == name)?;
                $(if name == stringify!($variant) {
                    if version == kind.version {
                        return Some(<$variant as ::serde::Deserialize>::deserialize(payload).map(Into::into));
                    }
                    $(if version == 1 {
                        return Some(<$old as ::serde::Deserialize>::deserialize(payload).map(|old| $variant::from(old).into()));
                    })?
                })+
                None
            }
        }

        impl<S: $(::es_core::Fold<$variant> +)+> ::es_core::FoldInto<S> for $name where S: ::es_core::Folds<Event = $name> {
            fn fold_into(self, state: &mut S) {
                match self { $($name::$variant(event) => ::es_core::Fold::fold(state, event)),+ }
            }
        }
    };
    (@version) => { 1 };
    (@version $old:ident) => { 2 };
    (@reads) => { &[] };
    (@reads $old:ident) => { &[1] };
}

/// The commands of one aggregate.
#[macro_export]
macro_rules! commands {
    ($name:ident { $($variant:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* }),+ $(,)? }) => {
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(tag = "type")]
        pub enum $name { $($variant { $($(#[$attribute])* $field: $type),* }),+ }

        impl ::es_core::Command for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];
            type Codec = ::es_core::Json;

            fn name(&self) -> &'static str {
                match self { $($name::$variant { .. } => stringify!($variant)),+ }
            }
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), ::es_core::codec::CodecError> {
                <::es_core::Json as ::es_core::Codec>::encode(self, out)
            }
            fn encode_tagged(&self, out: &mut Vec<u8>) -> Result<(), ::es_core::codec::CodecError> {
                self.encode(out)
            }
            fn decode(name: &str, payload: &[u8]) -> Result<Self, ::es_core::event::DecodeError> {
                let mut json = ::serde_json::Deserializer::from_slice(payload);
                match Self::__invent(name, &mut json) {
                    Some(read) => read.map_err(|e| ::es_core::event::DecodeError::Payload { name: name.into(), cause: ::es_core::codec::CodecError(e.to_string()) }),
                    None => Err(Self::unknown_type(name)),
                }
            }
            fn __invent<'de, D: ::serde::Deserializer<'de>>(name: &str, payload: D) -> Option<Result<Self, D::Error>> {
                $(if name == stringify!($variant) {
                    #[derive(::serde::Deserialize)]
                    struct Payload { $($field: $type),* }
                    return Some(<Payload as ::serde::Deserialize>::deserialize(payload).map(|Payload { $($field),* }| $name::$variant { $($field),* }));
                })+
                None
            }
        }
    };
}

/// A state: its event enum, name and id.
#[macro_export]
macro_rules! aggregate {
    ($name:ident, $events:ident) => {
        impl ::es_core::Folds for $name {
            type Event = $events;
        }
        impl ::es_core::Aggregate for $name {
            type Id = String;
            const NAME: &'static str = <$events as ::es_core::Event>::AGGREGATE;
            const VERSION: u32 = 1;
        }
    };
}
