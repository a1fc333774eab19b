//! References of Markdown pages: relative links, their anchors, and repository paths between backticks.

use std::path::{Component, Path, PathBuf};

/// Prefixes of repository paths.
const OUR_FOLDERS: [&str; 11] = [
    "mpt-cli/",
    "mpt-core/",
    "mpt-data/",
    "mpt-infer/",
    "mpt-tokenize/",
    "mpt-train/",
    "xtask/",
    "docs/",
    "tests/",
    ".ci/",
    ".cargo/",
];

/// Index page, which links to every other page of `docs`.
pub(super) const INDEX: &str = "docs/README.md";

/// References of `page` at `path` that lead nowhere. `read` returns the text of an existing page.
pub(super) fn broken_links(
    path: &Path,
    page: &str,
    exists: &dyn Fn(&Path) -> bool,
    read: &dyn Fn(&Path) -> String,
) -> Vec<String> {
    let prose = without_code_blocks(page);
    let mut problems = Vec::new();
    for named in code_spans(&prose).filter(|code_span| is_path(code_span)) {
        if !exists(Path::new(named)) {
            problems.push(format!("{} names {named}, which does not exist", path.display()));
        }
    }
    for link in links(&prose) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
        if !exists(&target) {
            problems.push(format!("{} links to {link}, which does not exist", path.display()));
        } else if !anchor.is_empty() && !anchors(&read(&target)).any(|heading| heading == anchor) {
            problems.push(format!("{} links to {link}, a heading that is not there", path.display()));
        }
    }
    problems
}

/// Pages of `docs` that the index does not link to.
pub(super) fn unlisted_pages(files: &[PathBuf], index: &str) -> Vec<String> {
    let listed: Vec<_> = links(index)
        .map(|link| resolve(Path::new(INDEX), link.split('#').next().unwrap_or_default()))
        .collect();
    let is_page =
        |path: &&PathBuf| path.starts_with("docs") && path.extension().is_some_and(|end| end == "md");
    let missing =
        files.iter().filter(is_page).filter(|path| !listed.contains(path) && *path != Path::new(INDEX));
    missing.map(|path| format!("{INDEX} does not link to {}", path.display())).collect()
}

/// Code spans: text between single backticks on one line.
fn code_spans(page: &str) -> impl Iterator<Item = &str> {
    page.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Link targets within the repository.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let all = page.lines().flat_map(|line| line.split("](").skip(1));
    all.filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
}

fn is_path(code_span: &str) -> bool {
    OUR_FOLDERS.iter().any(|folder| code_span.starts_with(folder))
        && !code_span.contains([' ', '*', '<', '{', '…'])
}

/// Path of a link on the page at `page`.
fn resolve(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

/// Anchors that GitHub makes of a page's headings.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Page without fenced code blocks.
fn without_code_blocks(page: &str) -> String {
    let mut is_code = false;
    let mut prose = String::new();
    for line in page.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        let exists = |path: &Path| {
            ["docs/a.md", "docs/x/b.md", "mpt-core/src/model.rs", "README.md"]
                .contains(&path.to_str().unwrap_or(""))
        };
        broken_links(Path::new("docs/x/b.md"), page, &exists, &|_| "# A page\n## Keys of `run`\n".to_owned())
    }

    #[test]
    fn sound_pages_pass() {
        let page = "[a](../a.md), [b](b.md#a-page), [c](../../README.md#keys-of-run), [d](#a-page), [e](https://x.org/y#z), \
                    `mpt-core/src/model.rs`, `mpt-core/src/*.rs`, `docs/<name>.md`\n```\n[f](gone.md) `docs/gone.md`\n```\n";
        assert_eq!(found(page), Vec::<String>::new());
    }

    #[test]
    fn a_page_that_the_index_lacks_is_named() {
        let files =
            ["docs/README.md", "docs/a.md", "docs/x/b.md", "docs/c.svg", "README.md"].map(PathBuf::from);
        assert_eq!(unlisted_pages(&files, "[a](a.md#part)"), ["docs/README.md does not link to docs/x/b.md"]);
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let problems = found("[a](gone.md), `mpt-core/src/gone.rs`, [b](../a.md#gone), [c](#gone)");
        let expected = [
            "docs/x/b.md names mpt-core/src/gone.rs, which does not exist",
            "docs/x/b.md links to gone.md, which does not exist",
            "docs/x/b.md links to ../a.md#gone, a heading that is not there",
            "docs/x/b.md links to #gone, a heading that is not there",
        ];
        assert_eq!(problems, expected);
    }
}
