//! What must hold of an event enum beyond its grammar.

use super::ast::{EventEnum, Variant};
use crate::errors::Errors;
use quote::ToTokens;
use std::collections::HashSet;

/// Names of the prelude that a variant might well have.
const PRELUDE: [&str; 9] = ["None", "Some", "Ok", "Err", "Option", "Result", "String", "Vec", "Box"];

pub(super) fn check(event: &EventEnum, errors: &mut Errors) {
    if event.aggregate.is_none() && !event.incomplete {
        errors.at(event.span, "`aggregate` is missing: it names the topics, as in `#[event(aggregate = \"parcel\")]`");
    }
    if event.variants.is_empty() {
        errors.at(event.ident.span(), "an event enum needs a variant: there is nothing to store otherwise");
    }
    let (mut names, mut structs) = (HashSet::new(), HashSet::new());
    for variant in &event.variants {
        let (name, path) = (variant.name.value(), variant.event.to_token_stream().to_string());
        if !names.insert(name.clone()) {
            errors.at(variant.name.span(), format!("two events are named `{name}`: a reader could not tell them apart"));
        }
        if !structs.insert(path.clone()) {
            errors.on(&variant.event, format!("two events have the struct `{path}`: each needs one of its own"));
        }
        if let Some(generated) = variant.generated().filter(|name| PRELUDE.iter().any(|hidden| *name == hidden)) {
            errors.at(
                generated.span(),
                format!("a struct `{generated}` would hide the standard one in this module: name it with `#[event(struct = …)]`"),
            );
        }
        check_chain(variant, errors);
        variant.payload.check_tag(&event.codec, errors);
    }
}

/// The old versions are an unbroken chain from 1 to just below today's.
fn check_chain(variant: &Variant, errors: &mut Errors) {
    let mut next = 1;
    for upcast in &variant.upcasts {
        let (found, span) = (upcast.version.number, upcast.version.span);
        match found {
            _ if found >= variant.version => {
                let today = variant.version;
                errors.at(span, format!("version {found} is not older than today's, which is {today}: raise `version`"));
                return;
            }
            _ if found < next => errors.at(span, format!("the chain runs upwards: {found} comes too late")),
            _ if found > next && next == 1 => errors.at(span, format!("the chain has a gap: it starts with {found}, not with 1")),
            _ if found > next => errors.at(span, format!("the chain has a gap: after {} comes {found}", next - 1)),
            _ => {}
        }
        next = next.max(found + 1);
    }
    if next < variant.version {
        let missing = (next..variant.version).map(|version| format!("{version} = …")).collect::<Vec<_>>().join(", ");
        let message = match variant.upcasts.is_empty() {
            true => format!("older versions stay in the log and must be readable: add `upcast({missing})`"),
            false => format!("the chain has a gap: after {} comes {}; add `{missing}` to `upcast`", next - 1, variant.version),
        };
        errors.at(variant.version_span, message);
    }
}
