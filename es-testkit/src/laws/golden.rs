//! Golden files: one payload of each version of each event, as it was once written. What is in the log must be readable for ever.

use crate::check::{Broken, Law};
use es_core::{Codec, Event, EventType};
use proptest::prelude::Strategy;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::Path;

/// The variable that has missing files written.
const UPDATE: &str = "ES_UPDATE_GOLDENS";

/// Compares the events that are read with the golden files in `<crate_dir>/tests/golden/<aggregate>/<Event>.v<N>.json`.
pub(super) fn check<E: Event>(crate_dir: &str, events: impl Strategy<Value = E>) -> Result<(), Broken> {
    let dir = Path::new("tests/golden").join(E::AGGREGATE);
    let full = Path::new(crate_dir).join(&dir);
    let mut findings = Vec::new();
    for kind in E::TYPES {
        for &version in kind.reads.iter().chain([&kind.version]) {
            let name = file_name::<E>(kind.name, version);
            if let Err(finding) = one::<E>(&full.join(&name), kind, version, &events) {
                findings.push(format!("`{}` version {version}: {} {finding}", kind.name, dir.join(name).display()));
            }
        }
    }
    findings.extend(orphans::<E>(&full).map(|name| {
        format!(
            "{} holds an event that was written once and is not read any more: the log may still have such events",
            dir.join(name).display()
        )
    }));
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Broken { law: Law::EveryEventHasAGolden, finding: findings.join("\n") }),
    }
}

fn file_name<E: Event>(name: &str, version: u32) -> String {
    let extension = if is_json::<E>() { "json" } else { "bin" };
    format!("{name}.v{version}.{extension}")
}

fn is_json<E: Event>() -> bool {
    E::Codec::CONTENT_TYPE.contains("json")
}

fn one<E: Event>(file: &Path, kind: &EventType, version: u32, events: &impl Strategy<Value = E>) -> Result<(), String> {
    let golden = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("cannot be opened: {e}")),
        Err(_) if version < kind.version => {
            let written = kind.version;
            return Err(format!(
                "is missing, and this program writes version {written} only. Take it from version control, or the value of such an event from the topic"
            ));
        }
        Err(_) if std::env::var_os(UPDATE).is_none_or(|value| value == "0") => {
            return Err(format!("is missing. Make it with `{UPDATE}=1 cargo test`, and commit it"));
        }
        Err(_) => write(file, kind, events)?,
    };
    let bytes = golden.trim_ascii_end();
    let bytes = if is_json::<E>() { bytes } else { &golden };
    let event = E::decode(kind.name, version, bytes)
        .map_err(|e| format!("cannot be read any more: {e}. Raise the event's version, and upcast from this one"))?;
    if version == kind.version && is_json::<E>() {
        let mut now = Vec::new();
        event.encode(&mut now).map_err(|e| format!("was read, but cannot be written again: {e}"))?;
        let (golden, now): (Value, Value) = (parse(bytes)?, parse(&now)?);
        if let Some(lost) = lost(&golden, &now, String::new()) {
            return Err(format!("holds `{lost}`, which is lost when the event is read and written again"));
        }
    }
    Ok(())
}

fn parse(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map_err(|e| format!("not JSON: {e}"))
}

/// Writes the event that says most of a few dozen, and in the fewest words.
fn write<E: Event>(file: &Path, kind: &EventType, events: &impl Strategy<Value = E>) -> Result<Vec<u8>, String> {
    let mut runner = TestRunner::deterministic();
    let drawn = (0..100_000).filter_map(|_| events.new_tree(&mut runner).ok()).map(|tree| tree.current());
    let encoded = drawn.filter(|event| event.event_type() == kind).take(64).filter_map(|event| {
        let mut bytes = Vec::new();
        event.encode(&mut bytes).is_ok().then_some(bytes)
    });
    let says_most = |bytes: &Vec<u8>| (serde_json::from_slice(bytes).map_or(0, |json| fields_in_use(&json)), Reverse(bytes.len()));
    let mut bytes = encoded.max_by_key(says_most).ok_or("the strategy never makes one that can be written")?;
    if is_json::<E>() {
        bytes.push(b'\n');
    }
    let written = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        // Renamed into place, because another test may be looking for the same file.
        let draft = file.with_extension(format!("draft-{:?}", std::thread::current().id()));
        std::fs::write(&draft, &bytes)?;
        std::fs::rename(draft, file)
    });
    written.map(|()| bytes).map_err(|e| format!("cannot be written: {e}"))
}

/// How many fields are there and not empty; a list counts as its fullest element.
fn fields_in_use(json: &Value) -> usize {
    match json {
        Value::Null | Value::Bool(false) => 0,
        Value::Bool(true) => 1,
        Value::Number(number) => usize::from(number.as_f64() != Some(0.0)),
        Value::String(text) => usize::from(!text.is_empty()),
        Value::Array(list) => list.iter().map(|element| 1 + fields_in_use(element)).max().unwrap_or(0),
        Value::Object(fields) => fields.values().map(fields_in_use).sum(),
    }
}

/// The path of the first thing in `before` that `after` lacks or has otherwise. More may be there: a new field with a default is no loss.
fn lost(before: &Value, after: &Value, path: String) -> Option<String> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .filter(|(_, value)| !value.is_null())
            .find_map(|(name, value)| after.get(name).map_or_else(|| Some(below(name)), |after| lost(value, after, below(name)))),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).enumerate().find_map(|(i, (before, after))| lost(before, after, below(&i.to_string())))
        }
        _ => (before != after).then(|| if path.is_empty() { before.to_string() } else { path }),
    }
}

/// The names of golden files that belong to no event that is read.
fn orphans<E: Event>(dir: &Path) -> impl Iterator<Item = String> {
    let versions = E::TYPES.iter().flat_map(|kind| kind.reads.iter().chain([&kind.version]).map(|&version| (kind.name, version)));
    let known: BTreeSet<String> = versions.map(|(name, version)| file_name::<E>(name, version)).collect();
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let goldens: BTreeSet<String> = names.filter(|name| name.ends_with(".json") || name.ends_with(".bin")).collect();
    goldens.into_iter().filter(move |name| !known.contains(name))
}
