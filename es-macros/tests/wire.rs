//! What events and commands look like as bytes, and what is read back.

#![allow(missing_docs)]

use es_core::event::DecodeError;
use es_core::{Command, Event, EventType, Postcard, event};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    Opened(Opened),
    #[event(name = "money-in", version = 3, upcast(1 = DepositedV1, 2 = DepositedV2))]
    #[serde(rename_all = "camelCase")]
    Deposited {
        amount_cents: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memo: Option<String>,
        #[serde(rename = "from", with = "shouted")]
        sender: String,
    },
    Closed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub owner: String,
}

#[derive(Deserialize)]
pub struct DepositedV1 {
    euros: u64,
}

#[derive(Deserialize)]
pub struct DepositedV2 {
    cents: u64,
}

impl From<DepositedV1> for DepositedV2 {
    fn from(old: DepositedV1) -> Self {
        DepositedV2 { cents: old.euros * 100 }
    }
}

impl From<DepositedV2> for Deposited {
    fn from(old: DepositedV2) -> Self {
        Deposited { amount_cents: old.cents, memo: None, sender: "unknown".into() }
    }
}

mod shouted {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_uppercase())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(String::deserialize(deserializer)?.to_lowercase())
    }
}

fn all() -> [(AccountEvent, &'static str, &'static str); 4] {
    let deposited = |memo| Deposited { amount_cents: 5, memo, sender: "ada".into() };
    [
        (Opened { owner: "Ada".into() }.into(), r#"{"owner":"Ada"}"#, r#"{"type":"Opened","owner":"Ada"}"#),
        (deposited(None).into(), r#"{"amountCents":5,"from":"ADA"}"#, r#"{"type":"money-in","version":3,"amountCents":5,"from":"ADA"}"#),
        (
            deposited(Some("x".into())).into(),
            r#"{"amountCents":5,"memo":"x","from":"ADA"}"#,
            r#"{"type":"money-in","version":3,"amountCents":5,"memo":"x","from":"ADA"}"#,
        ),
        (Closed.into(), "{}", r#"{"type":"Closed"}"#),
    ]
}

#[test]
fn types_carry_name_version_and_the_versions_that_are_read() {
    assert_eq!(AccountEvent::AGGREGATE, "account");
    let expected = [
        EventType { name: "Opened", version: 1, reads: &[] },
        EventType { name: "money-in", version: 3, reads: &[1, 2] },
        EventType { name: "Closed", version: 1, reads: &[] },
    ];
    assert_eq!(AccountEvent::TYPES, expected);
}

#[test]
fn events_are_written_as_objects_and_read_back_with_and_without_headers() {
    for (event, payload, tagged) in all() {
        let (mut out, mut out_tagged) = (Vec::new(), Vec::new());
        event.encode(&mut out).unwrap();
        event.encode_tagged(&mut out_tagged).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), payload);
        assert_eq!(std::str::from_utf8(&out_tagged).unwrap(), tagged);
        let kind = event.event_type();
        assert_eq!(AccountEvent::decode(kind.name, kind.version, &out).unwrap(), event);
        assert_eq!(AccountEvent::decode_tagged(&out_tagged).unwrap(), event);
    }
}

#[test]
fn old_versions_are_upcast_step_by_step() {
    let upcast: AccountEvent = Deposited { amount_cents: 700, memo: None, sender: "unknown".into() }.into();
    assert_eq!(AccountEvent::decode("money-in", 1, br#"{"euros":7}"#).unwrap(), upcast);
    assert_eq!(AccountEvent::decode("money-in", 2, br#"{"cents":700}"#).unwrap(), upcast);
    assert_eq!(AccountEvent::decode_tagged(br#"{"type":"money-in","euros":7}"#).unwrap(), upcast);
}

#[test]
fn what_cannot_be_read_says_what_and_why() {
    let message = |name, version, payload: &str| AccountEvent::decode(name, version, payload.as_bytes()).unwrap_err().to_string();
    assert_eq!(message("Deposited", 1, "{}"), "unknown type `Deposited` (known: Opened, money-in, Closed)");
    assert_eq!(message("money-in", 4, "{}"), "`money-in` version 4 is unknown: this program reads 1, 2, 3");
    assert!(message("Opened", 1, "{}").starts_with("`Opened` cannot be read: missing field `owner`"));
    assert!(message("Closed", 1, "null").starts_with("`Closed` cannot be read"));
    assert!(matches!(AccountEvent::decode_tagged(b"{}"), Err(DecodeError::Untyped(_))));
}

#[derive(Command, Debug, PartialEq)]
#[command(key = account)]
#[serde(rename_all_fields = "camelCase")]
enum AccountCommand {
    Open(Open),
    #[command(name = "deposit")]
    Deposit {
        account: u32,
        amount_cents: u64,
    },
    Close {
        account: u32,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    account: u32,
}

#[test]
fn commands_are_read_without_headers_and_unknown_fields_are_ignored() {
    assert_eq!(AccountCommand::NAMES, ["Open", "deposit", "Close"]);
    let deposit = AccountCommand::Deposit { account: 7, amount_cents: 5 };
    let plain = br#"{"memo":"x","amountCents":5,"type":"deposit","account":7,"deep":{"type":"Close"}}"#;
    assert_eq!(AccountCommand::decode_tagged(plain).unwrap(), deposit);
    for command in [AccountCommand::Open(Open { account: 7 }), deposit, AccountCommand::Close { account: 7 }] {
        let (mut out, mut tagged) = (Vec::new(), Vec::new());
        command.encode(&mut out).unwrap();
        command.encode_tagged(&mut tagged).unwrap();
        assert_eq!(AccountCommand::decode(command.name(), &out).unwrap(), command);
        assert_eq!(AccountCommand::decode_tagged(&tagged).unwrap(), command);
        assert_eq!(command.key().as_deref(), Some("7"));
    }
    let unknown = AccountCommand::decode_tagged(br#"{"type":"Deposit"}"#).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown type `Deposit` (known: Open, deposit, Close)");
}

#[event(aggregate = "switch", codec = Postcard)]
#[derive(Clone, Debug, PartialEq)]
enum SwitchEvent {
    Set { r#type: u8 },
    Off,
}

#[derive(Command, Debug, PartialEq)]
#[command(codec = Postcard)]
enum SwitchCommand {
    Set { level: u8 },
    Off,
}

#[test]
fn another_codec_is_used_throughout() {
    for event in [SwitchEvent::Set { r#type: 3 }, SwitchEvent::Off] {
        let (mut out, mut tagged) = (Vec::new(), Vec::new());
        event.encode(&mut out).unwrap();
        event.encode_tagged(&mut tagged).unwrap();
        assert_eq!(out.len(), usize::from(event != SwitchEvent::Off));
        assert_eq!(SwitchEvent::decode(event.event_type().name, 1, &out).unwrap(), event);
        assert_eq!(SwitchEvent::decode_tagged(&tagged).unwrap(), event);
    }
    for command in [SwitchCommand::Set { level: 3 }, SwitchCommand::Off] {
        let mut tagged = Vec::new();
        command.encode_tagged(&mut tagged).unwrap();
        assert_eq!(SwitchCommand::decode_tagged(&tagged).unwrap(), command);
        assert_eq!(command.key(), None);
    }
}

#[test]
fn laws_can_invent_payloads_of_every_version() {
    let json = |text| serde_json::Deserializer::from_str(text);
    let event = AccountEvent::__invent("money-in", 1, &mut json(r#"{"euros":7}"#)).unwrap().unwrap();
    assert_eq!(event, Deposited { amount_cents: 700, memo: None, sender: "unknown".into() }.into());
    assert!(AccountEvent::__invent("Closed", 2, &mut json("{}")).is_none());
    let command = AccountCommand::__invent("Close", &mut json(r#"{"account":7}"#)).unwrap().unwrap();
    assert_eq!(command, AccountCommand::Close { account: 7 });
}
