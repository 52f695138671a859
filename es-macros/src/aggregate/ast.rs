//! The state as it is understood.

use super::attr::{Action, Rule, StateAttr, Verb};
use super::fields::fields;
use crate::attr::{Root, alike, span};
use crate::errors::Errors;
use crate::payload::refuse_generics;
use proc_macro2::{Ident, Span};
use quote::ToTokens;
use syn::{Data, DeriveInput, Expr, Fields, LitStr, Path, Type};

pub(super) struct State {
    pub(super) ident: Ident,
    /// Where `#[aggregate]` stands.
    pub(super) span: Span,
    pub(super) root: Root,
    pub(super) id: Option<Type>,
    pub(super) event: Option<Path>,
    pub(super) version: u32,
    pub(super) name: Option<LitStr>,
    pub(super) ignores: Vec<Path>,
    pub(super) history: bool,
    /// Some settings could not be read.
    pub(super) incomplete: bool,
    /// One per event that a field names, in the order of their first mention.
    pub(super) handlers: Vec<Handler>,
}

/// What one event does.
pub(super) struct Handler {
    pub(super) event: Path,
    pub(super) steps: Vec<Step>,
}

/// What it does to one field.
pub(super) struct Step {
    pub(super) field: Ident,
    pub(super) ty: Type,
    pub(super) verb: Verb,
    pub(super) span: Span,
    pub(super) args: Vec<Expr>,
    /// The event's fields that the arguments name.
    pub(super) names: Vec<Ident>,
}

impl State {
    pub(super) fn read(input: &DeriveInput, root: Root, errors: &mut Errors) -> Self {
        let StateAttr { root: given, id, event, version, name, ignores, history, incomplete } = StateAttr::read(&input.attrs, errors);
        refuse_generics(&input.generics, "an aggregate's state", errors);
        let mut state = State {
            ident: input.ident.clone(),
            span: input.attrs.iter().find(|attr| attr.path().is_ident("aggregate")).map_or(input.ident.span(), span),
            root: given.unwrap_or(root),
            id,
            event,
            version: version.unwrap_or(1),
            name,
            ignores,
            history,
            incomplete,
            handlers: Vec::new(),
        };
        match &input.data {
            Data::Struct(data) => data.fields.iter().for_each(|field| state.read_field(field, errors)),
            Data::Enum(data) => data.variants.iter().for_each(|variant| refuse_folds(&variant.attrs, &variant.fields, errors)),
            Data::Union(data) => errors.at(data.union_token.span, "a state is a struct, or an enum whose folds are all written by hand"),
        }
        state
    }

    fn read_field(&mut self, field: &syn::Field, errors: &mut Errors) {
        for Rule { event, action } in Rule::read(&field.attrs, errors) {
            let handler = self.handler(event.clone());
            let Some(Action { verb, span, args }) = action else { continue };
            let Some(ident) = &field.ident else {
                errors.on(&event, "a verb needs a field with a name, to tell of it: write the state as `struct … { name: … }`");
                continue;
            };
            if handler.steps.iter().any(|step| step.field == *ident) {
                let event_name = event.to_token_stream();
                errors.on(&event, format!("`{ident}` has a verb for `{event_name}` already"));
                continue;
            }
            let names = match verb {
                Verb::With => Vec::new(),
                _ => args.iter().flat_map(|arg| fields(arg, errors)).collect(),
            };
            handler.steps.push(Step { field: ident.clone(), ty: field.ty.clone(), verb, span, args, names });
        }
    }

    fn handler(&mut self, event: Path) -> &mut Handler {
        let index = self.handlers.iter().position(|handler| alike(&handler.event, &event)).unwrap_or_else(|| {
            self.handlers.push(Handler { event, steps: Vec::new() });
            self.handlers.len() - 1
        });
        &mut self.handlers[index]
    }
}

fn refuse_folds(attrs: &[syn::Attribute], fields: &Fields, errors: &mut Errors) {
    for attr in attrs.iter().chain(fields.iter().flat_map(|field| &field.attrs)).filter(|attr| attr.path().is_ident("fold")) {
        errors.at(span(attr), "verbs work on the fields of a struct: write `impl Fold<…> for …` by hand for a state that is an enum");
    }
}
