//! The command enum as it is understood.

use super::attr::{EnumAttr, VariantAttr};
use crate::attr::{Root, span};
use crate::errors::Errors;
use crate::payload::{Payload, refuse_generics, rename_all_fields};
use proc_macro2::Ident;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, LitStr, Path, parse_quote};

pub(super) struct CommandEnum {
    pub(super) ident: Ident,
    pub(super) root: Root,
    pub(super) codec: Path,
    pub(super) key: Option<Ident>,
    pub(super) variants: Vec<Variant>,
}

pub(super) struct Variant {
    pub(super) payload: Payload,
    pub(super) name: LitStr,
}

impl CommandEnum {
    pub(super) fn read(input: &DeriveInput, root: Root, errors: &mut Errors) -> Self {
        let EnumAttr { root: given, codec, key } = EnumAttr::read(&input.attrs, errors);
        refuse_generics(&input.generics, "a command enum", errors);
        let rename_all = rename_all_fields(&input.attrs, errors);
        let variants = match &input.data {
            Data::Enum(data) => data.variants.iter().map(|variant| Variant::read(variant, rename_all.as_ref(), errors)).collect(),
            Data::Struct(_) | Data::Union(_) => {
                errors.at(input.ident.span(), "`#[derive(Command)]` goes on an enum: one variant per command");
                Vec::new()
            }
        };
        let root = given.unwrap_or(root);
        let es = root.private();
        let codec = codec.unwrap_or_else(|| parse_quote!(#es::Json));
        CommandEnum { ident: input.ident.clone(), root, codec, key, variants }
    }
}

impl Variant {
    fn read(variant: &syn::Variant, rename_all: Option<&proc_macro2::TokenStream>, errors: &mut Errors) -> Self {
        for attr in variant.fields.iter().flat_map(|field| &field.attrs).filter(|attr| attr.path().is_ident("command")) {
            errors.at(span(attr), "`#[command]` goes on the enum and its variants, not on fields");
        }
        let VariantAttr { name } = VariantAttr::read(&variant.attrs, errors);
        let ident = &variant.ident;
        let name = name.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()));
        Variant { payload: Payload::read(variant, rename_all, errors), name }
    }
}
