//! The code that stands beside an event enum.

use super::ast::{EventEnum, Variant};
use crate::payload::{Shape, hidden, writer};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use std::collections::HashSet;
use syn::spanned::Spanned;

/// Everything. `valid`: no error was told; otherwise `Event`'s impl has no bodies, and is there only so that no further errors follow.
pub(super) fn expand(event: &EventEnum, valid: bool) -> TokenStream {
    let mut seen = HashSet::new();
    let distinct: Vec<_> = event.variants.iter().filter(|variant| seen.insert(variant.event.to_token_stream().to_string())).collect();
    let structs = distinct.iter().map(|variant| variant_struct(event, variant));
    let conversions = distinct.iter().map(|variant| conversions(event, variant));
    let whole = whole(event);
    let event = match valid {
        true => event_impl(event),
        false => event_fallback(event),
    };
    quote!(#(#structs)* #(#conversions)* #whole #event)
}

fn variant_struct(event: &EventEnum, variant: &Variant) -> TokenStream {
    let Some(name) = variant.generated() else { return TokenStream::new() };
    let (EventEnum { vis, derives, root, .. }, es) = (event, event.root.private());
    let read = match variant.payload.shape {
        Shape::Refused => quote!(::core::unreachable!()),
        Shape::Fields(_) | Shape::Wraps(_) if !variant.payload.unit => return variant.payload.reader(name, vis, derives, root),
        Shape::Fields(_) | Shape::Wraps(_) => {
            // serde would read a struct without braces from `null`: it is `{}` on the wire, like any payload.
            let hidden = hidden(&variant.payload.ident);
            let reader = variant.payload.reader(&hidden, &TokenStream::new(), &[], root);
            quote! {
                #reader
                <#hidden as #es::serde::Deserialize>::deserialize(deserializer).map(|#hidden {}| #name)
            }
        }
    };
    let docs = &variant.payload.docs;
    quote! {
        #(#docs)*
        #[derive(#(#derives),*)]
        #vis struct #name;
        #[automatically_derived]
        impl<'de> #es::serde::Deserialize<'de> for #name {
            #[allow(unused_variables)]
            fn deserialize<D: #es::serde::Deserializer<'de>>(deserializer: D) -> ::core::result::Result<Self, D::Error> {
                #read
            }
        }
    }
}

/// What makes the struct `variant` an event of the enum.
fn conversions(event: &EventEnum, variant: &Variant) -> TokenStream {
    let (enum_name, es, path) = (&event.ident, event.root.private(), &variant.event);
    let (ident, fields) = (&variant.payload.ident, variant.payload.fields());
    let from = match variant.payload.shape {
        Shape::Fields(_) => quote! {
            let #path #fields = event;
            Self::#ident #fields
        },
        Shape::Wraps(_) => quote!(Self::#ident(event)),
        Shape::Refused => quote!(::core::unreachable!()),
    };
    quote! {
        #[automatically_derived]
        impl ::core::convert::From<#path> for #enum_name {
            #[allow(unused_variables)]
            fn from(event: #path) -> Self {
                #from
            }
        }
        #[automatically_derived]
        impl #es::VariantOf<#enum_name> for #path {}
        #[automatically_derived]
        impl #es::IntoEvents<#enum_name> for #path {
            fn append_to(self, events: &mut ::std::vec::Vec<#enum_name>) {
                events.push(::core::convert::From::from(self));
            }
        }
    }
}

