//! Which templates are run: those whose values stay small.
//!
//! The engine pays for work and memory from a budget, but its operators on lists and maps are lazy or recursive and not all
//! of them pay: forty times `x = x + x` or `x = [x, x]` is a value of 2^40 items that cost nothing, until something
//! walks it. So before a template runs, its syntax tree must show that no value can hold another one twice:
//!
//! - literals of lists and maps hold texts and numbers, lists also constant lists;
//! - one side of `+` and both sides of `*` and `**` are texts or numbers, or one side of `+` is a list literal;
//! - a namespace is only used for its fields;
//! - functions and filters are those below.
//!
//! "Texts and numbers" is what the tree alone shows: constants, results of operators and filters that give nothing else,
//! the `role` and `content` of messages. Published templates keep to this; `~` joins texts where `+` is not sure to.

use std::cell::Cell;
use std::collections::HashSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

/// Expressions in each other at most; the engine folds constants in quadratic time.
const MAX_DEPTH: usize = 200;
/// Filters whose result is a text, a number or a boolean.
const PLAIN_FILTERS: [&str; 21] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "e",
    "escape",
    "float",
    "indent",
    "int",
    "join",
    "length",
    "lower",
    "replace",
    "round",
    "safe",
    "string",
    "title",
    "tojson",
    "trim",
    "upper",
    "urlencode",
];
/// Filters whose result holds no item of its input twice.
const OTHER_FILTERS: [&str; 14] = [
    "attr",
    "d",
    "default",
    "first",
    "items",
    "last",
    "list",
    "map",
    "reject",
    "rejectattr",
    "reverse",
    "select",
    "selectattr",
    "split",
];
/// Methods that only texts have, and whose result is a text, a number or a boolean.
const PLAIN_METHODS: [&str; 18] = [
    "capitalize",
    "endswith",
    "find",
    "format",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isupper",
    "join",
    "lower",
    "lstrip",
    "replace",
    "rfind",
    "rstrip",
    "startswith",
    "strip",
    "upper",
];
const OTHER_METHODS: [&str; 8] = ["count", "get", "items", "keys", "split", "splitlines", "title", "values"];
const FUNCTIONS: [&str; 3] = ["namespace", "raise_exception", "range"];
/// What a message has, always texts.
const MESSAGE_FIELDS: [&str; 2] = ["role", "content"];
/// Variables that are texts or booleans from the start.
const PLAIN_VARIABLES: [&str; 3] = ["add_generation_prompt", "bos_token", "eos_token"];

/// Says what in a template is not of the kind that may run; `Ok` where all is.
pub(super) fn check(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    let tree = parse(source, "chat_template", syntax).map_err(|error| error.to_string())?;
    let mut names = Names::default();
    names.collect(&tree)?;
    Checker { names: &names, depth: Cell::new(0) }.statement(&tree)
}

