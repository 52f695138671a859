//! The impls of `Folds` and `Aggregate`, and of `Fold` for each event that a field names or that is ignored.

use super::ast::{Handler, State, Step};
use super::attr::Verb;
use crate::attr::alike;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use std::collections::HashSet;
use syn::spanned::Spanned;
use syn::{Expr, Path};

/// Everything. `valid`: no error was told; otherwise folds have no bodies, and are there only so that no further errors follow.
pub(super) fn expand(state: &State, valid: bool) -> TokenStream {
    let Some(event) = &state.event else { return TokenStream::new() };
    let aggregate = aggregate_impl(state, event);
    let handlers = state.handlers.iter().map(|handler| {
        let body = match valid {
            true => body(state, handler),
            false => quote!(::core::unreachable!()),
        };
        fold_impl(state, &handler.event, &body)
    });
    let ignored = state.ignores.iter().enumerate().filter(|(index, ignored)| {
        let mut before = state.handlers.iter().map(|handler| &handler.event).chain(&state.ignores[..*index]);
        !before.any(|event| alike(event, ignored))
    });
    let ignored = ignored.map(|(_, event)| fold_impl(state, event, &TokenStream::new()));
    quote!(#aggregate #(#handlers)* #(#ignored)*)
}

/// The supertraits are checked where the trait's name is: on the event's name in the attribute, since what is missing there most often is a
/// `Fold`.
fn aggregate_impl(state: &State, event: &Path) -> TokenStream {
    let (state_name, es, version) = (&state.ident, state.root.private(), state.version);
    let id = match &state.id {
        Some(id) => quote!(#id),
        None => quote!(::std::string::String),
    };
    let name = match &state.name {
        Some(name) => quote!(#name),
        None => quote!(<#event as #es::Event>::AGGREGATE),
    };
    let history = state.history.then(|| {
        quote!(
            const HISTORY: bool = true;
        )
    });
    let trait_name = spanned_path(&quote!(#es::Aggregate), event.span());
    quote! {
        #[automatically_derived]
        impl #es::Folds for #state_name {
            type Event = #event;
        }
        #[automatically_derived]
        impl #trait_name for #state_name {
            type Id = #id;
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            #history
        }
    }
}

/// First and last token stand on the event's name in the attribute, so that a clash with a fold by hand shows both places.
fn fold_impl(state: &State, event: &Path, body: &TokenStream) -> TokenStream {
    let es = state.root.private();
    let (state_name, span) = (&state.ident, event.span().resolved_at(Span::call_site()));
    let first = quote_spanned!(span=> impl);
    let last = quote_spanned!(span=> {
        #[allow(unused_variables)]
        fn fold(&mut self, event: #event) {
            #body
        }
    });
    quote! {
        #[automatically_derived]
        #first #es::Fold<#event> for #state_name #last
    }
}

/// Computes all new values first, then assigns them: a panic leaves the state as it was.
fn body(state: &State, handler: &Handler) -> TokenStream {
    let (es, event) = (state.root.private(), &handler.event);
    let event_name = event.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
    let (with, others): (Vec<_>, Vec<_>) = handler.steps.iter().enumerate().partition(|(_, step)| step.verb == Verb::With);
    let compute = |(index, step): (usize, &Step)| compute(&es, &event_name, index, step);
    let (with, others) = (with.into_iter().map(compute).collect::<TokenStream>(), others.into_iter().map(compute).collect::<TokenStream>());
    let mut seen = HashSet::new();
    let names: Vec<_> = handler.steps.iter().flat_map(|step| &step.names).filter(|name| seen.insert((*name).clone())).collect();
    let assign = handler.steps.iter().enumerate().map(|(index, step)| assign(index, step));
    quote! {
        #with
        #(let #names = event.#names;)*
        #others
        #(#assign)*
    }
}

/// The values of a step, in variables. `with` sees the event whole, so it comes before the event is taken to pieces.
fn compute(es: &TokenStream, event_name: &str, index: usize, step: &Step) -> TokenStream {
    let Step { field, ty, args, span, .. } = step;
    let value = value(index);
    let field_name = field.to_string();
    let in_range = |method: &str, arg: TokenStream| {
        let method = Ident::new(method, span.resolved_at(Span::call_site()));
        quote!(let #value: #ty = #es::in_range(self.#field.#method(#arg), #field_name, #event_name);)
    };
    match (step.verb, args.as_slice()) {
        (Verb::Add, [arg]) => in_range("checked_add", quote!(#arg)),
        (Verb::Sub, [arg]) => in_range("checked_sub", quote!(#arg)),
        (Verb::Count, _) => in_range("checked_add", quote!(1)),
        (Verb::With, [function]) => quote!(let #value: #ty = #function(&self.#field, &event);),
        (Verb::Set | Verb::Max | Verb::Min, [arg]) => quote!(let #value: #ty = #arg;),
        (Verb::Remove, [arg @ Expr::Reference(_)]) => quote!(let #value = #arg;),
        (Verb::Remove, [arg]) => quote!(let #value = &#arg;),
        (_, args) => quote!(let #value = (#(#args,)*);),
    }
}

fn assign(index: usize, step: &Step) -> TokenStream {
    let (field, value) = (&step.field, value(index));
    let method = |name: &str| Ident::new(name, step.span.resolved_at(Span::call_site()));
    match step.verb {
        Verb::Set | Verb::Add | Verb::Sub | Verb::Count | Verb::With => quote!(self.#field = #value;),
        Verb::Max => quote!(if #value > self.#field { self.#field = #value; }),
        Verb::Min => quote!(if #value < self.#field { self.#field = #value; }),
        Verb::Push => {
            let push = method("push");
            quote!(self.#field.#push(#value.0);)
        }
        Verb::Insert => {
            let insert = method("insert");
            let args = (0..step.args.len()).map(syn::Index::from);
            quote!(let _ = self.#field.#insert(#(#value.#args),*);)
        }
        Verb::Remove => {
            let remove = method("remove");
            quote!(let _ = self.#field.#remove(#value);)
        }
    }
}

fn value(index: usize) -> Ident {
    format_ident!("__value{index}", span = Span::call_site())
}

/// `path` with its tokens on `span`.
fn spanned_path(path: &TokenStream, span: Span) -> TokenStream {
    path.clone()
        .into_iter()
        .map(|mut token| {
            token.set_span(span.resolved_at(token.span()));
            token
        })
        .collect()
}
