//! `#[derive(Aggregate)]`.

mod ast;
mod attr;
mod expand;
mod fields;
mod valid;

use crate::attr::Root;
use crate::errors::Errors;
use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

/// The derive.
pub(crate) fn derive(input: DeriveInput, root: Root) -> TokenStream {
    let mut errors = Errors::default();
    let aggregate = ast::State::read(&input, root, &mut errors);
    valid::check(&aggregate, &mut errors);
    if !input.generics.params.is_empty() {
        return errors.into_tokens();
    }
    let code = expand::expand(&aggregate, errors.is_empty());
    let errors = errors.into_tokens();
    quote!(#errors #code)
}
