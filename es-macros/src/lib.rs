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

/// Makes an enum the events of an aggregate: one variant per event, with a stable name and version on the wire.
///
/// ```
/// use es_core::{Event, event};
/// use serde::Deserialize;
///
/// #[event(aggregate = "parcel")]
/// #[derive(Clone, Debug, PartialEq)]
/// pub enum ParcelEvent {
///     Accepted { to: String, grams: u32 },
///     #[event(version = 2, upcast(1 = ScannedV1))]
///     Scanned { hub: String, minute: u64 },
///     Delivered,
/// }
///
/// // What `Scanned` was in version 1: it is still in the log, and read as today's.
/// #[derive(Deserialize)]
/// pub struct ScannedV1 { hub: String }
///
/// impl From<ScannedV1> for Scanned {
///     fn from(old: ScannedV1) -> Self { Scanned { hub: old.hub, minute: 0 } }
/// }
///
/// // Beside the enum there is a struct for each variant.
/// let event: ParcelEvent = Scanned { hub: "Ulm".into(), minute: 7 }.into();
/// let mut bytes = Vec::new();
/// event.encode_tagged(&mut bytes).unwrap();
/// assert_eq!(bytes, br#"{"type":"Scanned","version":2,"hub":"Ulm","minute":7}"#);
/// assert_eq!(ParcelEvent::decode_tagged(&bytes).unwrap(), event);
/// assert_eq!(ParcelEvent::decode("Scanned", 1, br#"{"hub":"Ulm"}"#).unwrap(), Scanned { hub: "Ulm".into(), minute: 0 }.into());
/// ```
///
/// The enum stays as it is written. What is generated beside it: for each variant a struct with its name, fields, visibility and standard
/// derives (as far as they stand below `#[event]`), `From` the struct for the enum, and the impls of `Event`, `IntoEvents`, `VariantOf` and
/// `FoldInto`. A variant may wrap a struct of yours instead, `Accepted(Accepted)`, which then needs serde's `Serialize` and `Deserialize`.
///
/// | on the enum | |
/// |---|---|
/// | `aggregate = "parcel"` | whose events these are; names topics |
/// | `codec = Postcard` | how payloads are written; `Json` unless given |
/// | `crate = name` | how es-core is called here, where it was renamed |
///
/// | on a variant | |
/// |---|---|
/// | `name = "…"` | the name on the wire; the variant's own unless given. Give it when you rename a variant |
/// | `version = 2` | raise it when the fields change in a way that old payloads don't fit |
/// | `upcast(1 = A, 2 = B)` | the types that read the former versions, all from 1 on; each has a `From` to the next, the last to the event |
/// | `struct = Name` | the name of the struct, where another one has that of the variant |
///
/// Serde's attributes on fields count, and so do `rename_all` on a variant and `rename_all_fields` on the enum; others are refused. On the
/// wire a payload is an object with the variant's fields (`{}` for none); in JSON no field may be named `type` or `version`, which tell
/// what the payload is where there are no headers.
#[proc_macro_attribute]
pub fn event(args: TokenStream, item: TokenStream) -> TokenStream {
    event::attribute(args.into(), item.into(), Root::es_core()).into()
}

