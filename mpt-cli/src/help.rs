//! Help lines of library errors: the command or flag to use next. Libraries know files and fields, but no commands.

use mpt_core::{Error as ModelError, Mistaken};
use mpt_data::Error as DataError;
use mpt_infer::Error as TextError;
use mpt_train::Error as TrainError;

/// Help for an error of `mpt-core`.
pub(crate) fn of_model(error: &ModelError) -> Option<String> {
    let help = match error {
        ModelError::NotAModel { found: Mistaken::Absent, .. } => {
            "`mpt pull` downloads a model by its name on the hub, and prints its folder"
        }
        ModelError::NotAModel { found: Mistaken::Adapter, .. } => {
            "--model BASE --adapter ADAPTER, or `mpt merge` to fold it in"
        }
        ModelError::NotAModel { found: Mistaken::DataFolder, .. } => {
            "`mpt data inspect` shows it; `mpt train` trains a model on it"
        }
        ModelError::NotAModel { found: Mistaken::Run, .. } => "`mpt train` saves the first checkpoint",
        ModelError::NotFetched { .. } => "`mpt pull` downloads a model whole, and verifies it",
        _ => return None,
    };
    Some(help.to_owned())
}

/// Help for an error of `mpt-data`.
pub(crate) fn of_data(error: &DataError) -> Option<String> {
    Some(match error {
        DataError::NoPlan { .. } => {
            "`mpt data plan --units` with the same mix and --out plans them".to_owned()
        }
        DataError::NoUnit { .. } => "`mpt data plan --units` lists those of the mix as it is now".to_owned(),
        DataError::MissingUnits { .. } => "`mpt data unit` makes one, `mpt data build` all".to_owned(),
        DataError::NoManifest { .. } => {
            "`mpt data build` makes one, and continues one that was begun".to_owned()
        }
        DataError::NotBuilt { feature, .. } => {
            format!("cargo build --release -p mpt-cli --features {feature}")
        }
        _ => return None,
    })
}

/// Help for an error of `mpt-infer`.
pub(crate) fn of_text(error: &TextError) -> Option<String> {
    match error {
        TextError::NoChatTemplate { .. } => {
            let names = mpt_tokenize::ChatTemplate::builtin_names().collect::<Vec<_>>().join(", ");
            Some(format!("--template with one of {names}, or --template-file"))
        }
        _ => None,
    }
}

/// Help for an error of `mpt-train`.
pub(crate) fn of_training(error: &TrainError) -> Option<String> {
    Some(match error {
        TrainError::Override { .. } => "--set A.B=VALUE".to_owned(),
        TrainError::Changed { rescues: true, path, .. } => {
            format!("--resume {} goes on from it with other settings", path.display())
        }
        TrainError::Changed { .. } => "--resume never --set run_dir=ANOTHER starts anew".to_owned(),
        TrainError::Checkpoint { .. } => "--resume CHECKPOINT goes on from an older one".to_owned(),
        TrainError::RunExists { .. } => "--resume auto goes on with it".to_owned(),
        TrainError::NotFinite { checkpoint: Some(path), .. } => {
            format!("--resume {} --set optimizer.lr=LOWER", path.display())
        }
        _ => return None,
    })
}
