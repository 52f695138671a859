//! The event enum as it is understood.

use super::HELPER;
use super::attr::{EnumAttr, Upcast, VariantAttr, Version};
use crate::attr::{Root, span};
use crate::errors::Errors;
use crate::payload::{Payload, Shape, refuse_generics, rename_all_fields};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, LitStr, Path, parse_quote};

pub(super) struct EventEnum {
    pub(super) ident: Ident,
    pub(super) vis: TokenStream,
    /// Where `#[event]` stands.
    pub(super) span: Span,
    pub(super) root: Root,
    pub(super) derives: Vec<Path>,
    pub(super) aggregate: Option<LitStr>,
    /// Some settings could not be read.
    pub(super) incomplete: bool,
    pub(super) codec: Path,
    pub(super) variants: Vec<Variant>,
}

pub(super) struct Variant {
    pub(super) payload: Payload,
    /// The struct that is this event: a generated one, or the user's.
    pub(super) event: Path,
    pub(super) name: LitStr,
    pub(super) version: u32,
    pub(super) version_span: Span,
    pub(super) upcasts: Vec<Upcast>,
}

impl EventEnum {
    pub(super) fn read(input: &DeriveInput, errors: &mut Errors) -> Self {
        let EnumAttr { span, root, derives, aggregate, codec, incomplete } = EnumAttr::read(&input.attrs, errors);
        refuse_generics(&input.generics, "an event enum", errors);
        let rename_all = rename_all_fields(&input.attrs, errors);
        let variants = match &input.data {
            Data::Enum(data) => data.variants.iter().map(|variant| Variant::read(variant, rename_all.as_ref(), errors)).collect(),
            Data::Struct(_) | Data::Union(_) => Vec::new(),
        };
        let es = root.private();
        let codec = codec.unwrap_or_else(|| parse_quote!(#es::Json));
        let vis = input.vis.to_token_stream();
        EventEnum { ident: input.ident.clone(), vis, span, root, derives, aggregate, incomplete, codec, variants }
    }
}

impl Variant {
    fn read(variant: &syn::Variant, rename_all: Option<&TokenStream>, errors: &mut Errors) -> Self {
        for attr in variant.fields.iter().flat_map(|field| &field.attrs).filter(|attr| attr.path().is_ident(HELPER)) {
            errors.at(span(attr), "`#[event]` goes on the enum and its variants, not on fields");
        }
        let VariantAttr { name, version, upcasts, upcast_span, rename } = VariantAttr::read(&variant.attrs, errors);
        let payload = Payload::read(variant, rename_all, errors);
        let ident = &variant.ident;
        let event = match (&payload.shape, rename) {
            (Shape::Wraps(path), None) => path.clone(),
            (Shape::Wraps(path), Some(rename)) => {
                errors.at(rename.span(), format!("this event has a struct already: `{}`", quote!(#path)));
                path.clone()
            }
            (_, Some(rename)) => rename.into(),
            (_, None) => ident.clone().into(),
        };
        let name = name.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()));
        let Version { number: version, span: version_span } =
            version.unwrap_or(Version { number: 1, span: upcast_span.unwrap_or(ident.span()) });
        Variant { payload, event, name, version, version_span, upcasts }
    }

    /// The struct to generate, if it is not the user's.
    pub(super) fn generated(&self) -> Option<&Ident> {
        match self.payload.shape {
            Shape::Wraps(_) => None,
            Shape::Fields(_) | Shape::Refused => self.event.get_ident(),
        }
    }
}
