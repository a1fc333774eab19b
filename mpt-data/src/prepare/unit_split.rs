//! Split of a source's files into units, and the names of the units.

use serde_json::json;

use super::unit::{InputFile, Unit};
use super::unit_file;
use crate::dedup::DedupKind;
use crate::hash;
use crate::layout::RowLayout;
use crate::manifest::{FORMAT, Plan, SourcePlan};

/// Most bytes of files that share a unit, so that many small files do not make many small units.
const UNIT_BYTES: u64 = 8 << 20;
/// Most files in a unit.
const UNIT_FILES: usize = 4096;

/// Splits the files of source `source` into units.
pub(super) fn split_into_units(
    source: usize,
    files: Vec<InputFile>,
    plan: &Plan,
    layout: RowLayout,
) -> Vec<Unit> {
    let mut groups: Vec<Vec<InputFile>> = Vec::new();
    let mut bytes = 0;
    for file in files {
        bytes += file.file.bytes;
        match groups.last_mut() {
            Some(group) if bytes <= UNIT_BYTES && group.len() < UNIT_FILES => group.push(file),
            _ => {
                bytes = file.file.bytes;
                groups.push(vec![file]);
            }
        }
    }
    let named = |inputs: Vec<InputFile>| Unit {
        name: unit_name(&plan.sources[source], &inputs, plan, layout),
        source,
        inputs,
    };
    groups.into_iter().map(named).collect()
}

/// Hash of everything that decides a unit's content.
fn unit_name(source: &SourcePlan, inputs: &[InputFile], plan: &Plan, layout: RowLayout) -> String {
    let takes_part = |kind| source.dedup.as_ref().is_none_or(|kinds| kinds.contains(&kind));
    let decides = json!({
        "format": FORMAT,
        "unit": unit_file::VERSION,
        "tokenizer": plan.tokenizer,
        "token_bytes": layout.token_bytes,
        "source": {
            "format": source.format, "text_field": source.text_field, "id_field": source.id_field,
            "filters": source.filters, "lists": source.lists, "on_bad_line": source.on_bad_line,
        },
        "minhash": plan.dedup.minhash().filter(|_| takes_part(DedupKind::MinHash)),
        "paragraph": plan.dedup.paragraphs().filter(|_| takes_part(DedupKind::Paragraph)),
        "inputs": inputs.iter().map(|input| &input.file).collect::<Vec<_>>(),
    });
    hash::sha256(decides.to_string().as_bytes())[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::file_digest::FileDigest;

    #[test]
    fn small_files_share_a_unit_and_large_ones_do_not() {
        let file = |index: usize, bytes| InputFile {
            path: PathBuf::new(),
            file: FileDigest { name: format!("{index}"), bytes, sha256: String::new() },
        };
        let plan = Plan {
            format: 1,
            seed: 0,
            seq_len: 8,
            row_tokens: 8,
            dedup: crate::dedup::Dedup::none(),
            embedder: None,
            eval_fraction: 0.0,
            bos: String::new(),
            eos: String::new(),
            tokenizer: "t".into(),
            vocab_size: 9,
            mixing: Default::default(),
            sources: vec![SourcePlan {
                name: "s".into(),
                proportion: crate::mixing::Share::Proportion(1.0),
                format: crate::config::Format::Text,
                text_field: "text".into(),
                id_field: None,
                token_dtype: None,
                filters: vec![],
                lists: vec![],
                dedup: None,
                on_bad_line: crate::config::OnBadLine::Fail,
                inputs: vec![],
            }],
        };
        let cut = |sizes: &[u64]| {
            let files = sizes.iter().enumerate().map(|(index, &bytes)| file(index, bytes)).collect();
            split_into_units(0, files, &plan, RowLayout::new(8, 9))
                .iter()
                .map(|unit| unit.inputs.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(&[5, 5, UNIT_BYTES, 5, UNIT_BYTES - 5, 1]), [2, 1, 2, 1]);
        assert_eq!(cut(&vec![1; UNIT_FILES + 1]), [UNIT_FILES, 1]);
    }
}
