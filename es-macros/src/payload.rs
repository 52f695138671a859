//! What events and commands have in common: an enum whose variants are payloads, and serde code for them.
//!
//! Payloads are written through a mirror of the enum, by reference (serde's `remote`, `untagged`), and read through one struct per variant.

use crate::attr::{self, Root};
use crate::errors::Errors;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Fields, Generics, LitStr, Meta, Path, Token, Type};

/// One variant.
pub(crate) struct Payload {
    pub(crate) ident: Ident,
    /// Doc comments and `allow`.
    pub(crate) docs: Vec<Attribute>,
    /// serde's `rename_all`, of the variant or else of the enum.
    rename_all: Option<TokenStream>,
    pub(crate) shape: Shape,
    /// Written without braces, as a value of its struct is.
    pub(crate) unit: bool,
}

pub(crate) enum Shape {
    /// `Opened { owner: String }`, or `Closed`, which is the same with no fields.
    Fields(Vec<Field>),
    /// `Opened(Opened)`: a struct of the user's.
    Wraps(Path),
    /// Anything else: an error was told. What is generated for it only keeps errors from following.
    Refused,
}

pub(crate) struct Field {
    docs: Vec<Attribute>,
    serde: Vec<Attribute>,
    pub(crate) ident: Ident,
    ty: Type,
}

impl Payload {
    pub(crate) fn read(variant: &syn::Variant, rename_all: Option<&TokenStream>, errors: &mut Errors) -> Self {
        let shape = match &variant.fields {
            Fields::Unit => Shape::Fields(Vec::new()),
            Fields::Named(fields) => Shape::Fields(fields.named.iter().map(Field::read).collect()),
            Fields::Unnamed(fields) => match wrapped(fields) {
                Some(path) => Shape::Wraps(path),
                None => {
                    let ident = &variant.ident;
                    errors.on(
                        fields,
                        format!(
                            "a tuple variant has no names for its fields, and they are stored by name: write `{ident} {{ … }}`, or wrap a \
                             struct of yours, `{ident}({ident})`"
                        ),
                    );
                    Shape::Refused
                }
            },
        };
        let own = serde_word(&variant.attrs, "rename_all", errors);
        Payload {
            ident: variant.ident.clone(),
            docs: docs(&variant.attrs),
            rename_all: own.or(rename_all.cloned()),
            shape,
            unit: matches!(variant.fields, Fields::Unit),
        }
    }

