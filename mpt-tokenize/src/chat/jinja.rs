//! Sandbox for a checkpoint's Jinja template, an untrusted program.
//!
//! A template sees the conversation and two special tokens: no files, no other templates, no clock. Work and memory are
//! charged to one fuel budget, the output is bounded, and it runs on a stack that holds the deepest nesting the budget allows.
//! White space, Python methods and `tojson` behave as in transformers.

use std::io::Write;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, State, Value, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::{Message, generation_tag, template_safety};
use crate::error::{Error, Result};

/// Longest template in bytes; published ones have some thousands. It bounds nesting, and so the stack.
const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Longest output in bytes.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Base fuel. An instruction costs 1, and so do 64 bytes created or read.
const BASE_FUEL: u64 = 20_000;
/// Fuel added per message.
const FUEL_PER_MESSAGE: u64 = 200;
/// Bytes of the conversation per unit of added fuel: each may be read and written a few times.
const BYTES_PER_FUEL: u64 = 16;
/// Deepest nesting of macros and blocks.
const MAX_RECURSION: usize = 64;
/// Virtual size of the stack in bytes; only used pages become resident.
const STACK_BYTES: usize = 256 << 20;
const TEMPLATE: &str = "chat_template";

/// Special tokens that a template may use.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    pub(super) bos: String,
    pub(super) eos: String,
}

/// Compiled template.
#[derive(Debug, Clone)]
pub(super) struct Jinja {
    environment: Arc<Environment<'static>>,
    special: SpecialTokens,
}

impl Jinja {
    /// Checks and compiles a template; the error is in words.
    pub(super) fn new(source: String, special: SpecialTokens) -> Result<Self, String> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(format!("{} bytes, expected {MAX_SOURCE_BYTES} at most", source.len()));
        }
        let source = generation_tag::replace_tags(&source);
        let environment = on_own_stack(|| -> Result<_, String> {
            template_safety::check(&source, syntax())?;
            let mut environment = environment();
            environment.add_template_owned(TEMPLATE, source).map_err(|error| error.to_string())?;
            Ok(environment)
        })
        .map_err(|error| format!("no thread for it: {error}"))??;
        Ok(Self { environment: Arc::new(environment), special })
    }

    /// Text of a conversation. `name` is the template in errors.
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
        let mut output = BoundedOutput(Vec::new());
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

/// Environment as in transformers, without the clock.
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

/// Filter `tojson`: Python's `json.dumps`, with separators `", "` and `": "` or indentation, and no HTML escapes.
fn to_json(state: &State, value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    let mut output = FuelMeteredWriter { state, bytes: Vec::new() };
    let spaces = " ".repeat(indent.unwrap_or(0).min(16));
    let written = match indent {
        Some(_) => value.serialize(&mut Serializer::with_formatter(
            &mut output,
            PrettyFormatter::with_indent(spaces.as_bytes()),
        )),
        None => value.serialize(&mut Serializer::with_formatter(&mut output, PythonSeparators)),
    };
    let bad = |error: String| minijinja::Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(output.bytes).map_err(|error| bad(error.to_string()))
}

/// Formatter with Python's default separators.
struct PythonSeparators;

impl Formatter for PythonSeparators {
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

/// Writer that charges fuel: a small value can serialize to many bytes.
struct FuelMeteredWriter<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    bytes: Vec<u8>,
}

impl Write for FuelMeteredWriter<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.state.consume_fuel(1 + bytes.len() as u64 / 64).map_err(std::io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Output of at most [`MAX_OUTPUT_BYTES`].
struct BoundedOutput(Vec<u8>);

impl Write for BoundedOutput {
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

/// Runs `work` on a thread with a deep stack. A panic resumes in the caller.
fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}
