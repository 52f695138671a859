//! What must hold of a command enum beyond its grammar.

use super::ast::CommandEnum;
use crate::errors::Errors;
use crate::payload::Shape;
use std::collections::HashSet;

pub(super) fn check(command: &CommandEnum, errors: &mut Errors) {
    let mut names = HashSet::new();
    for variant in &command.variants {
        let name = variant.name.value();
        if !names.insert(name.clone()) {
            errors.at(variant.name.span(), format!("two commands are named `{name}`: a reader could not tell them apart"));
        }
        variant.payload.check_tag(&command.codec, errors);
        if let (Some(key), Shape::Fields(fields)) = (&command.key, &variant.payload.shape)
            && fields.iter().all(|field| field.ident != *key)
        {
            errors.at(variant.payload.ident.span(), format!("`{}` has no field `{key}`, which is the key", variant.payload.ident));
        }
    }
}