/// What the enum as a whole can do: be emitted, and be folded into any state that handles each of its events.
fn whole(event: &EventEnum) -> TokenStream {
    let (enum_name, es) = (&event.ident, event.root.private());
    let bounds = event.variants.iter().map(|Variant { event, .. }| quote!(+ #es::Fold<#event>));
    let arms = event.variants.iter().map(|Variant { event, payload, .. }| {
        let (ident, fields) = (&payload.ident, payload.fields());
        match payload.shape {
            Shape::Fields(_) => quote!(Self::#ident #fields => #es::Fold::<#event>::fold(state, #event #fields),),
            Shape::Wraps(_) => quote!(Self::#ident(event) => #es::Fold::<#event>::fold(state, event),),
            Shape::Refused => quote!(Self::#ident(..) => ::core::unreachable!(),),
        }
    });
    quote! {
        #[automatically_derived]
        impl #es::IntoEvents<#enum_name> for #enum_name {
            fn append_to(self, events: &mut ::std::vec::Vec<#enum_name>) {
                events.push(self);
            }
        }
        #[automatically_derived]
        impl<S> #es::FoldInto<S> for #enum_name
        where
            S: #es::Folds<Event = #enum_name> #(#bounds)*
        {
            #[allow(unused_variables)]
            fn fold_into(self, state: &mut S) {
                match self { #(#arms)* }
            }
        }
    }
}

fn event_impl(event: &EventEnum) -> TokenStream {
    let EventEnum { ident: enum_name, root, aggregate, codec, variants, .. } = event;
    let es = root.private();
    let writer = writer(enum_name, &variants.iter().map(|variant| &variant.payload).collect::<Vec<_>>(), root);
    let types = variants.iter().map(|Variant { name, version, upcasts, .. }| {
        let reads = upcasts.iter().map(|upcast| upcast.version.number);
        quote!(#es::EventType { name: #name, version: #version, reads: &[#(#reads),*] })
    });
    let of_variant = variants.iter().enumerate().map(|(index, variant)| {
        let ident = &variant.payload.ident;
        quote!(#enum_name::#ident { .. } => &__TYPES[#index],)
    });
    let decode = variants.iter().enumerate().map(|(index, variant)| {
        let name = &variant.name;
        let versions = versions(event, variant)
            .into_iter()
            .map(|(version, ty, into_enum)| quote!(#version => #es::payload::<#codec, #ty>(name, payload).map(#into_enum),));
        quote! {
            #name => match version {
                #(#versions)*
                _ => ::core::result::Result::Err(#es::DecodeError::unknown_version(&__TYPES[#index], version)),
            },
        }
    });
    let invent = variants.iter().flat_map(|variant| {
        let name = &variant.name;
        versions(event, variant).into_iter().map(move |(version, ty, into_enum)| (name, version, ty, into_enum))
    });
    let invent = invent.map(|(name, version, ty, into_enum)| {
        quote!((#name, #version) => ::core::option::Option::Some(<#ty as #es::serde::Deserialize>::deserialize(payload).map(#into_enum)),)
    });
    let trait_name = quote_spanned!(enum_name.span()=> Event);
    quote! {
        const _: () = {
            #writer

            const __TYPES: &[#es::EventType] = &[#(#types),*];

            fn __type_of(event: &#enum_name) -> &'static #es::EventType {
                match event { #(#of_variant)* }
            }

            #[automatically_derived]
            impl #es::#trait_name for #enum_name {
                const AGGREGATE: &'static str = #aggregate;
                const TYPES: &'static [#es::EventType] = __TYPES;
                type Codec = #codec;

                fn event_type(&self) -> &'static #es::EventType {
                    __type_of(self)
                }

                fn encode(&self, out: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                    <#codec as #es::Codec>::encode(&__Payload(self), out)
                }

                fn encode_tagged(&self, out: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                    let kind = __type_of(self);
                    <#codec as #es::Codec>::encode_tagged(&#es::tag(kind.name, kind.version), &__Payload(self), out)
                }

                fn decode(name: &str, version: u32, payload: &[u8]) -> ::core::result::Result<Self, #es::DecodeError> {
                    match name {
                        #(#decode)*
                        _ => ::core::result::Result::Err(#es::DecodeError::unknown_type(name, __TYPES.iter().map(|kind| kind.name))),
                    }
                }

                fn __invent<'de, D: #es::serde::Deserializer<'de>>(
                    name: &str,
                    version: u32,
                    payload: D,
                ) -> ::core::option::Option<::core::result::Result<Self, D::Error>> {
                    match (name, version) {
                        #(#invent)*
                        _ => ::core::option::Option::None,
                    }
                }
            }
        };
    }
}

/// For each version that is read: its number, the type that reads it, and the function from there to the enum.
fn versions(event: &EventEnum, variant: &Variant) -> Vec<(u32, TokenStream, TokenStream)> {
    let (es, path) = (event.root.private(), &variant.event);
    let mut versions = vec![(variant.version, quote!(#path), quote!(<Self as ::core::convert::From<#path>>::from))];
    let mut newer = (quote!(#path), quote!(event));
    for upcast in variant.upcasts.iter().rev() {
        let (ty, (to, rest)) = (&upcast.ty, &newer);
        let step = quote_spanned!(ty.span()=> <#ty as #es::Upcast<#to>>::upcast(event));
        let whole = quote!({ let event = #step; #rest });
        versions.push((upcast.version.number, quote!(#ty), quote!(|event| <Self as ::core::convert::From<#path>>::from(#whole))));
        newer = (quote!(#ty), whole);
    }
    versions
}

fn event_fallback(event: &EventEnum) -> TokenStream {
    let (enum_name, es) = (&event.ident, event.root.private());
    quote! {
        #[automatically_derived]
        impl #es::Event for #enum_name {
            const AGGREGATE: &'static str = "";
            const TYPES: &'static [#es::EventType] = &[];
            type Codec = #es::Json;

            fn event_type(&self) -> &'static #es::EventType {
                ::core::unreachable!()
            }

            fn encode(&self, _: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                ::core::unreachable!()
            }

            fn encode_tagged(&self, _: &mut ::std::vec::Vec<u8>) -> ::core::result::Result<(), #es::CodecError> {
                ::core::unreachable!()
            }

            fn decode(_: &str, _: u32, _: &[u8]) -> ::core::result::Result<Self, #es::DecodeError> {
                ::core::unreachable!()
            }
        }
    }
}