    /// The struct that reads this payload. `derives` go on it besides serde's.
    pub(crate) fn reader(&self, name: &Ident, vis: &TokenStream, derives: &[Path], root: &Root) -> TokenStream {
        let Shape::Fields(fields) = &self.shape else { return TokenStream::new() };
        let (es, serde, docs) = (root.private(), root.serde(), &self.docs);
        let rename_all = self.rename_all.iter();
        let fields = fields.iter().map(|Field { docs, serde, ident, ty }| quote!(#(#docs)* #(#serde)* #vis #ident: #ty));
        quote! {
            #(#docs)*
            #[derive(#(#derives,)* #es::serde::Deserialize)]
            #[serde(crate = #serde #(, #rename_all)*)]
            #vis struct #name { #(#fields),* }
        }
    }

    /// `Self::Opened { owner, .. }`'s inside, as a pattern and as an expression: `{ owner }`.
    pub(crate) fn fields(&self) -> TokenStream {
        match &self.shape {
            Shape::Fields(fields) => {
                let names = fields.iter().map(|f| &f.ident);
                quote!({ #(#names),* })
            }
            Shape::Wraps(_) | Shape::Refused => quote!((__payload)),
        }
    }

    /// Tells of fields whose name on the wire is that of the tag, which JSON keeps beside them.
    pub(crate) fn check_tag(&self, codec: &Path, errors: &mut Errors) {
        let Shape::Fields(fields) = &self.shape else { return };
        if codec.segments.last().is_none_or(|codec| codec.ident != "Json") {
            return;
        }
        for field in fields {
            let (name, span) = field.wire_name();
            if name == "type" || name == "version" {
                errors.at(
                    span,
                    format!(
                        "in JSON the field `{name}` is taken: where there are no headers it tells what the payload is; give this one another \
                         name, or `#[serde(rename = \"…\")]`"
                    ),
                );
            }
        }
    }
}

impl Field {
    fn read(field: &syn::Field) -> Self {
        let serde = field.attrs.iter().filter(|attr| attr.path().is_ident("serde")).cloned().collect();
        let ident = field.ident.clone().expect("named fields have names");
        Field { docs: docs(&field.attrs), serde, ident, ty: field.ty.clone() }
    }

    fn wire_name(&self) -> (String, Span) {
        for attr in &self.serde {
            let Ok(words) = attr.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else { continue };
            for word in words {
                if let Meta::NameValue(renamed) = &word
                    && renamed.path.is_ident("rename")
                    && let Ok(name) = syn::parse2::<LitStr>(renamed.value.to_token_stream())
                {
                    return (name.value(), name.span());
                }
            }
        }
        (self.ident.unraw().to_string(), self.ident.span())
    }
}

/// `__Payload<'a>(&'a Enum)`, which serializes as the payload alone: an object with the variant's fields.
pub(crate) fn writer(of: &Ident, payloads: &[&Payload], root: &Root) -> TokenStream {
    let (es, serde, remote) = (root.private(), root.serde(), of.unraw().to_string());
    let variants = payloads.iter().map(|payload| {
        let Payload { ident, rename_all, shape, .. } = payload;
        let rename_all = rename_all.iter();
        match shape {
            Shape::Fields(fields) => {
                let fields = fields.iter().map(|Field { serde, ident, ty, .. }| quote!(#(#serde)* #ident: #ty));
                quote!(#(#[serde(#rename_all)])* #ident { #(#fields),* })
            }
            Shape::Wraps(path) => quote!(#ident(#path)),
            Shape::Refused => quote!(#ident),
        }
    });
    quote! {
        #[derive(#es::serde::Serialize)]
        #[serde(crate = #serde, untagged, remote = #remote)]
        #[allow(dead_code)]
        enum __Mirror { #(#variants),* }

        struct __Payload<'a>(&'a #of);

        impl #es::serde::Serialize for __Payload<'_> {
            fn serialize<S: #es::serde::Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {
                __Mirror::serialize(self.0, serializer)
            }
        }
    }
}

/// The name of a hidden struct for a variant.
pub(crate) fn hidden(ident: &Ident) -> Ident {
    format_ident!("__{}", ident.unraw(), span = Span::call_site())
}

/// serde's `rename_all_fields` on the enum, as the `rename_all` of each variant.
pub(crate) fn rename_all_fields(attrs: &[Attribute], errors: &mut Errors) -> Option<TokenStream> {
    serde_word(attrs, "rename_all_fields", errors)
}

/// Refuses type parameters, lifetimes and constants.
pub(crate) fn refuse_generics(generics: &Generics, what: &str, errors: &mut Errors) {
    if !generics.params.is_empty() {
        errors.on(generics, format!("{what} cannot be generic: what is stored has one known type"));
    }
}

/// The struct that `Opened(Opened)` wraps. Types that are no struct of the user's don't count: they have no field names.
fn wrapped(fields: &syn::FieldsUnnamed) -> Option<Path> {
    const PLAIN: [&str; 17] =
        ["String", "bool", "char", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64"];
    let (1, Some(Type::Path(field))) = (fields.unnamed.len(), fields.unnamed.first().map(|f| &f.ty)) else { return None };
    let last = field.path.segments.last()?;
    let plain = PLAIN.iter().any(|plain| last.ident == plain);
    (field.qself.is_none() && last.arguments.is_none() && !plain).then(|| field.path.clone())
}

fn docs(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("doc") || attr.path().is_ident("allow")).cloned().collect()
}

/// The value of serde's word `allowed` among `attrs`, as a `rename_all`. Other words would have no effect, so they are refused.
fn serde_word(attrs: &[Attribute], allowed: &str, errors: &mut Errors) -> Option<TokenStream> {
    let mut found = None;
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        attr::list(attr, errors, |input: ParseStream<'_>, errors| {
            let word: Meta = input.parse()?;
            if !word.path().is_ident(allowed) {
                let message = format!(
                    "serde's `{}` has no effect here: the name on the wire is `name = \"…\"` in the macro's own attribute, and the tag is \
                     `type` (of serde's attributes, `{allowed}` and those on fields count)",
                    word.path().to_token_stream()
                );
                errors.on(word.path(), message);
                return Ok(());
            }
            found = Some(match word {
                Meta::NameValue(word) => {
                    let value = word.value;
                    quote!(rename_all = #value)
                }
                Meta::List(word) => {
                    let value = word.tokens;
                    quote!(rename_all(#value))
                }
                Meta::Path(path) => return Err(syn::Error::new(path.span(), format!("write `{allowed} = \"…\"`"))),
            });
            Ok(())
        });
    }
    found
}
