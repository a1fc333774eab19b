//! Static check of a chat template: only templates whose values stay small are run.
//!
//! The engine charges work and memory to a budget, but operators on lists and maps are lazy or recursive and not all are
//! charged: forty times `x = x + x` or `x = [x, x]` is a value of 2^40 items that costs nothing until it is walked. The
//! syntax tree must therefore show that no value holds another one twice:
//!
//! - literals of lists and maps hold scalars, lists also constant lists;
//! - one side of `+` and both sides of `*` and `**` are scalars, or one side of `+` is a list literal;
//! - a namespace is used for its fields only;
//! - functions, methods and filters are those of `allow_list`.
//!
//! A scalar is a string, number, boolean or none, as far as the tree alone shows: constants, results of operators and
//! filters with scalar results, the `role` and `content` of messages. Published templates keep to this; `~` joins strings
//! where `+` may not.

mod allow_list;
mod names;

use std::cell::Cell;

use minijinja::machinery::ast::{BinOp, BinOpKind, CallArg, Expr, Filter, Stmt};
use minijinja::machinery::parse;
use minijinja::syntax::SyntaxConfig;

use allow_list::{
    FUNCTIONS, MESSAGE_FIELDS, OTHER_FILTERS, OTHER_METHODS, SCALAR_FILTERS, SCALAR_METHODS, SCALAR_VARIABLES,
};
use names::{DeclaredNames, children, is_namespace};

/// Deepest nesting of expressions; the engine folds constants in quadratic time.
const MAX_DEPTH: usize = 200;

/// Checks a template.
///
/// # Errors
/// The rule that it violates, in words.
pub(super) fn check(source: &str, syntax: SyntaxConfig) -> Result<(), String> {
    let tree = parse(source, "chat_template", syntax).map_err(|error| error.to_string())?;
    let mut names = DeclaredNames::default();
    names.collect(&tree)?;
    SafetyChecker { names: &names, depth: Cell::new(0) }.statement(&tree)
}

/// Checker of the rules, over the declared names.
struct SafetyChecker<'n, 'a> {
    names: &'n DeclaredNames<'a>,
    /// Nesting of the current expression.
    depth: Cell<usize>,
}

impl<'a> SafetyChecker<'_, 'a> {
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

    /// Checks an expression, and its nesting.
    fn expression(&self, expression: &Expr<'a>) -> Result<(), String> {
        if self.depth.get() == MAX_DEPTH {
            return Err(format!(
                "line {}: more than {MAX_DEPTH} operators in each other",
                expression.span().start_line
            ));
        }
        self.depth.set(self.depth.get() + 1);
        self.operands(expression)?;
        self.depth.set(self.depth.get() - 1);
        Ok(())
    }

    fn operands(&self, expression: &Expr<'a>) -> Result<(), String> {
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
            Expr::BinOp(it) if !self.operator_is_safe(it) => refused(
                "`+` and `*` are for texts and numbers, and one of these may be a list; `~` joins texts",
            ),
            Expr::BinOp(it) => self.all([&it.left, &it.right]),
            Expr::Compare(it) => self.all(std::iter::once(&it.expr).chain(it.ops.iter().map(|op| &op.expr))),
            Expr::IfExpr(it) => self.all(
                [Some(&it.test_expr), Some(&it.true_expr), it.false_expr.as_ref()].into_iter().flatten(),
            ),
            Expr::Filter(it) => {
                self.filter_name(it).or_else(|what| refused(&what))?;
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
            Expr::Map(it) if !it.values.iter().all(|value| self.is_scalar(value)) => {
                refused("a map literal holds something else than texts and numbers")
            }
            Expr::Map(it) => self.all(it.keys.iter().chain(&it.values)),
        }
    }

    /// Whether an operator cannot repeat a list.
    fn operator_is_safe(&self, it: &BinOp<'a>) -> bool {
        let (left, right) = (self.is_scalar(&it.left), self.is_scalar(&it.right));
        match it.op {
            BinOpKind::Add => left || right || is_list(&it.left) || is_list(&it.right),
            BinOpKind::Mul | BinOpKind::Pow => left && right,
            _ => true,
        }
    }

    /// Checks that a filter is allowed; `map` takes scalar arguments only.
    fn filter_name(&self, it: &Filter<'a>) -> Result<(), String> {
        if !SCALAR_FILTERS.contains(&it.name) && !OTHER_FILTERS.contains(&it.name) {
            return Err(format!("the filter `{}` is not known here", it.name));
        }
        if it.name == "map" && !it.args.iter().all(|argument| self.is_scalar_argument(argument)) {
            return Err("the filter `map` takes texts and numbers".to_owned());
        }
        Ok(())
    }

    /// Checks the base of a field access, where a namespace may stand.
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
            Expr::GetAttr(it) if SCALAR_METHODS.contains(&it.name) || OTHER_METHODS.contains(&it.name) => {
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

    /// Checks the items of a list or tuple literal.
    fn literal<'t>(&self, items: impl IntoIterator<Item = &'t Expr<'a>>) -> Result<(), String>
    where
        'a: 't,
    {
        for item in items {
            if !self.is_scalar(item) && !is_constant(item) {
                return Err(
                    "a list literal holds something else than constants, texts and numbers".to_owned()
                );
            }
            self.expression(item)?;
        }
        Ok(())
    }

    fn is_scalar_argument(&self, argument: &CallArg<'a>) -> bool {
        matches!(argument, CallArg::Pos(value) | CallArg::Kwarg(_, value) if self.is_scalar(value))
    }

    /// Whether the tree shows that a value is a string, number, boolean or none.
    fn is_scalar(&self, expression: &Expr<'a>) -> bool {
        let is_message_field = |name: &str| MESSAGE_FIELDS.contains(&name) && !self.names.keys.contains(name);
        match expression {
            Expr::Const(_) | Expr::UnaryOp(_) | Expr::Compare(_) | Expr::Test(_) => true,
            Expr::Var(it) => SCALAR_VARIABLES.contains(&it.id) && !self.names.set.contains(it.id),
            Expr::BinOp(it) => match it.op {
                BinOpKind::ScAnd | BinOpKind::ScOr => self.is_scalar(&it.left) && self.is_scalar(&it.right),
                BinOpKind::Add => self.is_scalar(&it.left) || self.is_scalar(&it.right),
                _ => true,
            },
            Expr::IfExpr(it) => {
                self.is_scalar(&it.true_expr)
                    && it.false_expr.as_ref().is_none_or(|other| self.is_scalar(other))
            }
            Expr::Filter(it) => SCALAR_FILTERS.contains(&it.name),
            Expr::GetAttr(it) => {
                is_message_field(it.name)
                    || matches!(&it.expr, Expr::Var(var) if var.id == "loop" && it.name.starts_with("index"))
            }
            Expr::GetItem(it) => match &it.subscript_expr {
                Expr::Const(key) => key.value.as_str().is_some_and(is_message_field),
                _ => false,
            },
            Expr::Call(it) => match &it.expr {
                Expr::GetAttr(method) => SCALAR_METHODS.contains(&method.name),
                Expr::Var(name) => self.names.macros.contains(name.id),
                _ => false,
            },
            Expr::Slice(it) => self.is_scalar(&it.expr),
            Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => false,
        }
    }
}

fn is_list(expression: &Expr<'_>) -> bool {
    matches!(expression, Expr::List(_))
}

/// Whether an expression consists of constants.
fn is_constant(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Const(_) => true,
        Expr::List(it) => it.items.iter().all(is_constant),
        Expr::Tuple(it) => it.items.iter().all(is_constant),
        _ => false,
    }
}
