//! `#[event]`, in two steps. The attribute keeps the enum as it is written, and hands it to a hidden derive: derives see the enum after
//! `#[cfg]` and `#[cfg_attr]`, and may have helper attributes on variants.

mod ast;
mod attr;
mod expand;
mod valid;

use crate::attr::{Root, crate_path};
use crate::errors::Errors;
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::punctuated::Punctuated;
use syn::{Attribute, DeriveInput, ItemEnum, Meta, MetaList, MetaNameValue, Path, Token};

/// The name of `#[event]` on variants once the attribute has run: `event` itself would name both the attribute and the helper.
const HELPER: &str = "__es_event";

/// The attribute `#[event(args)]` on `item`.
pub(crate) fn attribute(args: TokenStream, item: TokenStream, root: Root) -> TokenStream {
    let mut input: ItemEnum = match syn::parse2(item.clone()) {
        Ok(input) => input,
        Err(_) => {
            let place = syn::parse2(item.clone()).map_or_else(|_| item.clone(), |other: DeriveInput| other.ident.into_token_stream());
            let error = syn::Error::new_spanned(place, "`#[event]` goes on an enum: one variant per event").to_compile_error();
            return quote!(#error #item);
        }
    };
    for variant in &mut input.variants {
        rename_helpers(&mut variant.attrs);
        variant.fields.iter_mut().for_each(|field| rename_helpers(&mut field.attrs));
    }
    let root = crate_path(&args).as_ref().map(Root::path).unwrap_or(root);
    let (es, root, derives) = (root.private(), root.tokens(), derives(&input.attrs));
    let helper = Ident::new(HELPER, proc_macro2::Span::call_site());
    quote! {
        #[derive(#es::EventEnum)]
        #[#helper(root(#root), derives(#(#derives),*), #args)]
        #input
    }
}

/// The hidden derive.
pub(crate) fn derive(input: DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let event = ast::EventEnum::read(&input, &mut errors);
    if !input.generics.params.is_empty() {
        return errors.into_tokens();
    }
    valid::check(&event, &mut errors);
    let code = expand::expand(&event, errors.is_empty());
    let errors = errors.into_tokens();
    quote!(#errors #code)
}

fn rename_helpers(attrs: &mut [Attribute]) {
    for attr in attrs {
        match &mut attr.meta {
            Meta::List(list) if list.path.is_ident("cfg_attr") => {
                let mut names_attribute = false;
                list.tokens = std::mem::take(&mut list.tokens)
                    .into_iter()
                    .map(|token| match token {
                        TokenTree::Ident(ident) if names_attribute && ident == "event" => Ident::new(HELPER, ident.span()).into(),
                        token => {
                            names_attribute = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',');
                            token
                        }
                    })
                    .collect();
            }
            Meta::Path(path) | Meta::List(MetaList { path, .. }) | Meta::NameValue(MetaNameValue { path, .. }) => {
                if let Some(last) = path.segments.last_mut().filter(|last| last.ident == "event") {
                    *path = Ident::new(HELPER, last.ident.span()).into();
                }
            }
        }
    }
}

/// The standard derives of the enum, which the structs get too. They cannot be seen above `#[event]`, since they have run by then.
fn derives(attrs: &[Attribute]) -> Vec<Path> {
    const STANDARD: [&str; 8] = ["Clone", "Copy", "Debug", "PartialEq", "Eq", "PartialOrd", "Ord", "Hash"];
    let all = attrs.iter().filter(|attr| attr.path().is_ident("derive"));
    let paths = all.filter_map(|attr| attr.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).ok()).flatten();
    let standard: Vec<Path> = paths.filter(|path| STANDARD.iter().any(|standard| path.is_ident(standard))).collect();
    match standard.is_empty() {
        true => vec![syn::parse_quote!(::core::clone::Clone), syn::parse_quote!(::core::fmt::Debug)],
        false => standard,
    }
}
