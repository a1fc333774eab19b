//! Filters, methods, functions and variables that a chat template may use.

/// Filters with a scalar result.
pub(super) const SCALAR_FILTERS: [&str; 21] = [
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
/// Filters whose result holds no item of the input twice.
pub(super) const OTHER_FILTERS: [&str; 14] = [
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
/// Methods of strings only, with a scalar result.
pub(super) const SCALAR_METHODS: [&str; 18] = [
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
/// Other methods.
pub(super) const OTHER_METHODS: [&str; 8] =
    ["count", "get", "items", "keys", "split", "splitlines", "title", "values"];
/// Functions.
pub(super) const FUNCTIONS: [&str; 3] = ["namespace", "raise_exception", "range"];
/// Fields of a message, always strings.
pub(super) const MESSAGE_FIELDS: [&str; 2] = ["role", "content"];
/// Variables that are scalars unless reassigned.
pub(super) const SCALAR_VARIABLES: [&str; 3] = ["add_generation_prompt", "bos_token", "eos_token"];
