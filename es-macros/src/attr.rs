//! What the attributes of all three macros have in common: lists of `key = value`, with recovery at the next comma and suggestions.

use crate::errors::Errors;
use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, LitStr, Path, Token};

/// How generated code names es-core: by its own name, through es-kafka, or as `crate = …` says.
#[derive(Clone)]
pub(crate) struct Root(TokenStream);

impl Root {
    pub(crate) fn es_core() -> Self {
        Root(quote!(::es_core))
    }

    pub(crate) fn es_kafka() -> Self {
        Root(quote!(::es_kafka))
    }

    pub(crate) fn path(path: &Path) -> Self {
        Root(quote!(#path))
    }

    /// The path itself.
    pub(crate) fn tokens(&self) -> &TokenStream {
        &self.0
    }

    /// The module that has everything generated code names.
    pub(crate) fn private(&self) -> TokenStream {
        let Root(root) = self;
        quote!(#root::__private)
    }

    /// The value of serde's own `crate = "…"`.
    pub(crate) fn serde(&self) -> String {
        format!("{}::__private::serde", self.0).replace(' ', "")
    }
}

/// Reads `item, item, …` within the parentheses of `attr`. A bad item is told, and reading goes on behind the next comma.
pub(crate) fn list(attr: &Attribute, errors: &mut Errors, mut item: impl FnMut(ParseStream<'_>, &mut Errors) -> syn::Result<()>) {
    let read = |input: ParseStream<'_>| {
        items(input, errors, &mut item);
        Ok(())
    };
    if let Err(error) = attr.parse_args_with(read) {
        errors.push(error);
    }
}

/// As [`list`], of what is left in `input`.
pub(crate) fn items(input: ParseStream<'_>, errors: &mut Errors, mut item: impl FnMut(ParseStream<'_>, &mut Errors) -> syn::Result<()>) {
    while !input.is_empty() {
        let read = item(input, errors).and_then(|()| match input.is_empty() {
            true => Ok(()),
            false => input.parse::<Token![,]>().map(drop),
        });
        if let Err(error) = read {
            errors.push(error);
            skip_item(input);
        }
    }
}

/// As [`items`], of the parentheses that come next.
pub(crate) fn parenthesized(
    input: ParseStream<'_>,
    errors: &mut Errors,
    item: impl FnMut(ParseStream<'_>, &mut Errors) -> syn::Result<()>,
) -> syn::Result<()> {
    let content;
    syn::parenthesized!(content in input);
    items(&content, errors, item);
    Ok(())
}

fn skip_item(input: ParseStream<'_>) {
    while let Ok(token) = input.parse::<TokenTree>() {
        if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
            break;
        }
    }
}

/// The word before `=` or `(`; keywords too.
pub(crate) fn key(input: ParseStream<'_>) -> syn::Result<Ident> {
    input.call(Ident::parse_any)
}

/// `= value` of a key that may stand once.
pub(crate) fn once<T>(
    slot: &mut Option<T>,
    key: &Ident,
    input: ParseStream<'_>,
    errors: &mut Errors,
    value: impl FnOnce(ParseStream<'_>, &mut Errors) -> syn::Result<T>,
) -> syn::Result<()> {
    input.parse::<Token![=]>()?;
    let value = value(input, errors)?;
    if slot.is_some() {
        errors.at(key.span(), format!("`{key}` is given twice"));
    }
    *slot = Some(value);
    Ok(())
}

/// A name on the wire: a string that is not empty.
pub(crate) fn name(input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<LitStr> {
    let name: LitStr = input.parse()?;
    if name.value().is_empty() {
        errors.at(name.span(), "the name is empty");
    }
    Ok(name)
}

/// The name of an aggregate: a part of the names of Kafka topics, so made of what Kafka allows in them.
pub(crate) fn topic_name(input: ParseStream<'_>, errors: &mut Errors) -> syn::Result<LitStr> {
    let name = name(input, errors)?;
    if let Some(wrong) = name.value().chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        let message = format!("`{wrong}` cannot be in the name of a Kafka topic: letters, digits, `.`, `_` and `-` can");
        errors.at(name.span(), message);
    }
    Ok(name)
}

/// The error for a word that is none of `known`.
pub(crate) fn unknown(what: &str, word: &Ident, known: &[&str]) -> syn::Error {
    let name = word.unraw().to_string();
    let near = known.iter().map(|k| (distance(&name, k), k)).min().filter(|(distance, k)| *distance <= 1 + k.len() / 4);
    let hint = match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")),
    };
    syn::Error::new(word.span(), format!("unknown {what} `{name}`: {hint}"))
}

/// The number of letters to insert, remove, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The path behind `crate =` in the arguments of an attribute, if there is a readable one.
pub(crate) fn crate_path(args: &TokenStream) -> Option<Path> {
    let mut found = None;
    let read = |input: ParseStream<'_>| {
        items(input, &mut Errors::default(), |input, _| {
            if key(input)? == "crate" {
                input.parse::<Token![=]>()?;
                found = Some(input.call(Path::parse_mod_style)?);
                return Ok(());
            }
            while !input.is_empty() && !input.peek(Token![,]) {
                input.parse::<TokenTree>()?;
            }
            Ok(())
        });
        Ok(())
    };
    read.parse2(args.clone()).ok()?;
    found
}

/// Whether two paths are written alike.
pub(crate) fn alike(a: &Path, b: &Path) -> bool {
    a.to_token_stream().to_string() == b.to_token_stream().to_string()
}

/// The span of an attribute's name.
pub(crate) fn span(attr: &Attribute) -> Span {
    attr.path().segments.last().expect("a path has a segment").ident.span()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_one_step() {
        for (a, b, steps) in
            [("add", "add", 0), ("ad", "add", 1), ("sett", "set", 1), ("puhs", "push", 1), ("max", "min", 2), ("", "add", 3)]
        {
            assert_eq!(distance(a, b), steps, "{a} {b}");
        }
    }

    #[test]
    fn the_path_of_the_crate_is_found_among_other_arguments() {
        let root = |args: TokenStream| crate_path(&args).map(|path| quote!(#path).to_string());
        assert_eq!(root(quote!(aggregate = "a", crate = es, ignores(A, B))).as_deref(), Some("es"));
        assert_eq!(root(quote!(name(crate), crate = a::b)).as_deref(), Some("a :: b"));
        assert_eq!(root(quote!(aggregate = "crate")), None);
    }
}
