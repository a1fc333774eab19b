//! Names that a chat template declares: variables, namespace fields, namespaces and macros.

use std::collections::HashSet;

use minijinja::machinery::ast::{CallArg, Expr, Stmt};

/// Names that a template assigns or declares.
#[derive(Default)]
pub(super) struct DeclaredNames<'a> {
    /// Assigned variables.
    pub(super) set: HashSet<&'a str>,
    /// Fields of namespaces.
    pub(super) keys: HashSet<&'a str>,
    pub(super) namespaces: HashSet<&'a str>,
    pub(super) macros: HashSet<&'a str>,
}

impl<'a> DeclaredNames<'a> {
    /// Collects the names of a statement and its children; a namespace or macro must not be reassigned.
    pub(super) fn collect(&mut self, statement: &Stmt<'a>) -> Result<(), String> {
        match statement {
            Stmt::ForLoop(it) => self.target(&it.target),
            Stmt::WithBlock(it) => it.assignments.iter().for_each(|(target, _)| self.target(target)),
            Stmt::SetBlock(it) => self.target(&it.target),
            Stmt::Set(it) => match (&it.target, &it.expr) {
                (Expr::Var(target), Expr::Call(call)) if is_namespace(&call.expr) => {
                    self.namespaces.insert(target.id);
                    self.arguments(&call.args);
                }
                _ => self.target(&it.target),
            },
            Stmt::Macro(it) => {
                self.macros.insert(it.name);
                it.args.iter().for_each(|argument| self.target(argument));
            }
            Stmt::CallBlock(it) => it.macro_decl.args.iter().for_each(|argument| self.target(argument)),
            _ => (),
        }
        children(statement).into_iter().try_for_each(|child| self.collect(child))?;
        match self.set.iter().find(|name| self.namespaces.contains(*name) || self.macros.contains(*name)) {
            Some(name) => Err(format!("`{name}` is a namespace or a macro, and also set to something else")),
            None => Ok(()),
        }
    }

    /// Adds the target of an assignment.
    fn target(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(var) => drop(self.set.insert(var.id)),
            Expr::GetAttr(field) => drop(self.keys.insert(field.name)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            _ => (),
        }
    }

    /// Adds the fields that arguments of `namespace` create.
    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        for argument in arguments {
            if let CallArg::Kwarg(name, _) = argument {
                self.keys.insert(name);
            }
        }
    }
}

/// Whether a callee is the function `namespace`.
pub(super) fn is_namespace(callee: &Expr<'_>) -> bool {
    matches!(callee, Expr::Var(var) if var.id == "namespace")
}

/// Nested statements.
pub(super) fn children<'t, 'a>(statement: &'t Stmt<'a>) -> Vec<&'t Stmt<'a>> {
    let both = |a: &'t [Stmt<'a>], b: &'t [Stmt<'a>]| a.iter().chain(b).collect();
    match statement {
        Stmt::Template(it) => both(&it.children, &[]),
        Stmt::ForLoop(it) => both(&it.body, &it.else_body),
        Stmt::IfCond(it) => both(&it.true_body, &it.false_body),
        Stmt::WithBlock(it) => both(&it.body, &[]),
        Stmt::SetBlock(it) => both(&it.body, &[]),
        Stmt::AutoEscape(it) => both(&it.body, &[]),
        Stmt::FilterBlock(it) => both(&it.body, &[]),
        Stmt::Macro(it) => both(&it.body, &[]),
        Stmt::CallBlock(it) => both(&it.macro_decl.body, &[]),
        _ => Vec::new(),
    }
}