/// Makes a struct the state of an aggregate or table: says which events are folded into it, and how.
///
/// ```
/// use es_core::{Aggregate, Fold, event};
/// use serde::{Deserialize, Serialize};
///
/// #[event(aggregate = "account")]
/// #[derive(Clone, Debug)]
/// pub enum AccountEvent {
///     Opened { owner: String },
///     Deposited { amount: u64, memo: Option<String> },
///     Withdrawn { amount: u64 },
///     Audited,
///     Closed,
/// }
///
/// #[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
/// #[aggregate(id = String, event = AccountEvent, version = 1, ignores(Audited))]
/// pub struct Account {
///     #[fold(Opened => set(Some(owner)))]
///     pub owner: Option<String>,
///     #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
///     pub balance: u64,
///     #[fold(Deposited => push(memo.unwrap_or_default()))]
///     pub memos: Vec<String>,
/// }
///
/// // What verbs don't say is written by hand.
/// impl Fold<Closed> for Account {
///     fn fold(&mut self, _: Closed) { *self = Account::default() }
/// }
///
/// let mut account = Account::default();
/// account.apply(AccountEvent::Deposited { amount: 5, memo: None });
/// account.apply(AccountEvent::Withdrawn { amount: 2 });
/// assert_eq!((account.balance, account.memos.len()), (3, 1));
/// ```
///
/// Every event is handled by a field, by hand, or is in `ignores`: otherwise the program does not compile. A state that is an enum is folded
/// by hand alone.
///
/// | `#[aggregate(…)]` | |
/// |---|---|
/// | `id = String` | the type of the key |
/// | `event = AccountEvent` | the events |
/// | `version = 1` | raise it when fold or fields change: the state is then rebuilt from the log; 1 unless given |
/// | `name = "…"` | names store and changelog; the aggregate of the events unless given |
/// | `ignores(Audited)` | events that change nothing |
/// | `history` | an index of its events is kept, so that its history is read one by one; see `es_core::Aggregate::HISTORY` |
/// | `crate = name` | how es-core is called here, where it was renamed |
///
/// | `#[fold(Event => verb)]` | the field afterwards |
/// |---|---|
/// | `set(value)` | `value` |
/// | `add(value)`, `sub(value)` | the sum, the difference, by `checked_add` and `checked_sub` |
/// | `count` | one more |
/// | `max(value)`, `min(value)` | the greater, the lesser of itself and `value` |
/// | `push(value)` | has `value` at its end |
/// | `insert(value)`, `insert(key, value)` | has it: sets, maps |
/// | `remove(key)` | has it no more |
/// | `with(function)` | `function(&field, &event)`, where `function` is a name |
///
/// In a verb's value, lone lower-case names are the event's fields; it does not see the state. All values of an event are computed before the
/// first field is assigned. Arithmetic never wraps or saturates.
///
/// # Panics
/// `apply` does when a number is out of range: "`balance` overflows in `Deposited`". The state is then as it was. The engine folds on
/// trial before it writes, so such an event never reaches the log.
#[proc_macro_derive(Aggregate, attributes(aggregate, fold))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    aggregate::derive(parse_macro_input!(input as DeriveInput), Root::es_core()).into()
}

/// Makes an enum the commands of an aggregate: one variant per command, with a stable name on the wire.
///
/// ```
/// use es_core::Command;
///
/// #[derive(Command, Debug, PartialEq)]
/// #[command(key = account)]
/// pub enum AccountCommand {
///     Deposit { account: String, amount: u64 },
///     #[command(name = "shut")]
///     Close { account: String },
/// }
///
/// // As a console producer writes it; unknown fields are ignored.
/// let deposit = AccountCommand::decode_tagged(br#"{"type":"Deposit","account":"a1","amount":5,"memo":"x"}"#).unwrap();
/// assert_eq!(deposit, AccountCommand::Deposit { account: "a1".into(), amount: 5 });
/// assert_eq!(deposit.key().as_deref(), Some("a1"));
/// assert_eq!(AccountCommand::NAMES, ["Deposit", "shut"]);
/// ```
///
/// | on the enum | |
/// |---|---|
/// | `key = account` | the field, of every variant, that is the aggregate's id: a record of the command gets it as its key |
/// | `codec = Postcard` | how payloads are written; `Json` unless given |
/// | `crate = name` | how es-core is called here, where it was renamed |
///
/// `#[command(name = "…")]` on a variant gives its name on the wire, where it is not the variant's own. A variant may wrap a struct of yours,
/// `Deposit(Deposit)`, which then needs serde's `Serialize` and `Deserialize`. Serde's attributes count as they do for events.
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
