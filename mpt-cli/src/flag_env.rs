//! Environment variables of flags: finds the variable behind a value that clap rejected.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};

/// Variable whose value was rejected; `None` if the flag is on the command line.
pub(crate) fn rejected_variable(error: &clap::Error, command: &clap::Command) -> Option<String> {
    let Some(ContextValue::String(rejected)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = command.get_arguments().find(|flag| {
        let long = flag.get_long().map(|long| format!("--{long}"));
        long.is_some_and(|long| rejected.split(' ').next() == Some(&long))
    })?;
    let (long, variable) = (flag.get_long()?, flag.get_env()?.to_str()?);
    let is_set = std::env::var_os(variable).is_some();
    (is_set && !is_on_command_line(long, std::env::args_os())).then(|| variable.to_owned())
}

/// Whether a long flag is among the arguments.
fn is_on_command_line(long: &str, args: impl Iterator<Item = OsString>) -> bool {
    let flag = format!("--{long}");
    let is_flag = |arg: OsString| {
        let arg = arg.to_string_lossy();
        arg.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    args.into_iter().any(is_flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_seen_in_both_spellings() {
        let given = |args: &[&str]| is_on_command_line("seed", args.iter().map(OsString::from));
        assert!(given(&["mpt", "--seed", "3"]) && given(&["mpt", "--seed=3"]));
        assert!(!given(&["mpt", "--seeds", "3"]) && !given(&["mpt", "seed"]));
    }
}
