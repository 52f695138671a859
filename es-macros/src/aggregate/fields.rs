//! Which fields of its event a verb's argument names: lone lower-case names that the argument does not bind itself and does not call.

use crate::errors::Errors;
use proc_macro2::Ident;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, Lit, LitStr, Token};

/// The event's fields in `arg`, each as it is written there. Uses of `self` are told: a verb sees the event alone.
pub(super) fn fields(arg: &Expr, errors: &mut Errors) -> Vec<Ident> {
    let mut finder = Finder { found: Vec::new(), scopes: Vec::new(), errors };
    finder.visit_expr(arg);
    finder.found
}

struct Finder<'a> {
    found: Vec<Ident>,
    /// The names that the argument binds itself, innermost last.
    scopes: Vec<Vec<Ident>>,
    errors: &'a mut Errors,
}

impl Finder<'_> {
    fn scope(&mut self, visit: impl FnOnce(&mut Self)) {
        self.scopes.push(Vec::new());
        visit(self);
        self.scopes.pop();
    }

    fn name(&mut self, name: &Ident) {
        if name == "self" {
            let message = "a verb sees the event alone, not the state: write `impl Fold<…> for …` by hand";
            self.errors.at(name.span(), message);
        } else if name.to_string().trim_start_matches("r#").starts_with(|c: char| c.is_lowercase())
            && !self.scopes.iter().flatten().any(|bound| bound == name)
        {
            self.found.push(name.clone());
        }
    }

    /// The names in `{…}` of a format string.
    fn format_string(&mut self, string: &LitStr) {
        let text = string.value().replace("{{", "").replace("}}", "");
        for inside in text.split('{').skip(1) {
            let name = inside.split(['}', ':']).next().unwrap_or_default();
            if let Ok(name) = syn::parse_str::<Ident>(name) {
                self.name(&Ident::new(&name.to_string(), string.span()));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if let (None, Some(name)) = (&path.qself, path.path.get_ident()) {
            self.name(name);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if !matches!(&*call.func, Expr::Path(function) if function.path.get_ident().is_some()) {
            self.visit_expr(&call.func);
        }
        call.args.iter().for_each(|arg| self.visit_expr(arg));
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let Ok(args) = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(mac.tokens.clone()) else { return };
        for arg in &args {
            match arg {
                Expr::Lit(syn::ExprLit { lit: Lit::Str(string), .. }) => self.format_string(string),
                // `format!("{x}", x = value)`: a named argument.
                Expr::Assign(named) => self.visit_expr(&named.right),
                arg => self.visit_expr(arg),
            }
        }
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.scope(|this| visit::visit_expr_closure(this, closure));
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.scope(|this| visit::visit_block(this, block));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some(init) = &local.init {
            self.visit_expr(&init.expr);
            if let Some((_, diverge)) = &init.diverge {
                self.visit_expr(diverge);
            }
        }
        self.visit_pat(&local.pat);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        self.scope(|this| visit::visit_arm(this, arm));
    }

    fn visit_expr_if(&mut self, expr: &'ast syn::ExprIf) {
        self.scope(|this| {
            this.visit_expr(&expr.cond);
            this.visit_block(&expr.then_branch);
        });
        if let Some((_, otherwise)) = &expr.else_branch {
            self.visit_expr(otherwise);
        }
    }

    fn visit_expr_let(&mut self, expr: &'ast syn::ExprLet) {
        self.visit_expr(&expr.expr);
        self.visit_pat(&expr.pat);
    }

    fn visit_expr_while(&mut self, expr: &'ast syn::ExprWhile) {
        self.scope(|this| visit::visit_expr_while(this, expr));
    }

    fn visit_expr_for_loop(&mut self, expr: &'ast syn::ExprForLoop) {
        self.visit_expr(&expr.expr);
        self.scope(|this| {
            this.visit_pat(&expr.pat);
            this.visit_block(&expr.body);
        });
    }

    fn visit_pat_ident(&mut self, pat: &'ast syn::PatIdent) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(pat.ident.clone());
        }
        if let Some((_, inner)) = &pat.subpat {
            self.visit_pat(inner);
        }
    }
}
