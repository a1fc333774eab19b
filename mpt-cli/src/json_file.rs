//! JSON input files.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::exit::{CliError, ExitStatus};

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::read(ExitStatus::Data, path, error))?;
    serde_json::from_str(&text).map_err(|error| CliError::data(format!("{}: {error}", path.display())))
}
