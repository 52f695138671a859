//! The grammar of `#[command(…)]` on the enum and on its variants.

use crate::attr::{Root, key, list, name, once, unknown};
use crate::errors::Errors;
use proc_macro2::Ident;
use syn::{Attribute, LitStr, Path};

/// `#[command(codec = Json, key = id, crate = es)]`.
#[derive(Default)]
pub(super) struct EnumAttr {
    pub(super) root: Option<Root>,
    pub(super) codec: Option<Path>,
    /// The field that is the aggregate's id.
    pub(super) key: Option<Ident>,
}

/// `#[command(name = "…")]`.
#[derive(Default)]
pub(super) struct VariantAttr {
    pub(super) name: Option<LitStr>,
}

impl EnumAttr {
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = EnumAttr::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("command")) {
            list(attr, errors, |input, errors| {
                let word = key(input)?;
                match word.to_string().as_str() {
                    "codec" => once(&mut this.codec, &word, input, errors, |input, _| input.parse()),
                    "key" => once(&mut this.key, &word, input, errors, |input, _| input.parse()),
                    "crate" => once(&mut this.root, &word, input, errors, |input, _| Ok(Root::path(&input.call(Path::parse_mod_style)?))),
                    _ => Err(unknown("setting", &word, &["codec", "key", "crate"])),
                }
            });
        }
        this
    }
}

impl VariantAttr {
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = VariantAttr::default();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("command")) {
            list(attr, errors, |input, errors| {
                let word = key(input)?;
                match word.to_string().as_str() {
                    "name" => once(&mut this.name, &word, input, errors, name),
                    _ => Err(unknown("setting", &word, &["name"])),
                }
            });
        }
        this
    }
}
