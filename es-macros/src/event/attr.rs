//! The grammar of `#[event(…)]` on the enum and on its variants.

use super::HELPER;
use crate::attr::{Root, key, list, name, once, parenthesized, span, topic_name, unknown};
use crate::errors::Errors;
use proc_macro2::{Ident, Span};
use syn::{Attribute, LitInt, LitStr, Path, Token, Type};

/// `#[event(aggregate = "parcel", codec = Json, crate = es)]`, and what the attribute adds for the derive.
pub(super) struct EnumAttr {
    pub(super) span: Span,
    pub(super) root: Root,
    /// What the payload structs derive.
    pub(super) derives: Vec<Path>,
    pub(super) aggregate: Option<LitStr>,
    pub(super) codec: Option<Path>,
    /// Some of it could not be read: what is not there need not be missing.
    pub(super) incomplete: bool,
}

/// `#[event(name = "…", version = 2, upcast(1 = ScannedV1), struct = X)]`.
#[derive(Default)]
pub(super) struct VariantAttr {
    pub(super) name: Option<LitStr>,
    pub(super) version: Option<Version>,
    pub(super) upcasts: Vec<Upcast>,
    pub(super) upcast_span: Option<Span>,
    pub(super) rename: Option<Ident>,
}

#[derive(Clone, Copy)]
pub(super) struct Version {
    pub(super) number: u32,
    pub(super) span: Span,
}

/// `1 = ScannedV1`: the type that reads that version.
pub(super) struct Upcast {
    pub(super) version: Version,
    pub(super) ty: Type,
}

impl EnumAttr {
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = EnumAttr {
            span: Span::call_site(),
            root: Root::es_core(),
            derives: Vec::new(),
            aggregate: None,
            codec: None,
            incomplete: false,
        };
        let before = errors.count();
        let mut path = None;
        for attr in attrs.iter().filter(|attr| attr.path().is_ident(HELPER)) {
            this.span = span(attr);
            list(attr, errors, |input, errors| {
                let key = key(input)?;
                match key.to_string().as_str() {
                    "root" => parenthesized(input, errors, |input, _| {
                        this.root = Root::path(&input.parse()?);
                        Ok(())
                    }),
                    "derives" => parenthesized(input, errors, |input, _| {
                        this.derives.push(input.parse()?);
                        Ok(())
                    }),
                    "aggregate" => once(&mut this.aggregate, &key, input, errors, topic_name),
                    "codec" => once(&mut this.codec, &key, input, errors, |input, _| input.parse()),
                    "crate" => once(&mut path, &key, input, errors, |input, _| Path::parse_mod_style(input)),
                    _ => Err(unknown("setting", &key, &["aggregate", "codec", "crate"])),
                }
            });
        }
        this.incomplete = errors.count() > before;
        this
    }
}

impl VariantAttr {
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = VariantAttr::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident(HELPER)) {
            list(attr, errors, |input, errors| {
                let key = key(input)?;
                match key.to_string().as_str() {
                    "name" => once(&mut this.name, &key, input, errors, name),
                    "struct" => once(&mut this.rename, &key, input, errors, |input, _| input.parse()),
                    "version" => once(&mut this.version, &key, input, errors, |input, _| Version::read(input)),
                    "upcast" => {
                        this.upcast_span = Some(key.span());
                        parenthesized(input, errors, |input, _| {
                            let version = Version::read(input)?;
                            input.parse::<Token![=]>()?;
                            this.upcasts.push(Upcast { version, ty: input.parse()? });
                            Ok(())
                        })
                    }
                    _ => Err(unknown("setting", &key, &["name", "version", "upcast", "struct"])),
                }
            });
        }
        this
    }
}

impl Version {
    fn read(input: syn::parse::ParseStream<'_>) -> syn::Result<Self> {
        let literal: LitInt = input.parse()?;
        match literal.base10_parse()? {
            0 => Err(syn::Error::new(literal.span(), "versions count from 1")),
            number => Ok(Version { number, span: literal.span() }),
        }
    }
}