/// The names that a template gives to things.
#[derive(Default)]
struct Names<'a> {
    /// Variables that are set anywhere.
    set: HashSet<&'a str>,
    /// Fields of namespaces.
    keys: HashSet<&'a str>,
    namespaces: HashSet<&'a str>,
    macros: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn collect(&mut self, statement: &Stmt<'a>) -> Result<(), String> {
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

    fn target(&mut self, target: &Expr<'a>) {
        match target {
            Expr::Var(var) => drop(self.set.insert(var.id)),
            Expr::GetAttr(field) => drop(self.keys.insert(field.name)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.target(item)),
            Expr::List(list) => list.items.iter().for_each(|item| self.target(item)),
            _ => (),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'a>]) {
        for argument in arguments {
            if let CallArg::Kwarg(name, _) = argument {
                self.keys.insert(name);
            }
        }
    }
}

fn is_namespace(callee: &Expr<'_>) -> bool {
    matches!(callee, Expr::Var(var) if var.id == "namespace")
}

fn children<'t, 'a>(statement: &'t Stmt<'a>) -> Vec<&'t Stmt<'a>> {
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

struct Checker<'n, 'a> {
    names: &'n Names<'a>,
    /// How many expressions the one at hand is in.
    depth: Cell<usize>,
}

impl<'a> Checker<'_, 'a> {
    fn statement(&self, statement: &Stmt<'a>) -> Result<(), String> {
        match statement {
            Stmt::EmitExpr(it) => self.expression(&it.expr)?,
            Stmt::ForLoop(it) => self.all([Some(&it.iter), it.filter_expr.as_ref()].into_iter().flatten())?,
            Stmt::IfCond(it) => self.expression(&it.expr)?,
            Stmt::WithBlock(it) => self.all(it.assignments.iter().map(|(_, value)| value))?,
            Stmt::Set(it) => match (&it.target, &it.expr) {
                (Expr::Var(_), Expr::Call(call)) if is_namespace(&call.expr) => self.arguments(&call.args)?,
                (_, value) => self.expression(value)?,
            },
            Stmt::SetBlock(it) => self.all(it.filter.as_ref())?,
            Stmt::FilterBlock(it) => self.expression(&it.filter)?,
            Stmt::Macro(it) => self.all(&it.defaults)?,
            Stmt::CallBlock(it) => {
                self.call(&it.call.expr, &it.call.args)?;
                self.all(&it.macro_decl.defaults)?;
            }
            Stmt::AutoEscape(_) => return Err("`autoescape` is not for chat templates".to_owned()),
            Stmt::Do(it) => self.call(&it.call.expr, &it.call.args)?,
            Stmt::Template(_) | Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => (),
        }
        children(statement).into_iter().try_for_each(|child| self.statement(child))
    }

    fn all<'t>(&self, expressions: impl IntoIterator<Item = &'t Expr<'a>>) -> Result<(), String>
    where
        'a: 't,
    {
        expressions.into_iter().try_for_each(|expression| self.expression(expression))
    }

    fn expression(&self, expression: &Expr<'a>) -> Result<(), String> {
        if self.depth.get() == MAX_DEPTH {
            return Err(format!(
                "line {}: more than {MAX_DEPTH} operators in each other",
                expression.span().start_line
            ));
        }
        self.depth.set(self.depth.get() + 1);
        self.shallow(expression)?;
        self.depth.set(self.depth.get() - 1);
        Ok(())
    }

    fn shallow(&self, expression: &Expr<'a>) -> Result<(), String> {
        let refused = |what: &str| Err(format!("line {}: {what}", expression.span().start_line));
        match expression {
            Expr::Const(_) => Ok(()),
            Expr::Var(it) if self.names.namespaces.contains(it.id) => {
                refused(&format!("the namespace `{}` is used as a value, not for its fields", it.id))
            }
            Expr::Var(_) => Ok(()),
            Expr::Slice(it) => self.all(
                [Some(&it.expr), it.start.as_ref(), it.stop.as_ref(), it.step.as_ref()].into_iter().flatten(),
            ),
            Expr::UnaryOp(it) => self.expression(&it.expr),
            Expr::BinOp(it) => {
                let (left, right) = (self.plain(&it.left), self.plain(&it.right));
                let fits = match it.op {
                    BinOpKind::Add => left || right || is_list(&it.left) || is_list(&it.right),
                    BinOpKind::Mul | BinOpKind::Pow => left && right,
                    _ => true,
                };
                if !fits {
                    return refused(
                        "`+` and `*` are for texts and numbers, and one of these may be a list; `~` joins texts",
                    );
                }
                self.all([&it.left, &it.right])
            }
            Expr::Compare(it) => self.all(std::iter::once(&it.expr).chain(it.ops.iter().map(|op| &op.expr))),
            Expr::IfExpr(it) => self.all(
                [Some(&it.test_expr), Some(&it.true_expr), it.false_expr.as_ref()].into_iter().flatten(),
            ),
            Expr::Filter(it) => {
                if !PLAIN_FILTERS.contains(&it.name) && !OTHER_FILTERS.contains(&it.name) {
                    return refused(&format!("the filter `{}` is not known here", it.name));
                }
                if it.name == "map" && !it.args.iter().all(|argument| self.plain_argument(argument)) {
                    return refused("the filter `map` takes texts and numbers");
                }
                self.all(&it.expr)?;
                self.arguments(&it.args)
            }
            Expr::Test(it) => {
                self.expression(&it.expr)?;
                self.arguments(&it.args)
            }
            Expr::GetAttr(it) => self.base(&it.expr),
            Expr::GetItem(it) => {
                self.base(&it.expr)?;
                self.expression(&it.subscript_expr)
            }
            Expr::Call(it) => self.call(&it.expr, &it.args).or_else(|what| refused(&what)),
            Expr::List(it) => self.literal(&it.items).or_else(|what| refused(&what)),
            Expr::Tuple(it) => self.literal(&it.items).or_else(|what| refused(&what)),
            Expr::Map(it) if !it.values.iter().all(|value| self.plain(value)) => {
                refused("a map literal holds something else than texts and numbers")
            }
            Expr::Map(it) => self.all(it.keys.iter().chain(&it.values)),
        }
    }

    /// What fields are taken of: here a namespace may stand.
    fn base(&self, expression: &Expr<'a>) -> Result<(), String> {
        match expression {
            Expr::Var(_) => Ok(()),
            other => self.expression(other),
        }
    }

    fn call(&self, callee: &Expr<'a>, arguments: &[CallArg<'a>]) -> Result<(), String> {
        match callee {
            Expr::Var(it) if it.id == "namespace" => {
                return Err("`namespace` is called elsewhere than in `set NAME = namespace(…)`".to_owned());
            }
            Expr::Var(it)
                if FUNCTIONS.contains(&it.id)
                    || self.names.macros.contains(it.id)
                    || matches!(it.id, "caller" | "loop") => {}
            Expr::GetAttr(it) if PLAIN_METHODS.contains(&it.name) || OTHER_METHODS.contains(&it.name) => {
                self.base(&it.expr)?;
            }
            Expr::GetAttr(it) if matches!(it.expr, Expr::Var(ref var) if var.id == "loop") => {}
            _ => {
                return Err(
                    "a call of something that is neither a macro nor a function known here".to_owned()
                );
            }
        }
        self.arguments(arguments)
    }

    fn arguments(&self, arguments: &[CallArg<'a>]) -> Result<(), String> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => Err("`*` before an argument".to_owned()),
        })
    }

    fn literal<'t>(&self, items: impl IntoIterator<Item = &'t Expr<'a>>) -> Result<(), String>
    where
        'a: 't,
    {
        for item in items {
            if !self.plain(item) && !constant(item) {
                return Err(
                    "a list literal holds something else than constants, texts and numbers".to_owned()
                );
            }
            self.expression(item)?;
        }
        Ok(())
    }

    fn plain_argument(&self, argument: &CallArg<'a>) -> bool {
        matches!(argument, CallArg::Pos(value) | CallArg::Kwarg(_, value) if self.plain(value))
    }

    /// Whether the tree shows that a value is a text, a number, a boolean or none.
    fn plain(&self, expression: &Expr<'a>) -> bool {
        let message_field = |name: &str| MESSAGE_FIELDS.contains(&name) && !self.names.keys.contains(name);
        match expression {
            Expr::Const(_) | Expr::UnaryOp(_) | Expr::Compare(_) | Expr::Test(_) => true,
            Expr::Var(it) => PLAIN_VARIABLES.contains(&it.id) && !self.names.set.contains(it.id),
            Expr::BinOp(it) => match it.op {
                BinOpKind::ScAnd | BinOpKind::ScOr => self.plain(&it.left) && self.plain(&it.right),
                BinOpKind::Add => self.plain(&it.left) || self.plain(&it.right),
                _ => true,
            },
            Expr::IfExpr(it) => {
                self.plain(&it.true_expr) && it.false_expr.as_ref().is_none_or(|other| self.plain(other))
            }
            Expr::Filter(it) => PLAIN_FILTERS.contains(&it.name),
            Expr::GetAttr(it) => {
                message_field(it.name)
                    || matches!(&it.expr, Expr::Var(var) if var.id == "loop" && it.name.starts_with("index"))
            }
            Expr::GetItem(it) => match &it.subscript_expr {
                Expr::Const(key) => key.value.as_str().is_some_and(message_field),
                _ => false,
            },
            Expr::Call(it) => match &it.expr {
                Expr::GetAttr(method) => PLAIN_METHODS.contains(&method.name),
                Expr::Var(name) => self.names.macros.contains(name.id),
                _ => false,
            },
            Expr::Slice(it) => self.plain(&it.expr),
            Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => false,
        }
    }
}

fn is_list(expression: &Expr<'_>) -> bool {
    matches!(expression, Expr::List(_))
}

/// Whether an expression is made of constants alone.
fn constant(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Const(_) => true,
        Expr::List(it) => it.items.iter().all(constant),
        Expr::Tuple(it) => it.items.iter().all(constant),
        _ => false,
    }
}
