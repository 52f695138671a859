//! What must hold of a state beyond its grammar.

use super::ast::State;
use super::attr::Verb;
use crate::attr::alike;
use crate::errors::Errors;
use quote::ToTokens;
use syn::Expr;

pub(super) fn check(state: &State, errors: &mut Errors) {
    if state.id.is_none() && !state.incomplete {
        errors.at(state.span, "`id` is missing: the type of the key, as in `#[aggregate(id = String, event = ParcelEvent)]`");
    }
    if state.event.is_none() && !state.incomplete {
        errors.at(state.span, "`event` is missing: the enum of the events, as in `#[aggregate(id = String, event = ParcelEvent)]`");
    }
    for (index, ignored) in state.ignores.iter().enumerate() {
        let name = ignored.to_token_stream();
        if state.ignores[..index].iter().any(|other| alike(other, ignored)) {
            errors.on(ignored, format!("`{name}` is ignored twice"));
        }
        if state.handlers.iter().any(|handler| alike(&handler.event, ignored)) {
            errors.on(ignored, format!("`{name}` is ignored here, and a field handles it"));
        }
    }
    for step in state.handlers.iter().flat_map(|handler| &handler.steps).filter(|step| step.verb == Verb::With) {
        for function in step.args.iter().filter(|arg| !matches!(arg, Expr::Path(_))) {
            errors.on(function, "`with` takes the name of a function from the field and the event, by reference, to the field's new value");
        }
    }
}
