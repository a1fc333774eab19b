//! A checkpoint's own template, run as what it is: a program by somebody else.
//!
//! It sees the conversation and two tokens, and nothing of the machine: no files, no other templates, no clock. Work and
//! memory are paid from one budget, the output is bounded, and a stack of its own takes the deepest nesting that the
//! budget can buy. White space, Python's methods and `tojson` are as in transformers, whose templates these are.

use std::io::Write;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, State, Value, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::{Message, generation_tag, tame};
use crate::error::{Error, Result};

/// The longest template, in bytes; those in use have some thousand. Nesting costs stack, and this bounds it.
const MAX_SOURCE_BYTES: usize = 64 << 10;
/// The longest text a template may give, in bytes.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// The budget: an instruction costs 1, and so do 64 bytes made or read.
const BASE_FUEL: u64 = 20_000;
/// What a message adds to it.
const FUEL_PER_MESSAGE: u64 = 200;
/// Bytes of a conversation that add 1 to it: each may be read and written a few times.
const BYTES_PER_FUEL: u64 = 16;
/// Macros and blocks in each other.
const MAX_RECURSION: usize = 64;
/// Virtual memory for the stack; only what is used becomes real.
const STACK_BYTES: usize = 256 << 20;
const TEMPLATE: &str = "chat_template";

/// The tokens a template may name.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    pub(super) bos: String,
    pub(super) eos: String,
}

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    environment: Arc<Environment<'static>>,
    special: SpecialTokens,
}

impl Jinja {
    /// Compiles; the error is the problem in words.
    pub(super) fn new(source: String, special: SpecialTokens) -> Result<Self, String> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!("{} bytes, expected {MAX_SOURCE_BYTES} at most", source.len()));
        }
        let source = generation_tag::replaced(&source);
        let environment = on_own_stack(|| -> Result<_, String> {
            tame::check(&source, syntax())?;
            let mut environment = environment();
            environment.add_template_owned(TEMPLATE, source).map_err(|error| error.to_string())?;
            Ok(environment)
        })
        .map_err(|error| format!("no thread for it: {error}"))??;
        Ok(Self { environment: Arc::new(environment), special })
    }

    /// Runs; `name` is named in errors.
    pub(super) fn render(
        &self,
        name: &str,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let failed = |line, problem| Error::Template { template: name.to_owned(), line, problem };
        let run =
            || self.run(messages, add_generation_prompt).map_err(|error| (error.line(), in_words(&error)));
        let outcome =
            on_own_stack(run).map_err(|error| failed(None, format!("no thread for it: {error}")))?;
        outcome.map_err(|(line, problem)| failed(line, problem))
    }

    fn run(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, minijinja::Error> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let mut environment = (*self.environment).clone();
        let (bytes, count) = (bytes as u64, messages.len() as u64);
        environment.set_fuel(Some(BASE_FUEL + FUEL_PER_MESSAGE * count + bytes / BYTES_PER_FUEL));
        let mut output = Bounded(Vec::new());
        let SpecialTokens { bos, eos } = &self.special;
        let messages: Value = messages.iter().map(as_value).collect();
        environment.get_template(TEMPLATE)?.render_captured_to(
            context! { messages, add_generation_prompt, bos_token => bos, eos_token => eos },
            &mut output,
        )?;
        String::from_utf8(output.0)
            .map_err(|error| minijinja::Error::new(ErrorKind::WriteFailure, error.to_string()))
    }
}

fn as_value(message: &Message) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// As transformers sets it up, without the clock.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_fuel(Some(BASE_FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", to_json);
    environment
}

fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default()
}

fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("the template refuses: {message}")))
}

/// JSON as Python writes it: `", "` and `": "` between elements, or indented; nothing escaped for HTML.
fn to_json(state: &State, value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let mut output = Paid { state, bytes: Vec::new() };
    let spaces = " ".repeat(indent.unwrap_or(0).min(16));
    let written = match indent {
        Some(_) => value.serialize(&mut Serializer::with_formatter(
            &mut output,
            PrettyFormatter::with_indent(spaces.as_bytes()),
        )),
        None => value.serialize(&mut Serializer::with_formatter(&mut output, Python)),
    };
    let bad = |error: String| minijinja::Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(output.bytes).map_err(|error| bad(error.to_string()))
}

/// Python's default separators.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Bytes that are paid for as they are written, since a small value can hold itself many times.
struct Paid<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    bytes: Vec<u8>,
}

impl Write for Paid<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.state.consume_fuel(1 + bytes.len() as u64 / 64).map_err(std::io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The output, which may not become longer than a bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(std::io::Error::other(format!("its text is longer than {MAX_OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn in_words(error: &minijinja::Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => "it needs more work or memory than a template may have".to_owned(),
        _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    }
}

/// Runs `work` on a thread with a deep stack. A panic goes on in the caller.
fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}
