//! `mpt data verify`: the checksums of all files and rows.

use std::path::Path;

use mpt_data::Manifest;
use serde_json::json;

use super::PrepareProgress;
use crate::exit::CliError;
use crate::settings::Context;

pub(super) fn run(dir: &Path, ctx: &mut Context) -> Result<(), CliError> {
    let manifest = Manifest::open(dir)?;
    let damage = manifest.find_damage(&mut PrepareProgress::new(ctx))?;
    ctx.out.json(&json!({ "manifest": manifest.root(), "ok": damage.is_empty(), "damaged": damage }))?;
    for found in &damage {
        ctx.out.text(found)?;
    }
    if damage.is_empty() {
        return ctx
            .out
            .text(format_args!("{}: every file and every row is as it was written", dir.display()));
    }
    ctx.out.flush()?;
    let message = format!("{}: {} damaged, the first: {}", dir.display(), damage.len(), damage[0]);
    Err(CliError::data(message).help("restore the files named, or delete the folder and build it again"))
}
