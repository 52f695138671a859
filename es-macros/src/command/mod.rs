//! `#[derive(Command)]`.

mod ast;
mod attr;
mod expand;
mod valid;

use crate::attr::Root;
use crate::errors::Errors;
use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

/// The derive.
pub(crate) fn derive(input: DeriveInput, root: Root) -> TokenStream {
    let mut errors = Errors::default();
    let command = ast::CommandEnum::read(&input, root, &mut errors);
    if !input.generics.params.is_empty() {
        return errors.into_tokens();
    }
    valid::check(&command, &mut errors);
    let code = match errors.is_empty() {
        true => expand::expand(&command),
        false => expand::fallback(&command),
    };
    let errors = errors.into_tokens();
    quote!(#errors #code)
}
