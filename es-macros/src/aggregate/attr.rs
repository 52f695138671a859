//! The grammar of `#[aggregate(…)]` on the state and of `#[fold(…)]` on its fields.

use crate::attr::{Root, key, list, once, parenthesized, topic_name, unknown};
use crate::errors::Errors;
use proc_macro2::{Ident, Span};
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, LitInt, LitStr, Path, Token, Type};

/// `#[aggregate(id = String, event = ParcelEvent, version = 1, name = "…", ignores(Closed), history, crate = es)]`.
#[derive(Default)]
pub(super) struct StateAttr {
    pub(super) root: Option<Root>,
    pub(super) id: Option<Type>,
    pub(super) event: Option<Path>,
    pub(super) version: Option<u32>,
    pub(super) name: Option<LitStr>,
    pub(super) ignores: Vec<Path>,
    pub(super) history: bool,
    /// Some of it could not be read: what is not there need not be missing.
    pub(super) incomplete: bool,
}

/// `Deposited => add(amount)`.
pub(super) struct Rule {
    pub(super) event: Path,
    /// `None` where it could not be read: an error was told.
    pub(super) action: Option<Action>,
}

/// `add(amount)`.
pub(super) struct Action {
    pub(super) verb: Verb,
    pub(super) span: Span,
    pub(super) args: Vec<Expr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    Add,
    Sub,
    Push,
    Insert,
    Remove,
    Count,
    Max,
    Min,
    With,
}

impl StateAttr {
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Self {
        let mut this = StateAttr::default();
        let before = errors.count();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("aggregate")) {
            list(attr, errors, |input, errors| {
                let word = key(input)?;
                match word.to_string().as_str() {
                    "id" => once(&mut this.id, &word, input, errors, |input, _| input.parse()),
                    "event" => once(&mut this.event, &word, input, errors, |input, _| input.parse()),
                    "version" => once(&mut this.version, &word, input, errors, |input, _| input.parse::<LitInt>()?.base10_parse()),
                    "name" => once(&mut this.name, &word, input, errors, topic_name),
                    "ignores" => parenthesized(input, errors, |input, _| {
                        this.ignores.push(input.parse()?);
                        Ok(())
                    }),
                    "history" => {
                        if std::mem::replace(&mut this.history, true) {
                            errors.at(word.span(), "`history` is given twice");
                        }
                        Ok(())
                    }
                    "crate" => once(&mut this.root, &word, input, errors, |input, _| Ok(Root::path(&input.call(Path::parse_mod_style)?))),
                    _ => Err(unknown("setting", &word, &["id", "event", "version", "name", "ignores", "history", "crate"])),
                }
            });
        }
        this.incomplete = errors.count() > before;
        this
    }
}

impl Rule {
    /// The rules of a field.
    pub(super) fn read(attrs: &[Attribute], errors: &mut Errors) -> Vec<Self> {
        let mut rules = Vec::new();
        for attr in attrs.iter().filter(|attr| attr.path().is_ident("fold")) {
            list(attr, errors, |input, _| {
                let event: Path = input.parse()?;
                if !input.peek(Token![=>]) {
                    return Err(syn::Error::new_spanned(&event, "which event does what? Write `#[fold(Event => verb(…))]`"));
                }
                input.parse::<Token![=>]>()?;
                let (action, result) = match Action::read(input) {
                    Ok(action) => (Some(action), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                rules.push(Rule { event, action });
                result
            });
        }
        rules
    }
}

impl Action {
    fn read(input: ParseStream<'_>) -> syn::Result<Self> {
        let word: Ident = input.parse()?;
        let verb = Verb::of(&word)?;
        let mut args = Vec::new();
        if input.peek(syn::token::Paren) {
            let content;
            syn::parenthesized!(content in input);
            args = Punctuated::<Expr, Token![,]>::parse_terminated(&content)?.into_iter().collect();
        }
        match verb.arity().contains(&args.len()) {
            true => Ok(Action { verb, span: word.span(), args }),
            false => Err(syn::Error::new(word.span(), format!("this verb is written `{}`", verb.usage()))),
        }
    }
}

impl Verb {
    const NAMES: [(&'static str, Verb); 10] = [
        ("set", Verb::Set),
        ("add", Verb::Add),
        ("sub", Verb::Sub),
        ("push", Verb::Push),
        ("insert", Verb::Insert),
        ("remove", Verb::Remove),
        ("count", Verb::Count),
        ("max", Verb::Max),
        ("min", Verb::Min),
        ("with", Verb::With),
    ];

    fn of(word: &Ident) -> syn::Result<Self> {
        match Self::NAMES.iter().find(|(name, _)| word == name) {
            Some((_, verb)) => Ok(*verb),
            None => Err(unknown("verb", word, &Self::NAMES.map(|(name, _)| name))),
        }
    }

    fn arity(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Verb::Count => 0..=0,
            Verb::Insert => 1..=2,
            Verb::Set | Verb::Add | Verb::Sub | Verb::Push | Verb::Remove | Verb::Max | Verb::Min | Verb::With => 1..=1,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Verb::Set => "set(value)",
            Verb::Add => "add(value)",
            Verb::Sub => "sub(value)",
            Verb::Push => "push(value)",
            Verb::Insert => "insert(key, value)` or `insert(value)",
            Verb::Remove => "remove(key)",
            Verb::Count => "count",
            Verb::Max => "max(value)",
            Verb::Min => "min(value)",
            Verb::With => "with(function)",
        }
    }
}
