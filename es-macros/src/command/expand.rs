//! The impl of `Command`.

use super::ast::{CommandEnum, Variant};
use crate::payload::{Payload, Shape, hidden, writer};
use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};

pub(super) fn expand(command: &CommandEnum) -> TokenStream {
    let CommandEnum { ident: enum_name, root, codec, variants, .. } = command;
    let es = root.private();
    let writer = writer(enum_name, &variants.iter().map(|variant| &variant.payload).collect::<Vec<_>>(), root);
    let readers = variants.iter().map(|Variant { payload, .. }| payload.reader(&hidden(&payload.ident), &TokenStream::new(), &[], root));
    let names = variants.iter().map(|variant| &variant.name);
    let name_of = variants.iter().map(|Variant { payload, name }| {
        let ident = &payload.ident;
        quote!(#enum_name::#ident { .. } => #name,)
    });
    let decode = variants.iter().map(|Variant { payload, name }| {
        let (ty, into_enum) = (reader_type(payload), into_enum(payload));
        quote!(#name => #es::payload::<#codec, #ty>(name, payload).map(#into_enum),)
    });
    let invent = variants.iter().map(|Variant { payload, name }| {
        let (ty, into_enum) = (reader_type(payload), into_enum(payload));
        quote!(#name => ::core::option::Option::Some(<#ty as #es::serde::Deserialize>::deserialize(payload).map(#into_enum)),)
    });
    let key = command.key.as_ref().map(|key| key_fn(command, key));
    let trait_name = quote_spanned!(enum_name.span()=> Command);
    quote! {
        const _: () = {
            #writer
            #(#readers)*

            const __NAMES: &[&str] = &[#(#names),*];

            fn __name_of(command: &#enum_name) -> &'static str {
                match *command { #(#name_of)* }
            }

            #[automatically_derived]
            impl #es::#trait_name for #enum_name {
                const NAMES: &'static [&'static str] = __NAMES;
                type Codec = #codec;

                fn name(&self) -> &'static str {
                    __name_of(self)
                }

                #key

                fn encode(&self, out: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                    <#codec as #es::Codec>::encode(&__Payload(self), out)
                }

                fn encode_tagged(&self, out: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                    <#codec as #es::Codec>::encode_tagged(&#es::tag(__name_of(self), 1), &__Payload(self), out)
                }

                fn decode(name: &str, payload: &[u8]) -> ::core::result::Result<Self, #es::DecodeError> {
                    match name {
                        #(#decode)*
                        _ => ::core::result::Result::Err(#es::DecodeError::unknown_type(name, __NAMES.iter().copied())),
                    }
                }

                fn __invent<'de, D: #es::serde::Deserializer<'de>>(
                    name: &str,
                    payload: D,
                ) -> ::core::option::Option<::core::result::Result<Self, D::Error>> {
                    match name {
                        #(#invent)*
                        _ => ::core::option::Option::None,
                    }
                }
            }
        };
    }
}

/// The impl without bodies, so that after an error no others follow.
pub(super) fn fallback(command: &CommandEnum) -> TokenStream {
    let (enum_name, es) = (&command.ident, command.root.private());
    quote! {
        #[automatically_derived]
        impl #es::Command for #enum_name {
            const NAMES: &'static [&'static str] = &[];
            type Codec = #es::Json;

            fn name(&self) -> &'static str {
                ::core::unreachable!()
            }

            fn encode(&self, _: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                ::core::unreachable!()
            }

            fn encode_tagged(&self, _: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                ::core::unreachable!()
            }

            fn decode(_: &str, _: &[u8]) -> ::core::result::Result<Self, #es::DecodeError> {
                ::core::unreachable!()
            }
        }
    }
}

/// What a payload is read as: a hidden struct with the variant's fields, or the struct that it wraps.
fn reader_type(payload: &Payload) -> TokenStream {
    match &payload.shape {
        Shape::Wraps(path) => quote!(#path),
        Shape::Fields(_) | Shape::Refused => {
            let hidden = hidden(&payload.ident);
            quote!(#hidden)
        }
    }
}

/// The function from there to the enum.
fn into_enum(payload: &Payload) -> TokenStream {
    let ident = &payload.ident;
    match &payload.shape {
        Shape::Wraps(_) => quote!(Self::#ident),
        Shape::Fields(_) | Shape::Refused => {
            let (hidden, fields) = (hidden(ident), payload.fields());
            quote!(|#hidden #fields| Self::#ident #fields)
        }
    }
}

fn key_fn(command: &CommandEnum, key: &Ident) -> TokenStream {
    let arms = command.variants.iter().map(|Variant { payload, .. }| {
        let ident = &payload.ident;
        match payload.shape {
            Shape::Fields(_) => quote!(Self::#ident { #key, .. } => ::std::string::ToString::to_string(#key),),
            Shape::Wraps(_) | Shape::Refused => quote!(Self::#ident(payload) => ::std::string::ToString::to_string(&payload.#key),),
        }
    });
    quote! {
        fn key(&self) -> ::core::option::Option<::std::borrow::Cow<'_, str>> {
            ::core::option::Option::Some(::std::borrow::Cow::Owned(match self { #(#arms)* }))
        }
    }
}
