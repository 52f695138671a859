//! The macros of es-core: `#[event]`, `#[derive(Aggregate)]`, `#[derive(Command)]`. Use them from there, or from es-kafka.
//!
//! Each macro is a pipeline with a file per stage: `attr` (the grammar of its attributes), `ast` (the input as it is understood), `valid`
//! (what must hold beyond the grammar), `expand` (the code). All errors are told at once, on the token at fault, and impls are generated
//! nonetheless, so that no others follow from them.

mod aggregate;
mod attr;
mod command;
mod errors;
mod event;
mod payload;

use attr::Root;
use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum the events of an aggregate.
#[proc_macro_attribute]
pub fn event(args: TokenStream, item: TokenStream) -> TokenStream {
    event::attribute(args.into(), item.into(), Root::es_core()).into()
}

/// Makes a struct the state of an aggregate or table.
#[proc_macro_derive(Aggregate, attributes(aggregate, fold))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    aggregate::derive(parse_macro_input!(input as DeriveInput), Root::es_core()).into()
}

/// Makes an enum the commands of an aggregate.
#[proc_macro_derive(Command, attributes(command, serde))]
pub fn command(input: TokenStream) -> TokenStream {
    command::derive(parse_macro_input!(input as DeriveInput), Root::es_core()).into()
}

/// [`macro@event`] for es-kafka, which re-exports it under the plain name.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn event_es_kafka(args: TokenStream, item: TokenStream) -> TokenStream {
    event::attribute(args.into(), item.into(), Root::es_kafka()).into()
}

/// [`macro@Aggregate`] for es-kafka, which re-exports it under the plain name.
#[doc(hidden)]
#[proc_macro_derive(AggregateEsKafka, attributes(aggregate, fold))]
pub fn aggregate_es_kafka(input: TokenStream) -> TokenStream {
    aggregate::derive(parse_macro_input!(input as DeriveInput), Root::es_kafka()).into()
}

/// [`macro@Command`] for es-kafka, which re-exports it under the plain name.
#[doc(hidden)]
#[proc_macro_derive(CommandEsKafka, attributes(command, serde))]
pub fn command_es_kafka(input: TokenStream) -> TokenStream {
    command::derive(parse_macro_input!(input as DeriveInput), Root::es_kafka()).into()
}

/// The second step of [`macro@event`].
#[doc(hidden)]
#[proc_macro_derive(EventEnum, attributes(__es_event, serde))]
pub fn event_enum(input: TokenStream) -> TokenStream {
    event::derive(parse_macro_input!(input as DeriveInput)).into()
}
